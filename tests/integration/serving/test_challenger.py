"""A challenger beside its champion: hot, under a name of its own, and gone without a lost request."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data.preprocess import Preprocessing
from serving.client import ask as ask_by_client
from serving.core.bundle import Bundle
from serving.core.challenger import challenger_file, remove_challenger
from tests.bundles import tiny_bundle
from tests.integration.serving import pictures
from tests.integration.serving.harness import (
    WIRES,
    Reply,
    Servers,
    ask,
    challenge,
    get,
    promote,
    until,
)

TASK, BESIDE = "dr_grading", "dr_grading-challenger"
GOOD = pictures.file(pictures.sharp(), "jpeg")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    base = tmp_path_factory.mktemp("versions")
    other = Preprocessing(size=(64, 64), fit="letterbox")
    changed = {"preprocessing": other.to_dict(), "preprocessing_digest": other.digest}
    return {
        "1": tiny_bundle(base / "1", quality="photo", seed=1),
        "2": tiny_bundle(base / "2", quality="photo", seed=2, **changed),
        "3": tiny_bundle(base / "3", quality="photo", seed=3),
    }


@contextlib.contextmanager
def served(versions: dict[str, Bundle], root: Path, linger_s: float) -> Iterator[Servers]:
    """Version 1 as champion; a challenger that is withdrawn answers on for so long, and then is gone."""
    promote(root, versions["1"], "1")
    linger = ("--linger-s", str(linger_s))
    servers = Servers(
        root, root / "servers", poll_s=0.05, predictor_options=linger, transformer_options=linger
    )
    with servers.running() as running:
        yield running


@pytest.fixture
def living(versions: dict[str, Bundle], tmp_path: Path) -> Iterator[Servers]:
    """Here it goes soon: what must be seen of one that was withdrawn might be missed."""
    with served(versions, tmp_path / "root", 0.2) as servers:
        yield servers


@pytest.fixture
def lingering(versions: dict[str, Bundle], tmp_path: Path) -> Iterator[Servers]:
    """Here it never goes, however slowly a test looks."""
    with served(versions, tmp_path / "root", 3600) as servers:
        yield servers


def metadata(servers: Servers, name: str = BESIDE, *, url: str | None = None) -> dict[str, Any]:
    response = get(f"{url or servers.url}/v2/models/{name}")
    return response.json() if response.status_code == 200 else {}


def mode(servers: Servers) -> tuple[Any, Any]:
    told = metadata(servers).get("parameters", {})
    return told.get("mode"), told.get("share")


def loads(servers: Servers) -> float:
    """How often the predictor loaded something as the challenger."""
    text = get(f"{servers.predictor_url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("retiderm_swaps_total{")]
    return sum(float(line.split()[-1]) for line in lines if f'model="{BESIDE}",outcome="served"' in line)


def version(reply: Reply) -> str:
    return str(reply.documents[0]["model"]["version"])


def is_gone(servers: Servers) -> bool:
    """From both, which look each in its own time."""
    return not metadata(servers) and not metadata(servers, url=servers.predictor_url)


@contextlib.contextmanager
def asking(servers: Servers, names: Callable[[], Iterator[str]]) -> Iterator[list[tuple[str, Reply]]]:
    """Go on asking meanwhile, over three wires, for one model after the other; all are answered."""
    stop, replies = threading.Event(), list[tuple[str, Reply]]()

    def keep_asking(wire: str) -> None:
        for name in names():
            if stop.is_set():
                return
            replies.append((name, ask(servers, wire, [GOOD], task=name)))

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(keep_asking, wire) for wire in ("v1", "v2 binary", "grpc")]
        try:
            yield replies
        finally:
            stop.set()
        for future in futures:
            future.result()
    refused = [reply for _, reply in replies if not reply.ok]
    assert not refused


def test_from_shadow_to_a_share_to_champion(living: Servers, versions: dict[str, Bundle]) -> None:
    assert metadata(living) == {}
    assert ask(living, "v2 json", [GOOD], task=BESIDE).status == 404
    challenge(living.root, versions["2"], "2", "shadow")
    until(lambda: mode(living)[0] not in (None, "starting"))
    assert mode(living) == ("shadow", 0.0)
    assert "mode" not in metadata(living, TASK)["parameters"]
    # Each under its own name, over each wire, prepared each in its own way.
    for wire in WIRES:
        champion, beside = ask(living, wire, [GOOD]), ask(living, wire, [GOOD], task=BESIDE)
        assert champion.documents[0]["model"]["digest"] == versions["1"].digest
        told = beside.documents[0]["model"]
        assert (told["name"], told["version"], told["digest"]) == (BESIDE, "2", versions["2"].digest)
    origin = ask_by_client(living.url, BESIDE, [GOOD], features=True).origin
    assert (origin["task"], origin["model_name"], origin["model_version"]) == (TASK, BESIDE, "2")
    # Another share is another line of the file, and no load.
    assert loads(living) == 1
    challenge(living.root, versions["2"], "2", "share", 0.25)
    until(lambda: mode(living) == ("share", 0.25))
    assert loads(living) == 1
    # Promoted: the model that is there already takes over, and the challenger's name goes.
    with asking(living, lambda: itertools.repeat(TASK)) as replies:
        promote(living.root, versions["2"], "2")
        remove_challenger(living.root, TASK)
        until(lambda: version(ask(living, "v2 binary", [GOOD])) == "2")
        until(lambda: is_gone(living))
        answered = len(replies)
        until(lambda: len(replies) > answered + len(WIRES))
    assert ask(living, "grpc", [GOOD], task=BESIDE).status == "NOT_FOUND"
    assert version(ask(living, "grpc", [GOOD])) == "2"
    assert f'model="{BESIDE}",precision' not in get(f"{living.predictor_url}/metrics").text


def test_a_withdrawn_one_says_so_before_it_goes(lingering: Servers, versions: dict[str, Bundle]) -> None:
    challenge(lingering.root, versions["3"], "3", "share", 0.1)
    until(lambda: mode(lingering) == ("share", 0.1))
    seen: list[tuple[Any, Any]] = []
    remove_challenger(lingering.root, TASK)

    def withdrawn() -> bool:
        seen.append(mode(lingering))
        return seen[-1] == ("withdrawn", 0.0)

    until(withdrawn)
    assert set(seen) <= {("share", 0.1), ("withdrawn", 0.0)}
    # Who didn't look yet is answered.
    for wire in WIRES:
        assert version(ask(lingering, wire, [GOOD], task=BESIDE)) == "3"
        assert version(ask(lingering, wire, [GOOD])) == "1"


def test_a_gateway_that_looks_loses_no_request(lingering: Servers, versions: dict[str, Bundle]) -> None:
    """Half of the requests go to a challenger that comes, is replaced, and goes; the champion changes too."""
    looked = Counter[int]()

    def looks() -> Iterator[str]:
        # Now and then, not for each request: what it knows is old.
        while True:
            share = mode(lingering)[1]
            looked[threading.get_ident()] += 1
            yield from [BESIDE if share else TASK, TASK] * 3

    def all_look_again() -> None:
        before = dict(looked)
        # The first may have begun to look earlier than this.
        until(lambda: all(looked[thread] > count + 1 for thread, count in before.items()))

    with asking(lingering, looks) as replies:

        def by_the_challenger(name: str) -> int:
            return sum(asked == BESIDE and reply.ok and version(reply) == name for asked, reply in replies)

        for name in ("2", "3"):
            challenge(lingering.root, versions[name], name, "share", 0.5)
            until(lambda name=name: by_the_challenger(name) > 5)  # type: ignore[misc]
        promote(lingering.root, versions["3"], "3")
        remove_challenger(lingering.root, TASK)
        until(lambda: mode(lingering)[0] == "withdrawn")
        all_look_again()
        promote(lingering.root, versions["1"], "1")
        until(lambda: version(ask(lingering, "v2 binary", [GOOD])) == "1")
        all_look_again()
    assert {name for name, _ in replies} == {TASK, BESIDE}
    for name, reply in replies:
        model = reply.documents[0]["model"]
        assert model["name"] == name
        assert model["digest"] == versions[model["version"]].digest


def test_a_bad_challenger_never_answers_and_leaves_the_champion_alone(
    living: Servers, versions: dict[str, Bundle]
) -> None:
    challenge(living.root, versions["3"], "3", "shadow")
    folder = next((living.root / TASK / "versions").glob("3-*"))
    until(lambda: ask(living, "v2 json", [GOOD], task=BESIDE).ok)
    remove_challenger(living.root, TASK)
    until(lambda: is_gone(living))
    model = folder / "model.onnx"
    altered = bytearray(model.read_bytes())
    altered[len(altered) // 2] ^= 1
    model.write_bytes(altered)
    challenge(living.root, versions["3"], "3", "shadow")
    until(lambda: f"{BESIDE} version 3 may not serve" in living.predictor.log.read_text())
    # The two look each in its own time: the transformer may hear of it after the predictor has refused it.
    until(lambda: metadata(living) != {})
    assert mode(living) == ("starting", 0.0)
    assert ask(living, "v2 json", [GOOD], task=BESIDE).status == 503
    assert get(f"{living.url}/v2/models/{BESIDE}/ready").status_code == 503
    for wire in WIRES:
        assert version(ask(living, wire, [GOOD])) == "1"
    challenger_file(living.root, TASK).write_text("{")
    for process in (living.predictor, living.transformer):
        until(lambda log=process.log: f"pointer of {BESIDE} ignored" in log.read_text())  # type: ignore[misc]
    until(lambda: get(f"{living.url}/v2/health/ready").status_code == 200)
    assert version(ask(living, "v2 json", [GOOD])) == "1"
