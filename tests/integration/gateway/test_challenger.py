"""A challenger behind a live gateway: in the shadow, for a share, withdrawn, promoted, and away.

Real servers, real bundles of two seeds, and one gateway for the whole file: the tests run in this order.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from serving.core.bundle import Bundle
from serving.core.challenger import remove_challenger
from serving.core.pointer import version_path
from serving.gateway.access import Role
from serving.gateway.loop.policy import WEIGHTS
from serving.gateway.store.repositories import features
from serving.gateway.store.tables import Prediction, QueueEntry
from serving.profile import HEADS as PROFILE
from serving.scan import ACNE, CONDITION
from tests.bundles import tiny_bundle
from tests.faces import portrait
from tests.gateway_live import GRADES, LESIONS, Live, form_of, live_gateway, photograph, tiny_models
from tests.gateway_scans import begin, ended, send
from tests.integration.serving.harness import Servers, challenge, promote
from tests.profiles import jpeg

HEADS: dict[str, dict[str, Any]] = {
    "dr_grading": {"grade": GRADES},
    "skin_lesion": {"diagnosis": LESIONS},
    "acne": {ACNE.head: ACNE.classes},
    "skin_condition": {CONDITION.head: CONDITION.classes},
    "skin_profile": dict(PROFILE),
}
TASK = "dr_grading"
#: Readers are asked about disagreements here, and about what the models doubt themselves.
ENVIRONMENT = {
    "GATEWAY_SYSTEMS": "s0,s1,s2,s3,v1,review",
    "CHECK_IMAGE_TASKS": "skin_lesion",
    "CONF_THRESHOLD": "0",
    "GATEWAY_QUEUE_AUDIT": "0",
    "GATEWAY_QUEUE_UNUSUAL": "2",
    "GATEWAY_REGISTRY_COMMAND": "-",
    "GATEWAY_DRIFT_MINUTES": "0",
}


@dataclass
class Place:
    """Everything that runs, and clients of it."""

    servers: Servers
    live: Live
    bundles: dict[str, dict[str, Bundle]]
    app: httpx.Client
    person: httpx.Client
    reader: httpx.Client
    patients: dict[str, str] = field(default_factory=dict)

    def challenge(self, mode: str, share: float = 0.0, *, tasks: tuple[str, ...] = (TASK,)) -> None:
        for task in tasks:
            challenge(self.servers.root, self.bundles["2"][task], "2", mode, share)

    def patient(self, name: str) -> str:
        if name not in self.patients:
            made = self.app.post("/v1/patients", json={"name": name})
            assert made.status_code == 201, made.text
            self.patients[name] = made.json()["id"]
        return self.patients[name]

    def rows(self, **what: Any) -> list[Prediction]:
        with self.live.scope() as scope:
            query = select(Prediction).where(*(getattr(Prediction, k) == v for k, v in what.items()))
            return list(scope.session.scalars(query.order_by(Prediction.number)))

    def entry(self, task: str, image_id: str) -> QueueEntry | None:
        with self.live.scope() as scope:
            query = select(QueueEntry).where(QueueEntry.task == task, QueueEntry.image_id == image_id)
            return scope.session.scalars(query).one_or_none()

    def graded(self, patient: str, seed: int) -> dict[str, Any]:
        """S2's answer about a patient's photograph."""
        form = {"patient_id": self.patient(patient), "visit_type": "follow-up"}
        answer = self.app.post("/s2/predict/", data=form, files=form_of(photograph(seed)))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def predicted(self, seed: int, patient: str | None = None) -> dict[str, Any]:
        """/v1's answer."""
        form = {"task": TASK} | ({"patient_id": self.patient(patient)} if patient else {})
        answer = self.app.post("/v1/predictions", data=form, files=form_of(photograph(seed)))
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def outcomes(self, mode: str, task: str = TASK) -> dict[str, float]:
        """Of the gateway's metrics: how questions to the challenger ended."""
        found = {}
        for line in self.app.get("/metrics").text.splitlines():
            if line.startswith(f'retiderm_gateway_challenges_total{{mode="{mode}"') and task in line:
                found[line.split('outcome="')[1].split('"')[0]] = float(line.split()[-1])
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("challenger")
    tiny_models(folder)
    second = {
        task: tiny_bundle(folder / "second" / task, task=task, heads=heads, quality="photo", seed=5)
        for task, heads in HEADS.items()
    }
    first = {task: Bundle.open(folder / "bundles" / task) for task in HEADS}
    # A withdrawn one is gone long before the gateway looks again: the hard case for it.
    linger = ("--linger-s", "0.2")
    servers = Servers(
        folder / "serving", folder / "servers", poll_s=0.05, predictor_options=linger,
        transformer_options=linger,
    )  # fmt: skip
    with contextlib.ExitStack() as held:
        held.enter_context(servers.running())
        live = held.enter_context(live_gateway(folder / "gateway", servers.url, **ENVIRONMENT))
        app, reader = (held.enter_context(live.client(live.token(r))) for r in (Role.APP, Role.REVIEWER))
        person = held.enter_context(live.client(live.token(kind="bearer", subject="ada"), bearer=True))
        yield Place(servers, live, {"1": first, "2": second}, app, person, reader)


