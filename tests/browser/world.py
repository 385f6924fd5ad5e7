"""What the review page's tests and pictures look at: real servers, a registry, and drawn photographs.

``python tests/browser/world.py FOLDER`` starts it all, prints the address and a token, and waits.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from data.synthetic.drawing import draw, plan
from serving.gateway.access import Role
from serving.gateway.systems import all_systems
from tests.bundles import tiny_bundle
from tests.gateway_live import GRADES, LESIONS, Live, form_of, live_gateway
from tests.integration.serving.harness import Servers, challenge, promote

#: What a client may well send as its text. None of it may ever become markup.
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&lt;b&gt;"


@dataclass
class World:
    """A gateway with its models. ``folder`` is its own ``RETIDERM_HOME``'s parent."""

    live: Live
    servers: Servers

    def send(
        self, subject: str, count: int, *, seed: int = 0, size: int = 384, labels: Sequence[str] = ()
    ) -> None:
        """Let an app ask about drawn photographs: ``lesion`` over S0, ``fundus`` (one patient's) over S2."""
        pictures = [draw(one) for one in plan(subject, count, seed=seed, size=size, labels=labels)]
        with self.live.client(self.live.token()) as app:
            if subject == "lesion":
                for number, data in enumerate(pictures):
                    asked = app.post(
                        "/check-image", files=form_of(data), params={"case_id": f"case-{seed}-{number}"}
                    )
                    _fine(asked)
                return
            patient = _fine(app.post("/patients/", json={"name": "A. Patient"})).json()["id"]
            for data in pictures:
                _fine(
                    app.post(
                        "/predict/",
                        files=form_of(data),
                        params={"patient_id": patient, "visit_type": "follow-up"},
                    )
                )

    def reject(self, key: str, reason: str, notes: str) -> None:
        """Let the app's user say that an answer is wrong."""
        with self.live.client(self.live.token()) as app:
            _fine(app.post("/cases/reject", json={"case_id": key, "reason": reason, "notes": notes}))

    def reader(self, name: str = "Dr. Ada", role: Role = Role.REVIEWER) -> str:
        """A reader's token."""
        return self.live.token(role, subject=name)


@contextlib.contextmanager
def world(folder: Path, *, registry: bool = False, **environment: str) -> Iterator[World]:
    """Everything, ready. The lesions' model has a challenger; with a ``registry`` both are versions there."""
    home = folder / "gateway" / "home"
    tasks = {"dr_grading": {"grade": GRADES}, "skin_lesion": {"diagnosis": LESIONS}}
    if registry:
        tasks.pop("skin_lesion")
        _register(folder, home)
    for task, heads in tasks.items():
        promote(home / "serving", tiny_bundle(folder / task, task=task, heads=heads, quality="photo"), "1")
    if not registry:
        other = tiny_bundle(folder / "other", task="skin_lesion", seed=7, quality="photo")
        challenge(home / "serving", other, "2", "shadow")
    told = {
        "GATEWAY_SYSTEMS": ",".join(all_systems()),
        "CHECK_IMAGE_TASKS": "skin_lesion",
        "GATEWAY_QUEUE_AUDIT": "1",
        "GATEWAY_SERVING_ROOT": str(home / "serving"),
        **({} if registry else {"GATEWAY_REGISTRY_COMMAND": "-"}),
        **environment,
    }
    with (
        Servers(home / "serving", folder / "servers").running() as servers,
        live_gateway(folder / "gateway", servers.url, **told) as live,
    ):
        yield World(live, servers)


def _register(folder: Path, home: Path) -> None:
    """Three versions of the lesions' model: the second serves, the third waits for approval, in shadow."""
    import os

    os.environ["RETIDERM_HOME"] = str(home)
    from data.files import digest_json
    from training.registry.challenge import challenge as let_challenge
    from training.registry.client import Registry
    from training.registry.gate import GateRules, judge
    from training.registry.promotion import promote as let_serve

    home.joinpath("mlflow").mkdir(parents=True)
    registry = Registry(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    for number, approval in ((1, False), (2, False), (3, True)):
        bundle = tiny_bundle(
            folder / f"lesion-{number}",
            task="skin_lesion",
            seed=number,
            quality="photo",
            test_digest=digest_json(f"test {number}"),
            parity={name: {"passed": True} for name in ("onnx", "cam", "served")},
        )
        version = registry.register(bundle, None, None)
        judge(registry, version, GateRules(floors={"auc": 0.7}, requires_approval=approval))
        version = registry.get("skin_lesion", version.version)
        if number < 3:
            let_serve(
                registry, version, why=("the first one", "sees more of the rare ones")[number - 1], who="anna"
            )
        else:
            let_challenge(registry, version, why="to see it beside the champion", who="anna")


def _fine(answer: httpx.Response) -> httpx.Response:
    assert answer.status_code in (200, 201), answer.text
    return answer


if __name__ == "__main__":
    with world(Path(sys.argv[1]), registry=True) as made:
        made.send("lesion", 14, seed=1)
        made.send("fundus", 6, seed=1, labels=("2", "3", "1", "4", "0"))
        made.reject("case-1-3", "wrong", "The app's user thinks that it is a mole. " + HOSTILE)
        print(made.live.url, made.reader(), made.reader("Dr. Ben"), made.reader("Dr. Cleo"), flush=True)
        time.sleep(36000)
