"""What the review page's tests and pictures look at: real servers, a registry, and drawn photographs.

``python tests/browser/world.py FOLDER`` starts it all, prints the address and a token, and waits.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from data.synthetic.drawing import draw, plan
from serving.gateway.access import Role
from serving.gateway.blobs import keep
from serving.gateway.store.repositories import images, labels, predictions, queue, tokens
from serving.gateway.store.repositories.predictions import Origin
from serving.gateway.store.tables import Label
from serving.gateway.systems import all_systems
from tests.bundles import tiny_bundle
from tests.gateway_live import GRADES, LESIONS, Live, form_of, live_gateway
from tests.integration.serving.harness import Servers, challenge, get, promote, until

#: What a client may well send as its text. None of it may ever become markup.
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&lt;b&gt;"


@dataclass
class World:
    """A gateway with its models."""

    live: Live
    servers: Servers

    def clinic(self, tenant: str = "default") -> Clinic:
        """One tenant's apps and readers."""
        return Clinic(self.live, tenant)


@dataclass
class Clinic:
    """What a tenant's apps send, and who reads it."""

    live: Live
    tenant: str

    def app(self) -> httpx.Client:
        """An app."""
        return self.live.client(self.live.token(tenant=self.tenant))

    def reader(self, name: str = "Dr. Ada", role: Role = Role.REVIEWER) -> str:
        """A reader's token."""
        return self.live.token(role, tenant=self.tenant, subject=name)

    def lesions(self, count: int, *, seed: int = 1, size: int = 384) -> list[str]:
        """Ask S0 about drawn lesions, each a case; their ids."""
        pictures = [draw(one) for one in plan("lesion", count, seed=seed, size=size)]
        keys = [f"case-{seed}-{number}" for number in range(count)]
        with self.app() as app:
            for key, data in zip(keys, pictures, strict=True):
                _fine(app.post("/check-image", files=form_of(data), params={"case_id": key}))
                _fine(app.post("/cases", json={"case_id": key, "notes": HOSTILE}))
        return keys

    def visits(self, grades: Sequence[str], *, seed: int = 1, size: int = 384) -> str:
        """Ask S2 about drawn retinas, one patient's visits; the patient's id."""
        pictures = [draw(one) for one in plan("fundus", len(grades), seed=seed, size=size, labels=grades)]
        with self.app() as app:
            patient = str(_fine(app.post("/patients/", json={"name": "A. Patient"})).json()["id"])
            about = {"patient_id": patient, "visit_type": "follow-up"}
            for data in pictures:
                _fine(app.post("/predict/", files=form_of(data), params=about))
        return patient

    def heads(self, heads: Mapping[str, Sequence[str]], task: str = "skin_profile", count: int = 2) -> None:
        """Let images of a model with several heads wait, without a model."""
        said = {
            head: {
                "label": names[0], "confidence": 0.5, "set": list(names[:2]), "uncertain": True,
                "probabilities": {name: 1 / len(names) for name in names},
            }
            for head, names in heads.items()
        }  # fmt: skip
        origin = Origin(task, task, "1", *(f"sha256:{'0' * 64}", "fp32", *[f"sha256:{'0' * 64}"] * 2))
        with self.live.settings() as settings, self.live.scope(self.tenant) as scope:
            for one in plan("face", count, seed=1, size=256):
                kept = keep(settings.open_blobs(), scope.tenant, draw(one), "image/jpeg")
                image = images.add(
                    scope, kept, media_type="image/jpeg", width=256, height=256, system="s3", owner="test"
                )
                row = predictions.add(
                    scope, origin, image_id=image.id, verdict="gradable", answer={"heads": said}
                )
                queue.enter(
                    scope, task=task, image_id=image.id, prediction_id=row.id,
                    reasons=["uncertain"], priority=1.0,
                )  # fmt: skip

    def reject(self, key: str, notes: str, reason: str = "wrong") -> None:
        """Let the app's user say that an answer is wrong."""
        with self.app() as app:
            _fine(app.post("/cases/reject", json={"case_id": key, "reason": reason, "notes": notes}))

    def labels(self) -> list[Label]:
        """All that stand, oldest first."""
        with self.live.scope(self.tenant) as scope:
            found = labels.listed(scope)
            scope.session.expunge_all()
        return found

    def end_sessions(self) -> None:
        """As if every session's time were over."""
        with self.live.scope(self.tenant) as scope:
            for row in tokens.listed(scope):
                if row.name.startswith(tokens.SESSION):
                    tokens.revoke(scope, row.id)


@contextlib.contextmanager
def world(
    folder: Path, *, registry: bool = False, size: tuple[int, int] = (64, 64), **environment: str
) -> Iterator[World]:
    """Everything, ready. The lesions' model has a challenger; with a ``registry`` both are versions there.

    ``size`` is what the models are given of a photograph.
    """
    home = folder / "gateway" / "home"
    tasks = {"dr_grading": {"grade": GRADES}, "skin_lesion": {"diagnosis": LESIONS}}
    if registry:
        tasks.pop("skin_lesion")
        _register(folder, home, size)
    for task, heads in tasks.items():
        bundle = tiny_bundle(folder / task, task=task, heads=heads, quality="photo", size=size)
        promote(home / "serving", bundle, "1")
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
        _with_challenger(Servers(home / "serving", folder / "servers")) as servers,
        live_gateway(folder / "gateway", servers.url, **told) as live,
    ):
        yield World(live, servers)


@contextlib.contextmanager
def _with_challenger(servers: Servers) -> Iterator[Servers]:
    """Running, and the challenger as well, which a transformer takes up after it is ready itself."""
    challenger = f"{servers.url}/v2/models/skin_lesion-challenger"
    with servers.running():
        until(lambda: get(challenger).json().get("parameters", {}).get("mode") == "shadow")
        yield servers


def _register(folder: Path, home: Path, size: tuple[int, int]) -> None:
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
            size=size,
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
        clinic = made.clinic()
        cases = clinic.lesions(14)
        clinic.visits("23140")
        clinic.reject(cases[3], "The app's user thinks that it is a mole.")
        print(
            made.live.url, *(clinic.reader(name) for name in ("Dr. Ada", "Dr. Ben", "Dr. Cleo")), flush=True
        )
        time.sleep(36000)