def until(condition: Callable[[], Any], timeout_s: float = 180) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.1)
    return found


def version(row: Prediction) -> tuple[str, str, bool]:
    return row.model_version, row.role, row.returned


def labels(row: Prediction) -> dict[str, str]:
    return {name: head["label"] for name, head in row.answer["heads"].items()}


def test_every_system_keeps_features_and_is_followed_by_a_shadow(place: Place) -> None:
    place.challenge("shadow", tasks=tuple(HEADS))
    name = f"{place.servers.url}/v2/models/"
    for task in HEADS:
        asked = f"{name}{task}-challenger/ready"
        until(lambda asked=asked: httpx.get(asked, timeout=60).status_code == 200)
    # The gateway looks at the first question, and again when what it knows is old.
    selfie = jpeg(portrait(480))
    place.graded("Ada", 1)
    checked = place.app.post("/check-image", files=form_of(photograph(2, size=480))).json()
    assert checked["status"] == "success", checked
    place.predicted(3)
    profiled = place.app.post("/api/v1/analyze/image", files=form_of(selfie)).json()
    assert (profiled["model_version"], profiled["model_type"]) == ("1", "onnx")
    scan = begin(place.person)
    assert send(place.person, scan, selfie).status_code == 200
    assert ended(place.person, scan)["status"] == "completed"

    def shadowed() -> bool:
        return {row.task for row in place.rows(role="challenger")} == set(HEADS)

    until(shadowed)
    until(lambda: len(place.rows(role="challenger")) == 6)
    given = place.rows(role="champion")
    assert {version(row) for row in given} == {("1", "champion", True)}
    assert Counter(row.task for row in given) == Counter({TASK: 2} | dict.fromkeys(set(HEADS) - {TASK}, 1))
    hidden = {(row.task, row.image_id): row for row in place.rows(role="challenger")}
    assert {version(row) for row in hidden.values()} == {("2", "challenger", False)}
    with place.live.scope() as scope:
        seen = features.of(scope, [row.id for row in (*given, *hidden.values())])
    assert len(seen) == 12
    assert all(one.features.embedding is not None for one in seen.values())
    # Where the two differ, and only there, a reader is asked for that; what was given stands in the entry.
    differ = 0
    for row in given:
        entry = place.entry(row.task, row.image_id)
        asked = entry is not None and "disagreement" in entry.reasons
        assert asked == (labels(row) != labels(hidden[row.task, row.image_id])), row.task
        differ += asked
        if entry is not None:
            assert entry.prediction_id == row.id
    assert differ > 0


