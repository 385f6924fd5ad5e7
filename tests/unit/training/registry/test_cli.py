"""training/registry/cli.py: each command, its JSON and its exit code."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from typer.testing import CliRunner

from data.errors import RegistryError, UsageError
from data.paths import Home
from training.registry.cli import app
from training.registry.client import Registry
from training.registry.ledger import Ledger

TASK = "dr_grading"


@pytest.fixture
def models(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command; errors of ours come through as they reach the ``retiderm`` command."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry._uri or "")
    monkeypatch.setenv("COLUMNS", "100")

    def run(*line: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, line)
        if isinstance(result.exception, RegistryError | UsageError):
            raise result.exception
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


def test_help_teaches(models: Any) -> None:
    text = models("--help")
    looking = ("list", "show", "compare", "history", "verify")
    for command in (
        *looking,
        "import",
        "approve",
        "challenge",
        "withdraw",
        "promote",
        "rollback",
        "reconcile",
    ):
        assert command in text
        assert "xample" in models(command, "--help"), command


def test_an_empty_registry_says_what_to_do(models: Any) -> None:
    assert "retiderm run dr_grading" in models("list")
    assert models("history") == "Nothing has served yet.\n"
    assert "All is well" in models("verify")
    assert models("reconcile") == "Nothing to do.\n"
    assert json.loads(models("list", "--json")) == []
    with pytest.raises(RegistryError, match="no model of 'dr_grading'"):
        models("show", TASK)


def test_the_life_of_a_version(models: Any, make: Any, registry: Registry, home: Home) -> None:
    make(accepted=True)
    assert "challenger" in models("list")
    assert "serves now (local)" in models("promote", TASK, "--why", "the first", "--who", "alice")
    assert "serves already" in models("promote", TASK, "1")
    make(accepted=True)
    done = json.loads(models("promote", TASK, "challenger", "--json"))
    assert (done["version"], done["before"], done["changed"]) == ("2", "1", True)
    listed = json.loads(models("list", TASK, "--json"))
    assert [(v["version"], v["aliases"]) for v in listed] == [("2", ["champion"]), ("1", ["previous"])]
    shown = json.loads(models("show", TASK, "--json"))
    assert shown["card"]["task"] == TASK
    assert shown["digest"] == listed[0]["digest"]
    assert "On the test images" in models("show", TASK, "1")
    assert "before it version 2" in models("rollback", TASK, "--why", "worse")
    rows = json.loads(models("history", TASK, "--json"))
    assert [(r["version"], r["action"], r["why"]) for r in rows] == [
        ("1", "promote", "the first"),
        ("2", "promote", "the gate accepted it"),
        ("1", "rollback", "worse"),
    ]
    assert "alice" in models("history")
    assert "target local" in models("history", "--all")
    assert json.loads(models("verify", "--json")) == {"ok": True, "findings": []}


def test_judging_again_uses_the_recorded_rules(models: Any, make: Any) -> None:
    make(accepted=True)
    make(accepted=True)
    models("promote", TASK, "1")
    with pytest.raises(RegistryError, match="--judge"):
        models("promote", TASK, "2")
    assert "accepted" in models("promote", TASK, "2", "--judge")
    assert Ledger().entries(TASK)[-6].data["rules"]["floors"] == {"auc": 0.7}


def test_compare_without_a_common_test_set_shows_the_metrics(models: Any, make: Any) -> None:
    make(accepted=True)
    models("promote", TASK)
    make(accepted=True)
    assert "different test images" in models("compare", TASK)
    found = json.loads(models("compare", TASK, "2", "1", "--json"))
    assert found["comparisons"] == []
    assert found["candidate"]["version"] == "2"


def test_approve(models: Any, make: Any, registry: Registry) -> None:
    make()
    assert "approved by bob" in models("approve", TASK, "1", "--who", "bob", "--why", "seen")
    assert registry.get(TASK, "1").approved_by == "bob"
    assert Ledger().entries()[-1].why == "seen"


def test_verify_and_reconcile_exit_codes(models: Any, make: Any, registry: Registry) -> None:
    make(accepted=True)
    models("promote", TASK)
    make()
    registry.set_alias(TASK, "champion", "2")
    text = models("verify", code=1)
    assert "drift: dr_grading: The alias champion named version 2, the ledger says version 1." in text
    assert "hint (drift): retiderm models reconcile" in text
    found = json.loads(models("verify", "--json", code=1))
    assert (found["ok"], found["findings"][0]["kind"]) == (False, "drift")
    assert models("reconcile", "--dry-run").startswith("to do: dr_grading: ")
    models("reconcile")
    models("verify")


def test_a_damaged_ledger_is_told_and_begun_anew(models: Any, make: Any) -> None:
    make(accepted=True)
    models("promote", TASK)
    path = Ledger().path
    path.write_bytes(path.read_bytes().replace(b"the gate accepted it", b"because I say so!!!!"))
    text = models("verify", code=1)
    assert "was altered after it was written" in text
    assert "--new-ledger" in text
    with pytest.raises(RegistryError, match="not set aside without a reason"):
        models("reconcile", "--new-ledger")
    assert "Took over version 1 as champion" in models(
        "reconcile", "--new-ledger", "--why", "an edit by hand"
    )
    models("verify")


@pytest.mark.parametrize("died", [False, True])
def test_a_lost_ledger_is_begun_anew_with_every_task_that_its_key_signed(
    models: Any, make: Any, registry: Registry, died: bool
) -> None:
    for task in (TASK, "skin_lesion"):
        make(task, accepted=True)
        models("promote", task)
    # A task of another team, by another key, in the same MLflow.
    make("acne")
    theirs = registry.ledger_heads()[TASK].replace(Ledger().known()[1], "A" * 43 + "=")
    registry.keep_ledger_head("acne", theirs)
    Ledger().path.unlink()
    models("verify", code=1)
    if died:  # between setting the old one aside and taking over
        Ledger().retire("cut off")
    text = models("reconcile", "--new-ledger", "--why", "the disk is gone")
    for task in (TASK, "skin_lesion"):
        assert f"{task}: Took over version 1 as champion" in text
    assert "acne" not in text
    assert registry.ledger_heads()["acne"] == theirs
    models("verify")
    assert "serves already" in models("promote", TASK, "1")


def test_a_lost_key_and_ledger_need_the_task_by_name(models: Any, make: Any, home: Home) -> None:
    make(accepted=True)
    models("promote", TASK)
    shutil.rmtree(home.registry)
    with pytest.raises(RegistryError, match="Ledger and key are both lost"):
        models("reconcile", "--new-ledger", "--why", "the disk is gone")
    assert not home.registry.exists() or not Ledger().path.exists()
    models("reconcile", TASK, "--new-ledger", "--why", "the disk is gone")
    models("verify")


def test_wrong_options_say_so(models: Any, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="--mean is 'red'"):
        models("import", "--task", TASK, "--weights", "x", "--data", str(tmp_path), "--mean", "red")
    with pytest.raises(UsageError, match="There is no file"):
        models("import", "--task", TASK, "--weights", "x", "--data", str(tmp_path))
