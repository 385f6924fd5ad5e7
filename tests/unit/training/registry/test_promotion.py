"""training/registry/promotion.py, reconcile.py: what serves after each step, failure and change by hand."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import training.registry.ledger
import training.registry.promotion
from data.errors import RegistryError, UsageError
from data.paths import Home
from serving.core.bundle import Bundle
from serving.core.pointer import pointer_file, read_pointer
from serving.source import RootSource
from training.registry.client import Registry
from training.registry.gate import GateRules, approve, judge
from training.registry.ledger import Ledger
from training.registry.locks import locked
from training.registry.promotion import promote, rollback
from training.registry.reconcile import adopt, reconcile
from training.registry.state import history
from training.registry.targets import LocalTarget
from training.registry.verify import verify
from training.registry.version import Version

TASK = "dr_grading"


def serving(home: Home, task: str = TASK) -> str | None:
    """The version that a predictor would load now; its bundle must be whole."""
    pointer = read_pointer(home.serving, task)
    if pointer is None:
        return None
    assert Bundle.open(pointer.folder(home.serving)).digest == pointer.digest
    return pointer.version


def aliases(registry: Registry, task: str = TASK) -> dict[str, str]:
    return {alias: v.version for v in registry.versions(task) for alias in v.aliases}


class Elsewhere:
    """A second target, in memory, that can be told to fail."""

    name = "elsewhere"

    def __init__(self) -> None:
        self.state: dict[str, dict[str, Any] | None] = {}
        self.fails: str = ""

    def spec(self) -> dict[str, Any]:
        return {"kind": "elsewhere"}

    def current(self, task: str) -> dict[str, Any] | None:
        return self.state.get(task)

    def serves(self, version: Version) -> bool:
        return self.state.get(version.task) == {"digest": version.digest}

    def prepare(self, version: Version) -> None:
        if self.fails == "prepare":
            raise RegistryError("elsewhere is full")

    def apply(self, version: Version) -> None:
        if self.fails in ("apply", "both"):
            raise RegistryError("elsewhere is away")
        if self.fails == "bug":
            raise ZeroDivisionError("a bug")
        self.state[version.task] = {"digest": version.digest}

    def restore(self, task: str, state: Mapping[str, Any] | None) -> None:
        if self.fails == "both":
            raise RegistryError("elsewhere is still away")
        self.state[task] = dict(state) if state else None

    def tidy(self, task: str, keep: Sequence[Version]) -> None:
        if self.fails == "tidy":
            raise OSError("no")


def test_promote_twice_and_roll_back(registry: Registry, make: Any, home: Home) -> None:
    first, second = make(accepted=True), None
    result = promote(registry, first, why="the first", who="alice")
    assert (result.before, result.changed, result.targets) == (None, True, ("local",))
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1"})
    second = make(accepted=True)
    assert aliases(registry) == {"champion": "1", "challenger": "2"}
    assert promote(registry, second, why="better", who="bob").before == "1"
    assert (serving(home), aliases(registry)) == ("2", {"champion": "2", "previous": "1"})
    back = rollback(registry, TASK, why="worse after all", who="carol")
    assert (back.action, back.version, back.before) == ("rollback", "1", "2")
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1", "previous": "2"})
    assert verify(registry) == []
    rows = history(Ledger().entries(), TASK)
    assert [(r.version, r.action, r.who, r.why) for r in rows] == [
        ("1", "promote", "alice", "the first"),
        ("2", "promote", "bob", "better"),
        ("1", "rollback", "carol", "worse after all"),
    ]
    assert [bool(r.until) for r in rows] == [True, True, False]
    assert rows[0].until == rows[1].since


def test_of_two_who_roll_back_to_one_version_the_second_changes_nothing(
    registry: Registry, make: Any, home: Home
) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    assert rollback(registry, TASK, to="1", who="anna").changed is True
    entries = len(Ledger().entries())
    again = rollback(registry, TASK, to="1", who="bob")
    assert (again.changed, again.version, serving(home)) == (False, "1", "1")
    assert len(Ledger().entries()) == entries


def test_a_comparison_of_another_version_is_refused(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    make(accepted=True)
    third = make(accepted=True)
    entries = len(Ledger().entries())
    with pytest.raises(RegistryError, match="of version 2, not of version 3"):
        promote(registry, third, comparison={"champion": "1", "challenger": "2", "images": 300})
    assert (serving(home), len(Ledger().entries())) == ("1", entries)
    seen = {"champion": "1", "challenger": "3", "images": 300}
    assert promote(registry, third, comparison=seen).changed
    (intent,) = (one for one in Ledger().entries() if one.event == "intent" and one.version == "3")
    assert intent.data["comparison"] == seen


def test_what_serves_already_changes_nothing(registry: Registry, make: Any) -> None:
    version = make(accepted=True)
    promote(registry, version)
    before = len(Ledger().entries())
    assert promote(registry, version).changed is False
    assert len(Ledger().entries()) == before


def test_only_what_the_gate_accepted_is_promoted(registry: Registry, make: Any, home: Home) -> None:
    with pytest.raises(RegistryError, match="has not judged"):
        promote(registry, make())
    refused = make()
    assert judge(registry, refused, GateRules(floors={"auc": 0.9})).decision == "refuse"
    # A tag set by hand doesn't count: the ledger does.
    registry.set_tag(refused, "gate.decision", "accept")
    with pytest.raises(RegistryError, match="The gate refused"):
        promote(registry, refused)
    assert serving(home) is None
    assert not [e for e in Ledger().entries() if e.event == "intent"]


@pytest.mark.parametrize("served", [False, True])
def test_an_alias_set_by_hand_opens_no_way_round_the_gate(
    registry: Registry, make: Any, home: Home, served: bool
) -> None:
    if served:
        promote(registry, make(accepted=True))
    refused = make()
    rules = GateRules(floors={"auc": 0.9})
    assert not judge(registry, refused, rules).accepted
    registry.set_alias(TASK, "champion", refused.version)
    with pytest.raises(RegistryError, match="The gate refused"):
        promote(registry, refused)
    again = judge(registry, refused, rules)
    assert (again.decision, again.line) == ("refuse", "new test set" if served else "first version")
    assert serving(home) == ("1" if served else None)
    # Nor does it become what a rollback goes back to.
    better = make(accepted=True)
    promote(registry, better)
    assert aliases(registry) == {"champion": better.version} | ({"previous": "1"} if served else {})


def test_what_serves_gets_its_alias_back(registry: Registry, make: Any, home: Home) -> None:
    one = make(accepted=True)
    promote(registry, one)
    registry.set_alias(TASK, "champion", make().version)
    assert promote(registry, one).changed
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1"})


def test_a_champion_that_mlflow_lost_is_no_reason_to_begin_a_line(registry: Registry, make: Any) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    registry.client.delete_model_version(TASK, "2")
    with pytest.raises(RegistryError, match="version 2 is champion, but MLflow has it no longer"):
        make(accepted=True)
    assert rollback(registry, TASK).version == "1"
    assert aliases(registry) == {"champion": "1"}


def test_a_decision_against_another_champion_is_stale(registry: Registry, make: Any) -> None:
    one, two = make(accepted=True), make(accepted=True)
    promote(registry, one)
    with pytest.raises(RegistryError, match=r"compared .* with version none, but version 1 is champion now"):
        promote(registry, two)


def test_approval_by_command_and_by_tag(registry: Registry, make: Any, home: Home) -> None:
    rules = GateRules(floors={"auc": 0.7}, requires_approval=True)
    one = make()
    decision = judge(registry, one, rules)
    assert (decision.decision, decision.pending_approval) == ("refuse", True)
    assert decision.headline == "waits for a person's approval"
    with pytest.raises(RegistryError, match="waits for a person"):
        promote(registry, one)
    approve(registry, one, who="dr. alice", why="looked at 40 cases")
    promote(registry, one)
    assert serving(home) == "1"
    two = make()
    judge(registry, two, rules)
    registry.set_tag(two, "approved_by", "dr. bob")  # as MLflow's page does it
    promote(registry, two)
    approvals = [(e.version, e.who, e.why) for e in Ledger().entries() if e.event == "approval"]
    assert approvals == [
        ("1", "dr. alice", "looked at 40 cases"),
        ("2", "dr. bob", "the tag approved_by in MLflow"),
    ]


def test_rollback_only_to_what_served(registry: Registry, make: Any) -> None:
    one = make(accepted=True)
    promote(registry, one)
    with pytest.raises(RegistryError, match="nothing to go back to"):
        rollback(registry, TASK)
    make()
    with pytest.raises(RegistryError, match="never served"):
        rollback(registry, TASK, to="2")
    with pytest.raises(UsageError):
        rollback(registry, "../etc")


def test_rollback_copies_again_what_was_tidied_away(registry: Registry, make: Any, home: Home) -> None:
    for _ in range(3):
        promote(registry, make(accepted=True))
    kept = sorted(p.name.split("-")[0] for p in (home.serving / TASK / "versions").iterdir())
    assert kept == ["2", "3"]
    rollback(registry, TASK, to="1")
    assert serving(home) == "1"
    assert verify(registry) == []


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


def test_what_fails_after_it_serves_is_no_reason_to_take_it_back(
    registry: Registry, make: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Registry, task: str, head: str) -> None:
        raise RegistryError("MLflow is away")

    other = Elsewhere()
    other.fails = "tidy"
    version = make(accepted=True)
    monkeypatch.setattr(Registry, "keep_ledger_head", away)
    assert promote(registry, version, targets=[LocalTarget(registry), other]).changed
    assert (serving(home), Ledger().entries()[-1].event) == ("1", "done")


@pytest.mark.parametrize("where", ["done", "head", "head kept", "challenger settled", "tidy", "full"])
def test_a_bug_after_it_is_done_undoes_nothing(
    registry: Registry,
    make: Any,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    third = make(accepted=True)

    def bug(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    def told(step: str) -> None:
        if step == where:
            bug()

    with monkeypatch.context() as patch:
        if where == "head":
            patch.setattr(Registry, "keep_ledger_head", bug)
        if where == "tidy":
            patch.setattr(LocalTarget, "tidy", bug)
        if where == "full":
            _full_after(patch, "done")
        assert promote(registry, third, on_step=told).changed
    assert "retiderm models reconcile" in caplog.text or where == "full"
    assert (serving(home), aliases(registry)["champion"]) == ("3", "3")
    assert [e.event for e in Ledger().entries() if e.data.get("op") is not None][-1] == "done"
    reconcile(registry)
    assert (verify(registry), reconcile(registry)) == ([], [])
    # The head that lagged, and the copy that was left.
    assert f'"seq":{Ledger().entries()[-1].seq}' in registry.ledger_heads()[TASK].replace(" ", "")
    kept = sorted(p.name.split("-")[0] for p in (home.serving / TASK / "versions").iterdir())
    assert kept == ["2", "3"]


def _full_after(patch: pytest.MonkeyPatch, event: str) -> None:
    """The disk is full when the head follows a line of that event."""
    real = training.registry.ledger.write_json

    def full(path: Path, document: Any) -> None:
        if Ledger().entries()[-1].event == event:
            raise OSError(28, "No space left on device")
        real(path, document)

    patch.setattr(training.registry.ledger, "write_json", full)


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
        _full_after(patch, "done")
        assert [r.message for r in reconcile(registry)] == [
            f"Finished the unfinished promote of {TASK} to version 1."
        ]
    assert (serving(home), verify(registry)) == ("1", [])


def test_nothing_is_undone_while_nobody_can_say_whether_it_is_done(
    registry: Registry, make: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make(accepted=True)
    with monkeypatch.context() as patch:
        _full_after(patch, "done")

        def told(step: str) -> None:
            if step == "target local logged":
                patch.setattr(training.registry.promotion, "unfinished", gone)

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


def test_a_damaged_bundle_is_never_served(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    bad = make(accepted=True)
    model = registry.bundle_path(bad) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    with pytest.raises(RegistryError, match="not the file that was exported"):
        promote(registry, bad)
    assert serving(home) == "1"
    assert [(f.kind, f.task) for f in verify(registry)] == [("bundle", TASK)]


def test_changes_by_hand_are_seen_and_put_back(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    registry.set_alias(TASK, "champion", "1")
    pointer_file(home.serving, TASK).write_text("{}")
    shutil.rmtree(home.serving / TASK / "versions")
    assert [f.kind for f in verify(registry)] == ["drift", "drift"]
    seen = reconcile(registry, dry_run=True)
    assert [(r.what, r.done) for r in seen] == [("alias", False), ("target", False)]
    assert [(r.what, r.done) for r in reconcile(registry)] == [("alias", True), ("target", True)]
    assert (serving(home), aliases(registry)["champion"]) == ("2", "2")
    assert (verify(registry), reconcile(registry)) == ([], [])
    assert [e.event for e in Ledger().entries()[-2:]] == ["reconcile", "reconcile"]


def test_an_altered_copy_is_seen_and_replaced(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    (copy,) = (home.serving / TASK / "versions").iterdir()
    (copy / "model.onnx").write_bytes(b"other")
    assert [f.message for f in verify(registry)] == ["local did not serve version 1, whole."]
    reconcile(registry)
    assert serving(home) == "1"


def test_a_cut_ledger_shows_against_mlflow(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    ledger = Ledger()
    old = (ledger.path.read_bytes(), ledger.head_path.read_bytes())
    promote(registry, make(accepted=True))
    ledger.path.write_bytes(old[0])
    ledger.head_path.write_bytes(old[1])
    findings = verify(registry)
    assert findings[0].kind == "ledger"
    assert "the tail was cut: MLflow's tag of dr_grading knows" in findings[0].message


def test_a_damaged_ledger_stops_promotions_and_can_be_begun_anew(
    registry: Registry, make: Any, home: Home
) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    ledger = Ledger()
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RegistryError, match="the tail was cut"):
        rollback(registry, TASK)
    with pytest.raises(RegistryError, match="nothing was changed"):
        reconcile(registry)
    assert serving(home) == "2"
    ledger.retire("restored from nothing")
    assert [r.message for r in adopt(registry, ledger, [TASK], why="after a damage")] == [
        "Took over version 1 as previous.",
        "Took over version 2 as champion.",
    ]
    assert verify(registry) == []
    rollback(registry, TASK)
    assert serving(home) == "1"
    assert verify(registry) == []


def test_a_second_promotion_waits_and_then_says_who_holds_it(registry: Registry, make: Any) -> None:
    version = make(accepted=True)
    with (
        locked(Ledger().folder / "locks" / f"{TASK}.lock", "test"),
        pytest.raises(RegistryError, match="A promotion of dr_grading is under way in another process"),
    ):
        promote(registry, version, lock_timeout=0.1)


def test_concurrent_promotions_come_one_after_the_other(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    errors: list[BaseException] = []

    def go() -> None:
        try:
            rollback(registry, TASK)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert serving(home) == "2"
    assert len(history(Ledger().entries(), TASK)) == 6
    assert verify(registry) == []


def test_tasks_do_not_disturb_each_other(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make("skin_lesion", accepted=True))
    assert (serving(home), serving(home, "skin_lesion")) == ("1", "1")
    assert verify(registry) == []
    assert registry.tasks() == ["dr_grading", "skin_lesion"]


def test_another_teams_ledger_in_the_same_mlflow_does_no_harm(
    registry: Registry, make: Any, home: Home, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, make(accepted=True))
    monkeypatch.setenv("RETIDERM_HOME", str(tmp_path / "theirs"))
    promote(registry, make("skin_lesion", accepted=True))
    assert verify(registry) == []
    # But what one team promoted, another's ledger knows nothing of.
    with pytest.raises(RegistryError, match="belongs to another ledger"):
        promote(registry, make(accepted=True))


def test_an_empty_ledger_where_mlflow_knows_one_is_told(
    registry: Registry, make: Any, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    promote(registry, make(accepted=True))
    shutil.rmtree(home.registry)
    (finding,) = verify(registry)
    assert "the ledger is empty, but MLflow's tag of dr_grading knows entry" in finding.message


def test_a_damaged_cache_is_fetched_again(
    registry: Registry, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make()
    # As through a server, where nothing can be read in place.
    monkeypatch.setattr(Registry, "_local", lambda self, version: None)
    cached = registry.bundle_path(version)
    assert "cache" in cached.parts
    (cached / "model.onnx").write_bytes(b"damaged")
    assert registry.bundle(version).digest == version.digest


def test_models_of_other_projects_are_left_out(registry: Registry, make: Any) -> None:
    registry.client.create_registered_model("theirs")
    make()
    assert registry.tasks() == [TASK]
    assert registry.versions("theirs") == []