def test_a_shadow_is_shown_to_nobody(place: Place) -> None:
    for row in place.rows(returned=False):
        for client in (place.app, place.reader):
            assert client.get(f"/v1/predictions/{row.id}").status_code == 404
            assert client.get(f"/v1/predictions/{row.id}/trace").status_code == 404
    (row, *_) = place.rows(role="champion")
    assert place.app.get(f"/v1/predictions/{row.id}").json()["model"]["version"] == "1"


def test_readers_see_how_the_two_compare(place: Place) -> None:
    for seed in range(10, 18):
        assert place.predicted(seed)["model"]["version"] == "1"
    until(lambda: len(place.rows(role="challenger", task=TASK)) == 10)
    shown = place.reader.get(f"/review/api/models/{TASK}")
    assert shown.status_code == 200, shown.text
    told = shown.json()
    assert (told["served"]["champion"]["version"], told["served"]["challenger"]["version"]) == ("1", "2")
    assert told["served"]["challenger"]["mode"] == "shadow"
    assert told["registry"] is None
    assert "No registry is reachable" in told["registry_away"]
    both: dict[str, dict[str, Prediction]] = {}
    for row in place.rows(task=TASK):
        both.setdefault(row.image_id, {})[row.role] = row
    agree = sum(labels(two["champion"]) == labels(two["challenger"]) for two in both.values())
    assert told["compared"] == {
        "champion": "1", "challenger": "2", "images": 10, "agree": agree, "labelled": 0,
        "champion_right": 0, "challenger_right": 0,
    }  # fmt: skip
    # A reader agrees with the challenger on an image where the two differ.
    page = place.reader.get("/review/api/queue", params={"task": TASK, "reason": "disagreement"}).json()
    assert len(page["items"]) == 10 - agree > 0
    (entry, *_) = page["items"]
    assert set(entry["reasons"]) <= set(WEIGHTS)
    doubted = place.reader.get(f"/review/api/entries/{entry['id']}").json()
    image = next(
        image for image, two in both.items() if (e := place.entry(TASK, image)) and e.id == doubted["id"]
    )
    truth = labels(both[image]["challenger"])["grade"]
    said = {"heads": {"grade": {"value": truth}}}
    assert place.reader.post(f"/review/api/entries/{entry['id']}/labels", json=said).status_code == 200
    compared = place.reader.get(f"/review/api/models/{TASK}").json()["compared"]
    assert (compared["labelled"], compared["champion_right"], compared["challenger_right"]) == (1, 0, 1)


def test_a_share_of_the_patients_gets_the_challengers_answer_and_keeps_it(place: Place) -> None:
    place.challenge("share", 0.5)
    people = [f"patient {number}" for number in range(12)]
    until(lambda: any(place.predicted(20, name)["model"]["version"] == "2" for name in people))
    first = {name: place.predicted(21, name)["model"] for name in people}
    assert {model["version"] for model in first.values()} == {"1", "2"}
    for model in first.values():
        assert model["name"] == (TASK if model["version"] == "1" else f"{TASK}-challenger")
        assert model["digest"] == place.bundles[model["version"]][TASK].digest
        assert model["task"] == TASK
    # Over S2, of another photograph, the same.
    for name in people:
        scan = place.graded(name, 22)["scan_id"]
        (row,) = place.rows(scan_id=scan)
        wanted = first[name]["version"]
        assert version(row) == (wanted, "champion" if wanted == "1" else "challenger", True)
    assert {name: place.predicted(23, name)["model"]["version"] for name in people} == {
        name: model["version"] for name, model in first.items()
    }
    # Nobody is followed by a shadow now.
    assert place.rows(returned=False, role="champion") == []
    assert place.outcomes("share").keys() == {"answered"}


