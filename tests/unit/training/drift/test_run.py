from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data.errors import DataError, UsageError
from serving.core.bundle import Bundle
from serving.core.drift import Settings, WindowInfo, write_window
from tests.bundles import tiny_bundle, with_reference
from tests.drift_windows import HEAD, METRICS, arrays, window
from training.drift.cli import ALARM, app
from training.drift.run import find_windows, judge_windows

FAST = Settings(draws=1000)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bundle")
    plain = tiny_bundle(root / "plain", task="demo", heads=[HEAD], metrics=METRICS)
    return with_reference(plain, root / "known", **{k: np.asarray(v) for k, v in arrays().items()})


@pytest.fixture
def windows(tmp_path: Path, bundle: Bundle) -> Path:
    """Three windows: a later one with a shift, an earlier one without, and one of another model."""
    info = WindowInfo("demo", bundle.digest, version="4")
    root = tmp_path / "windows"
    late = dataclasses.replace(info, started_at="2026-02-01T00:00:00Z")
    write_window(root / "a", window(200, 3, moved=3.0), late)
    write_window(root / "b", window(200, 100), dataclasses.replace(info, started_at="2026-01-01T00:00:00Z"))
    write_window(root / "c", window(60, 5), dataclasses.replace(info, bundle_digest="sha256:" + "9" * 64))
    return root


def test_windows_are_judged_in_the_order_in_which_they_came(
    bundle: Bundle, windows: Path, tmp_path: Path
) -> None:
    found = judge_windows(bundle, [windows], FAST, out=tmp_path / "out", page=False)
    assert [(one.name, one.report.alarm) for one in found] == [("b", False), ("a", True)]
    told = json.loads((tmp_path / "out" / "a" / "report.json").read_text())
    assert told["window"] == "a"
    assert told["version"] == "4"
    assert told["alarm"] is True
    assert "The images' centre, as the model sees them" in told["reason"]
    assert not (tmp_path / "out" / "c").exists()


def test_a_window_of_another_model_is_refused_when_it_is_named(bundle: Bundle, windows: Path) -> None:
    with pytest.raises(UsageError, match="not of sha256"):
        judge_windows(bundle, [windows / "c"], FAST)


def test_a_folder_without_windows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no window"):
        find_windows(tmp_path)


def test_only_windows_of_other_models_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    write_window(tmp_path / "w" / "x", window(10), WindowInfo("demo", "sha256:" + "8" * 64))
    with pytest.raises(UsageError, match="None of the 1 windows"):
        judge_windows(bundle, [tmp_path / "w"], FAST)


def test_the_command_tells_and_can_fail(bundle: Bundle, windows: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    line = ["check", str(windows), "--bundle", str(bundle.root), "--out", str(out), "--no-page"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "a: critical" in done.output
    assert "b: ok" in done.output
    assert (out / "b" / "report.json").is_file()
    assert CliRunner().invoke(app, [*line, "--exit-code"]).exit_code == ALARM
    done = CliRunner().invoke(app, ["check", str(windows / "b"), "--bundle", str(bundle.root), "--json"])
    assert [one["severity"] for one in json.loads(done.stdout)] == ["ok"]


def test_the_command_says_what_can_be_watched(bundle: Bundle) -> None:
    done = CliRunner().invoke(app, ["measures", "--bundle", str(bundle.root)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "embedding" in done.output
    assert "1 is what chance gives on average" in done.output
