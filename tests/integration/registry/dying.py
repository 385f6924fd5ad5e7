"""Promotes and dies: test_kill.py runs ``python dying.py FOLDER``; it prints one JSON line a point of death.

MLflow is imported once; each promotion then runs in a forked child, which opens the database itself and kills
itself by SIGKILL at a point, told by the promotion's own ``on_step``. Another child looks at what is left.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

TASK = "dr_grading"
POINTS = (
    "intent",
    "copying",
    "copy",
    "copy logged",
    "between aliases",
    "aliases",
    "aliases logged",
    "target local",
    "target local logged",
    "done",
    "head kept",
)


def child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run ``work`` in a forked child: the signal that ended it (0 for none), and what it gave, by JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            os.write(write, json.dumps(work()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status), None
    if os.WEXITSTATUS(status):
        raise SystemExit("a child failed")
    return 0, json.loads(told)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def registry() -> Any:
    from data.paths import home
    from training.registry.client import Registry

    home().mlflow.mkdir(parents=True, exist_ok=True)
    return Registry(f"sqlite:///{home().mlflow / 'mlflow.db'}")


def prepare(folder: Path) -> None:
    """Two versions, each on its own test set, so that the floors decide; the first serves."""
    from data.files import digest_json
    from tests.bundles import tiny_bundle
    from training.registry.promotion import promote

    here = registry()
    for number in (1, 2):
        bundle = tiny_bundle(
            folder / f"b{number}",
            seed=number,
            test_digest=digest_json(number),
            parity={name: {"passed": True} for name in ("onnx", "cam", "served")},
        )
        here.register(bundle)
    accept("1")
    promote(here, here.get(TASK, "1"))


def accept(version: str) -> None:
    from training.registry.gate import GateRules, judge

    here = registry()
    assert judge(here, here.get(TASK, version), GateRules(floors={"auc": 0.7})).accepted


def promote_and_die(version: str, point: str) -> None:
    from training.registry import client, promotion, store

    accept(version)
    if point == "copying":
        # After the last byte, before the copy has its name.
        store.Bundle = type("Bundle", (), {"open": staticmethod(lambda *a, **k: die())})  # type: ignore[misc]
        # A whole copy would not be copied again.
        from training.registry.targets import LocalTarget

        LocalTarget._whole = lambda self, version: False  # type: ignore[method-assign]
    if point == "between aliases":
        set_alias = client.Registry.set_alias

        def once(self: Any, *arguments: Any) -> None:
            set_alias(self, *arguments)
            die()

        client.Registry.set_alias = once  # type: ignore[method-assign]
    here = registry()
    promotion.promote(here, here.get(TASK, version), on_step=lambda name: die() if name == point else None)


def register_and_die(folder: Path, point: str) -> None:
    """Register a third version and die before, or just after, MLflow has made it; or while files go up."""
    from tests.bundles import tiny_bundle
    from training.registry import client

    here = registry()
    bundle = tiny_bundle(
        folder / "b3", seed=3, parity={name: {"passed": True} for name in ("onnx", "cam", "served")}
    )
    store = here.client
    if point == "uploading":
        client.log_json = lambda *a, **k: die()  # type: ignore[assignment]
    elif point == "uploaded":
        store.create_model_version = lambda *a, **k: die()  # type: ignore[method-assign]
    else:
        make = store.create_model_version

        def once(*arguments: Any, **more: Any) -> None:
            make(*arguments, **more)
            die()

        store.create_model_version = once  # type: ignore[method-assign]
    here.register(bundle, evaluation={"a": 1})


def register_again(folder: Path) -> dict[str, Any]:
    """What the next start makes of what the deaths left."""
    from serving.core.bundle import Bundle

    here = registry()
    version = here.register(Bundle.open(folder / "b3"), evaluation={"a": 1})
    return {
        "version": version.version,
        "versions": [item.version for item in here.versions(TASK)],
        "digest": here.bundle(version).digest == version.digest,
    }


def look() -> dict[str, Any]:
    """What serves, what verify says, without changing anything."""
    from data.paths import home
    from serving.core.bundle import Bundle
    from serving.core.pointer import read_pointer
    from training.registry.verify import verify

    here = registry()
    pointer = read_pointer(home().serving, TASK)
    assert pointer is not None
    whole = Bundle.open(pointer.folder(home().serving)).digest == pointer.digest
    champion = here.champion(TASK)
    return {
        "serves": pointer.version,
        "whole": whole,
        "champion": champion.version if champion else None,
        "findings": [finding.to_dict() for finding in verify(here)],
    }


def look_and_mend() -> dict[str, Any]:
    from training.registry.reconcile import reconcile

    left = look()
    repairs = [item.message for item in reconcile(registry())]
    return {"left": left, "repairs": repairs, "mended": look()}


def damage(version: str) -> None:
    """Make the version impossible to serve, as a lost disk would."""
    import shutil

    from data.paths import home

    here = registry()
    shutil.rmtree(here.bundle_path(here.get(TASK, version)))
    for copy in (home().serving / TASK / "versions").glob(f"{version}-*"):
        shutil.rmtree(copy)


def main(folder: Path) -> None:
    os.environ["RETIDERM_HOME"] = str(folder / "var")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import training.registry.client  # noqa: F401

    child(lambda: prepare(folder))
    for point in ("uploading", "uploaded", "made"):
        ended, _ = child(lambda point=point: register_and_die(folder, point))
        _, seen = child(lambda: [item.version for item in registry().versions(TASK)])
        print(json.dumps({"point": f"register: {point}", "signal": ended, "seen": seen}), flush=True)
    _, seen = child(lambda: register_again(folder))
    print(json.dumps({"point": "register: again", "signal": 9, "seen": seen}), flush=True)
    serves, waits = "1", "2"
    for point in POINTS:
        ended, _ = child(lambda point=point, waits=waits: promote_and_die(waits, point))
        _, seen = child(look_and_mend)
        print(json.dumps({"point": point, "from": serves, "to": waits, "signal": ended, **seen}), flush=True)
        serves, waits = waits, serves
    # At last one that can't be finished: its files go while the promotion is half done.
    ended, _ = child(lambda: promote_and_die(waits, "aliases"))
    child(lambda: damage(waits))
    _, seen = child(look_and_mend)
    print(json.dumps({"point": "lost", "from": serves, "to": waits, "signal": ended, **seen}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
