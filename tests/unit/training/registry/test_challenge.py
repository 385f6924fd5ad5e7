"""training/registry/challenge.py, beside.py: what answers beside the champion, whatever happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from data.errors import RegistryError, UsageError
from data.paths import Home
from serving.core.bundle import Bundle
from serving.core.challenger import challenger_file, read_challenger
from serving.source import RootSource
from tests.unit.training.registry.world import TASK, Elsewhere, serving
from training.registry.adoption import adopt
from training.registry.challenge import challenge, challenging, withdraw
from training.registry.cli import app
from training.registry.client import Registry
from training.registry.gate import GateRules, approve, judge
from training.registry.ledger import Ledger
from training.registry.promotion import promote, rollback
from training.registry.reconcile import reconcile
from training.registry.state import history, now_challenging
from training.registry.targets import LocalTarget
from training.registry.verify import verify
from training.registry.version import Version


class Broken(LocalTarget):
    """A second serving root that may refuse."""

    name = "broken"
    fails = ""

    def spec(self) -> dict[str, Any]:
        return {"kind": "local", "root": str(self.root)}

    def prepare_challenger(self, version: Version) -> None:
        if self.fails == "prepare":
            raise RegistryError("the disk is full", hint="Empty it.")
        super().prepare_challenger(version)

    def challenge(self, version: Version, mode: str, share: float) -> None:
        if self.fails == "challenge":
            raise RegistryError("it is away")
        if self.fails == "bug":
            raise ZeroDivisionError("a bug")
        super().challenge(version, mode, share)


@pytest.fixture
def two(registry: Registry, make: Any) -> tuple[Version, Version]:
    """One that serves and one that the gate let through."""
    first = make(accepted=True)
    promote(registry, first)
    return first, make(accepted=True)


def beside(home: Home) -> tuple[str, str, float] | None:
    """What a predictor would load beside the champion; its bundle must be whole."""
    found = read_challenger(home.serving, TASK)
    if found is None:
        return None
    assert Bundle.open(found.pointer.folder(home.serving)).digest == found.pointer.digest
    served = RootSource(home.serving).scan()[f"{TASK}-challenger"]
    assert (served.version, served.mode, served.share) == (found.pointer.version, found.mode, found.share)
    return found.pointer.version, found.mode, found.share


def events(task: str = TASK) -> list[str]:
    return [
        entry.event for entry in Ledger().entries(task) if entry.event in ("challenge", "withdraw", "done")
    ]


def test_shadow_then_a_share_then_withdrawn(registry: Registry, two: Any, home: Home) -> None:
    done = challenge(registry, two[1], why="look at it", who="alice")
    assert (done.version, done.mode, done.share, done.champion, done.changed) == (
        "2",
        "shadow",
        0.0,
        "1",
        True,
    )
    assert beside(home) == ("2", "shadow", 0.0)
    assert serving(home) == "1"
    again = challenge(registry, two[1])
    assert (again.changed, again.who) == (False, "alice")
    assert challenge(registry, two[1], mode="share", share=0.1).words == "for a share of 0.1"
    assert beside(home) == ("2", "share", 0.1)
    assert [(c.version, c.mode) for c in challenging(Ledger())] == [("2", "share")]
    assert verify(registry) == []
    gone = withdraw(registry, TASK, why="enough", who="bob")
    assert gone is not None
    assert (gone.version, gone.mode) == ("2", "share")
    assert beside(home) is None
    assert challenging(Ledger()) == []
    assert withdraw(registry, TASK) is None
    assert events() == ["done", "challenge", "challenge", "withdraw"]
    last = Ledger().entries(TASK)[-1]
    assert (last.event, last.who, last.why, last.version) == ("withdraw", "bob", "enough", "2")
    # What served when is not a challenger's history.
    assert [row.version for row in history(Ledger().entries())] == ["1"]
    assert verify(registry) == []


def test_promoting_it_ends_the_challenge_and_says_how_it_was(
    registry: Registry, two: Any, home: Home
) -> None:
    challenge(registry, two[1], mode="share", share=0.25)
    steps: list[str] = []
    seen = {"cases": 412, "agreement": 0.97}
    done = promote(registry, two[1], on_step=steps.append, comparison=seen)
    assert done.challenge is not None
    assert (done.challenge["mode"], done.challenge["share"]) == ("share", 0.25)
    assert steps.index("done") < steps.index("challenger settled")
    assert (serving(home), beside(home)) == ("2", None)
    intent = next(entry for entry in reversed(Ledger().entries(TASK)) if entry.event == "intent")
    assert intent.data["comparison"] == seen
    assert intent.data["challenge"] == done.challenge
    # Going back doesn't bring the challenge back.
    rollback(registry, TASK)
    assert (serving(home), beside(home)) == ("1", None)
    assert challenging(Ledger()) == []
    assert verify(registry) == []


def test_another_promotion_leaves_it_and_its_copy(
    registry: Registry, two: Any, make: Any, home: Home
) -> None:
    third = make(accepted=True)
    challenge(registry, two[1])
    assert promote(registry, third).challenge is None
    fourth = make(accepted=True)
    promote(registry, fourth)  # tidies: champion, previous and challenger stay
    assert beside(home) == ("2", "shadow", 0.0)
    assert {path.name[0] for path in (home.serving / TASK / "versions").iterdir()} == {"2", "3", "4"}
    assert verify(registry) == []
    # A rollback to the challenger's own version can't be: it never served.
    with pytest.raises(RegistryError, match="never served"):
        rollback(registry, TASK, to="2")


def test_one_replaces_the_other(registry: Registry, two: Any, make: Any, home: Home) -> None:
    challenge(registry, two[1])
    third = make(accepted=True)
    challenge(registry, third, mode="share", share=0.5)
    assert beside(home) == ("3", "share", 0.5)
    assert [c.version for c in challenging(Ledger())] == ["3"]


def test_who_may_not(registry: Registry, make: Any, home: Home) -> None:
    first = make(accepted=True)
    with pytest.raises(RegistryError, match="Nothing serves dr_grading yet"):
        challenge(registry, first)
    promote(registry, first)
    with pytest.raises(RegistryError, match="serves itself"):
        challenge(registry, first)
    with pytest.raises(RegistryError, match="has not judged"):
        challenge(registry, make())
    refused = make()
    assert not judge(registry, refused, GateRules(floors={"auc": 0.9})).accepted
    for mode, share in (("shadow", 0.0), ("share", 0.1)):
        with pytest.raises(RegistryError, match="The gate refused"):
            challenge(registry, refused, mode=mode, share=share)
    for mode, share in (("shadow", 0.1), ("share", 0.0), ("share", 1.0), ("other", 0.0)):
        with pytest.raises(UsageError):
            challenge(registry, refused, mode=mode, share=share)
    assert beside(home) is None
    assert events() == ["done"]


def test_what_waits_for_approval_may_be_looked_at_and_not_answer(
    registry: Registry, two: Any, make: Any, home: Home
) -> None:
    waits = make()
    assert judge(registry, waits, GateRules(floors={"auc": 0.7}, requires_approval=True)).pending_approval
    assert challenge(registry, waits).mode == "shadow"
    with pytest.raises(RegistryError, match="waits for a person's approval"):
        challenge(registry, waits, mode="share", share=0.1)
    assert beside(home) == (waits.version, "shadow", 0.0)
    approve(registry, waits, why="read", who="dr")
    challenge(registry, waits, mode="share", share=0.1)
    assert beside(home) == (waits.version, "share", 0.1)


def test_a_task_of_that_name_is_in_the_way(registry: Registry, two: Any, make: Any) -> None:
    make(task=f"{TASK}-challenger")
    with pytest.raises(RegistryError, match="A task of its own"):
        challenge(registry, two[1])


def test_what_can_not_be_prepared_is_not_begun(
    registry: Registry, two: Any, home: Home, tmp_path: Any
) -> None:
    broken = Broken(registry, tmp_path / "other")
    broken.fails = "prepare"
    with pytest.raises(RegistryError, match="the disk is full"):
        challenge(registry, two[1], targets=[LocalTarget(registry), broken])
    assert events() == ["done"]
    assert beside(home) is None


@pytest.mark.parametrize("fails", ["challenge", "bug"])
def test_a_place_that_refuses_ends_it_everywhere(
    registry: Registry, two: Any, home: Home, tmp_path: Any, fails: str
) -> None:
    challenge(registry, two[1], mode="share", share=0.1)
    broken = Broken(registry, tmp_path / "other")
    broken.fails = fails
    with pytest.raises(RegistryError, match="can't challenge and was withdrawn"):
        challenge(registry, two[1], mode="share", share=0.5, targets=[LocalTarget(registry), broken])
    assert (serving(home), beside(home)) == ("1", None)
    assert events()[-1] == "withdraw"
    assert verify(registry) == []


def test_a_place_without_challengers_is_left_alone(registry: Registry, two: Any, home: Home) -> None:
    challenge(registry, two[1], targets=[Elsewhere(), LocalTarget(registry)])
    assert beside(home) == ("2", "shadow", 0.0)


class Death(BaseException):
    """As a process that is killed: nothing is taken back."""


@pytest.mark.parametrize("point", ["challenger copied", "challenge", "challenger local"])
def test_whatever_a_death_leaves_is_told_and_put_right(
    registry: Registry, two: Any, home: Home, point: str
) -> None:
    with pytest.raises(Death):
        challenge(registry, two[1], mode="share", share=0.1, on_step=_die_at(point))
    wanted = None if point == "challenger copied" else ("2", "share", 0.1)
    left = [finding.kind for finding in verify(registry)]
    assert left == (["drift"] if point == "challenge" else [])
    reconcile(registry)
    assert beside(home) == wanted
    assert serving(home) == "1"
    assert verify(registry) == []


@pytest.mark.parametrize("point", ["withdraw", "withdrawn local"])
def test_a_death_while_it_is_withdrawn(registry: Registry, two: Any, home: Home, point: str) -> None:
    challenge(registry, two[1])
    with pytest.raises(Death):
        withdraw(registry, TASK, on_step=_die_at(point))
    assert [finding.kind for finding in verify(registry)] == (["drift"] if point == "withdraw" else [])
    # Whoever comes next may also withdraw again.
    assert withdraw(registry, TASK) is None
    assert beside(home) is None
    assert verify(registry) == []


@pytest.mark.parametrize(
    "point", ["intent", "copy", "aliases", "target local", "target local logged", "done", "head kept"]
)
def test_a_death_while_it_is_promoted(registry: Registry, two: Any, home: Home, point: str) -> None:
    challenge(registry, two[1])
    with pytest.raises(Death):
        promote(registry, two[1], on_step=_die_at(point))
    # The old or the new one serves, and the challenger is there, or its leaving is told.
    assert serving(home) in ("1", "2")
    assert beside(home) == ("2", "shadow", 0.0)
    assert verify(registry) != []
    reconcile(registry)
    assert (serving(home), beside(home)) == ("2", None)
    assert verify(registry) == []


def test_what_was_changed_by_hand_is_put_back(registry: Registry, two: Any, home: Home) -> None:
    challenge(registry, two[1], mode="share", share=0.1)
    path = challenger_file(home.serving, TASK)
    whole = path.read_text()
    hands: list[Callable[[], Any]] = [
        path.unlink,
        lambda: path.write_text("{"),
        lambda: path.write_text(json.dumps({**json.loads(whole), "share": 0.9})),
        lambda: shutil.rmtree(next((home.serving / TASK / "versions").glob("2-*"))),
    ]
    for change in hands:
        change()
        (finding,) = verify(registry)
        assert finding.kind == "drift"
        assert "local has not version 2 as challenger for a share of 0.1" in finding.message
        (repair,) = reconcile(registry)
        assert (repair.what, repair.done) == ("challenger", True)
        assert beside(home) == ("2", "share", 0.1)
    withdraw(registry, TASK)
    path.write_text(whole)
    (finding,) = verify(registry)
    assert "the ledger says none" in finding.message
    reconcile(registry)
    assert beside(home) is None


def test_one_that_the_ledger_never_heard_of_goes(registry: Registry, two: Any, home: Home) -> None:
    target = LocalTarget(registry)
    target.prepare_challenger(two[1])
    target.challenge(two[1], "shadow", 0.0)
    assert [item.kind for item in verify(registry)] == ["drift"]
    reconcile(registry)
    assert beside(home) is None


def test_a_new_ledger_begins_without_one(registry: Registry, two: Any, home: Home) -> None:
    challenge(registry, two[1])
    Ledger().retire("lost")
    adopt(registry, Ledger(), [TASK], why="lost")
    assert now_challenging(Ledger().entries(), TASK) is None
    reconcile(registry)
    assert (serving(home), beside(home)) == ("1", None)


def test_one_whose_version_is_gone_can_be_withdrawn(registry: Registry, two: Any, home: Home) -> None:
    challenge(registry, two[1])
    registry.client.delete_model_version(TASK, "2")
    (finding,) = verify(registry)
    assert "retiderm models withdraw dr_grading" in finding.message
    assert [item.done for item in reconcile(registry)] == [False]
    withdraw(registry, TASK)
    assert beside(home) is None
    assert verify(registry) == []


def test_the_commands(
    registry: Registry, two: Any, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry._uri or "")
    monkeypatch.setenv("COLUMNS", "100")

    def run(*line: str) -> str:
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    assert "answers in shadow, as dr_grading-challenger, beside version 1" in run("challenge", TASK, "2")
    assert "answers in shadow already" in run("challenge", TASK, "challenger", "--shadow")
    assert "version 2 answers in shadow since" in run("list")
    told = json.loads(run("challenge", TASK, "2", "--share", "0.1", "--why", "a try", "--json"))
    assert (told["mode"], told["share"], told["why"]) == ("share", 0.1, "a try")
    assert told["model"] == "dr_grading-challenger"
    assert "challenge" in run("history", "--all")
    assert beside(home) == ("2", "share", 0.1)
    assert "is withdrawn; it answered for a share of 0.1 since" in run("withdraw", TASK)
    assert run("withdraw", TASK) == "No version challenges dr_grading.\n"
    assert run("withdraw", TASK, "--json") == "null\n"
    run("challenge", TASK, "2")
    (tmp_path / "seen.json").write_text('{"cases": 10, "agreement": "9 of 10"}')
    text = run("promote", TASK, "2", "--comparison", str(tmp_path / "seen.json"))
    assert "It answered in shadow since" in text
    assert "agreement: 9 of 10" in text
    both = CliRunner().invoke(app, ["challenge", TASK, "1", "--shadow", "--share", "0.1"])
    assert isinstance(both.exception, UsageError)
    (tmp_path / "seen.json").write_text("[]")
    bad = CliRunner().invoke(app, ["promote", TASK, "2", "--comparison", str(tmp_path / "seen.json")])
    assert isinstance(bad.exception, UsageError)


def _die_at(point: str) -> Callable[[str], None]:
    def step(name: str) -> None:
        if name == point:
            raise Death(point)

    return step