@contextlib.contextmanager
def asking(place: Place) -> Iterator[list[tuple[int, str]]]:
    """Requests from several clients meanwhile: status and version of each."""
    stop, found = threading.Event(), list[tuple[int, str]]()
    people = [place.patient(f"patient {number}") for number in range(12)]

    def keep_asking(number: int) -> None:
        with place.live.client(token) as client:
            turn = number
            while not stop.is_set():
                turn += 1
                form = {"task": TASK, "patient_id": people[turn % len(people)]}
                files = form_of(photograph(turn % 7))
                answer = client.post("/v1/predictions", data=form, files=files)
                known = answer.status_code == 201
                found.append((answer.status_code, answer.json()["model"]["version"] if known else ""))

    token = place.live.token()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(keep_asking, number) for number in range(2)]
        try:
            yield found
        finally:
            stop.set()
            for each in running:
                each.result()


def gone(place: Place) -> bool:
    """Whether the gateway has asked a challenger that wasn't there any more."""
    return bool(place.outcomes("share").keys() - {"answered"})


def test_withdrawn_under_load_it_costs_nobody_an_answer(place: Place) -> None:
    everybody = 24  # both clients have asked for every patient
    with asking(place) as found:
        for _ in range(20):
            seen = len(found)
            until(lambda: {"1", "2"} <= {version for _, version in found[seen:]})  # noqa: B023
            remove_challenger(place.servers.root, TASK)
            until(lambda: gone(place) or {version for _, version in found[-everybody:]} == {"1"})
            # It is gone before the gateway knows: the champion answers in its place. Where the gateway
            # happened to look just then, once more.
            if gone(place):
                break
            place.challenge("share", 0.5)
        assert gone(place)
        seen = len(found)
        until(lambda: len(found) > seen + 5 and {version for _, version in found[-5:]} == {"1"})
    assert {status for status, _ in found} == {201}


def test_promoted_under_load_no_request_is_lost(place: Place) -> None:
    place.challenge("share", 0.3)
    with asking(place) as found:
        until(lambda: "2" in {version for _, version in found})
        promote(place.servers.root, place.bundles["2"][TASK], "2")
        remove_challenger(place.servers.root, TASK)
        until(lambda: len(found) > 12 and {version for _, version in found[-12:]} == {"2"})
        # And back.
        promote(place.servers.root, place.bundles["1"][TASK], "1")
        until(lambda: {version for _, version in found[-12:]} == {"1"})
    assert {status for status, _ in found} == {201}


def test_one_whose_answer_a_system_cannot_use_leaves_it_to_the_champion(place: Place, tmp_path: Path) -> None:
    """S1 with a challenger of other heads: its answer makes no profile."""
    task = "skin_profile"
    heads = {"skin_type": PROFILE["skin_type"]}
    other = tiny_bundle(tmp_path / "other", task=task, heads=heads, quality="photo")
    challenge(place.servers.root, other, "4", "share", 0.99)
    seeds = iter(range(1000, 9000))

    def version() -> str:
        sent = form_of(photograph(next(seeds)))
        answer = place.app.post("/api/v1/analyze/image", files=sent)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["model_version"])

    def failed() -> bool:
        # Until the predictor has taken it up, the challenger of before answers its share.
        assert version() in ("1", "2")
        return bool(place.outcomes("share", task).get("model_failed"))

    until(failed)
    assert {version() for _ in range(10)} == {"1"}


def test_one_that_never_loads_is_not_waited_for(place: Place, tmp_path: Path) -> None:
    third = tiny_bundle(tmp_path / "third", task=TASK, heads=HEADS[TASK], quality="photo", seed=9)
    # Before it is named: the predictor would load what is whole.
    folder = place.servers.root / TASK / version_path("3", third.digest)
    shutil.copytree(third.root, folder)
    model = folder / "model.onnx"
    model.write_bytes(b"\0" * model.stat().st_size)
    challenge(place.servers.root, third, "3", "share", 0.9)
    until(lambda: "version 3 may not serve" in place.servers.predictor.log.read_text())
    with asking(place) as found:
        until(lambda: len(found) >= 24)
    assert set(found) == {(201, "1")}
