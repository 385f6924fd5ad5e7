"""training/registry/steps.py, recovery.py: a step that fails undoes all; a crash is finished or undone."""

from __future__ import annotations

from typing import Any

import pytest

import training.registry.steps
from data.errors import RegistryError
from data.paths import Home
from serving.source import RootSource
from tests.unit.training.registry.world import TASK, Elsewhere, aliases, full_after, serving
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.promotion import promote
from training.registry.reconcile import reconcile
from training.registry.targets import LocalTarget
from training.registry.verify import verify
from training.registry.version import Version


@pytest.mark.parametrize("where", ["prepare", "apply", "bug"])
def test_a_failing_step_undoes_everything(registry: Registry, make: Any, home: Home, where: str) -> None:
    other = Elsewhere()
    targets = [LocalTarget(registry), other]
    first = make(accepted=True)
    promote(registry, first, targets=targets)
    second = make(accepted=True)
    other.fails = where
    with pytest.raises(RegistryError, match="failed and was undone"):
        promote(registry, second, targets=targets)
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1", "challenger": "2"})
    assert other.serves(first)
    assert Ledger().entries()[-1].event == "undone"
    other.fails = ""
    promote(registry, second, targets=targets)
    assert serving(home) == "2"


def test_a_first_promotion_that_fails_leaves_nothing_serving(
    registry: Registry, make: Any, home: Home
) -> None:
    other = Elsewhere()
    other.fails = "apply"
    with pytest.raises(RegistryError, match="undone"):
        promote(registry, make(accepted=True), targets=[LocalTarget(registry), other])
    assert (serving(home), aliases(registry)) == (None, {"challenger": "1"})


def test_an_undone_first_promotion_was_never_seen_by_a_predictor(
    registry: Registry, make: Any, home: Home
) -> None:
    """A predictor keeps what it served when a pointer goes, so it must not have been there at all."""
    source = RootSource(home.serving)
    seen = []

    class Watched(Elsewhere):
        def apply(self, version: Version) -> None:
            seen.append(source.scan())
            super().apply(version)

    other = Watched()
    other.fails = "apply"
    with pytest.raises(RegistryError, match="undone"):
        promote(registry, make(accepted=True), targets=[LocalTarget(registry), other])
    assert (seen, source.scan()) == ([{}], {})


def test_what_finishes_a_crash_undoes_nothing_that_is_done(
    registry: Registry, make: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make(accepted=True)

    def killed(step: str) -> None:
        if step == "aliases":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        promote(registry, version, on_step=killed)
    with monkeypatch.context() as patch:
        full_after(patch, "done")
        assert [r.message for r in reconcile(registry)] == [
            f"Finished the unfinished promote of {TASK} to version 1."
        ]
    assert (serving(home), verify(registry)) == ("1", [])


def test_nothing_is_undone_while_nobody_can_say_whether_it_is_done(
    registry: Registry, make: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make(accepted=True)
    with monkeypatch.context() as patch:
        full_after(patch, "done")

        def told(step: str) -> None:
            if step == "target local logged":
                patch.setattr(training.registry.steps, "unfinished", gone)

        def gone(*_: Any) -> list[Any]:
            raise OSError(5, "Input/output error")

        with pytest.raises(RegistryError, match="Whether version 1 of dr_grading serves can't be read"):
            promote(registry, version, on_step=told)
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1"})
    reconcile(registry)
    assert verify(registry) == []


def test_what_can_not_be_undone_stays_open_and_says_so(registry: Registry, make: Any) -> None:
    other = Elsewhere()
    other.fails = "both"
    with pytest.raises(RegistryError, match="could not all be undone"):
        promote(registry, make(accepted=True), targets=[LocalTarget(registry), other])
    assert next(f.kind for f in verify(registry)) == "unfinished"
