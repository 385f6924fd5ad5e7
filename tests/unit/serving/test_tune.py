from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import serving.tune as tune_module
from data.errors import BundleError, ServingError, UsageError
from data.paths import Home
from serving.core.bundle import Bundle, PrecisionCard
from serving.core.runtimes import AUTO, Measured, open_runtime, read_tuned
from serving.tune import app, tune
from tests.anomaly_bundles import tiny_anomaly_bundle
from tests.bundles import tiny_bundle
from tests.lite import lite_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return lite_bundle(tmp_path_factory.mktemp("tune") / "b")


def paced(monkeypatch: pytest.MonkeyPatch, paces: dict[tuple[str, str], float]) -> None:
    """Times as a machine would show them, since a test can't rely on a clock."""

    def times(opened: dict[tuple[str, str], Any], *_: Any) -> dict[tuple[str, str], list[float]]:
        return {key: [paces[key]] * 3 for key in opened}

    monkeypatch.setattr(tune_module, "_times", times)


def test_every_installed_runtime_is_measured_on_every_approved_precision(bundle: Bundle) -> None:
    found = tune(bundle, rounds=3, threads=1)
    rows = {(row.runtime, row.precision): row for row in found.table}
    assert set(rows) == {("onnxruntime", "fp32"), ("openvino", "fp32"), ("tflite", "tflite")}
    for row in rows.values():
        assert row.passed
        assert row.median_ms is not None
        assert row.p95_ms is not None
        assert 0 < row.median_ms <= row.p95_ms
        assert row.bytes > 0
    assert found.version == rows[found.runtime, found.precision].version


def test_an_anomaly_model_has_nothing_to_choose(tmp_path: Path) -> None:
    made = tiny_anomaly_bundle(tmp_path / "b")
    with pytest.raises(UsageError, match="of kind anomaly: ONNX Runtime runs it"):
        tune(made)


def test_the_fastest_is_chosen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, {("onnxruntime", "fp32"): 9, ("openvino", "fp32"): 5, ("tflite", "tflite"): 4})
    found = tune(bundle)
    assert (found.runtime, found.precision) == ("tflite", "tflite")


def test_a_hair_faster_is_not_worth_leaving_the_usual(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced(monkeypatch, {("onnxruntime", "fp32"): 5.1, ("openvino", "fp32"): 5, ("tflite", "tflite"): 9})
    assert tune(bundle).runtime == "onnxruntime"


def test_one_that_answers_wrongly_is_no_candidate_however_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {
        "fp32": PrecisionCard("model.onnx", tolerance=1e-9),
        "tflite": PrecisionCard("model.tflite", "tflite"),
    }
    paced(monkeypatch, {("onnxruntime", "fp32"): 1, ("openvino", "fp32"): 1, ("tflite", "tflite"): 50})
    found = tune(lite_bundle(tmp_path / "b", precisions=strict))
    assert found.runtime == "tflite"
    refused = [row for row in found.table if not row.passed]
    assert {row.runtime for row in refused} == {"onnxruntime", "openvino"}
    assert all("golden images" in str(row.reason) and row.median_ms is None for row in refused)


def test_what_is_not_installed_is_in_the_table_with_its_reason(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    (row,) = (row for row in tune(bundle, rounds=1).table if row.runtime == "openvino")
    assert not row.passed
    assert row.reason


def test_only_the_named_precisions(bundle: Bundle) -> None:
    assert [row.precision for row in tune(bundle, precisions=["tflite"], rounds=1).table] == ["tflite"]
    with pytest.raises(BundleError, match="no approved precision 'int8'"):
        tune(bundle, precisions=["int8"])


def test_where_nothing_runs_it_says_why(tmp_path: Path) -> None:
    strict = {"fp32": PrecisionCard("model.onnx", tolerance=1e-9)}
    with pytest.raises(ServingError, match="Nothing here can run"):
        tune(lite_bundle(tmp_path / "b", precisions=strict))


def test_nobody_is_chosen_without_candidates() -> None:
    assert tune_module._choose([]) is None
    assert tune_module._choose([Measured("a", "b", median_ms=2.0, passed=True)]) is not None


def test_the_command_keeps_shows_and_forgets(tmp_path: Path, home: Home) -> None:
    made = tiny_bundle(tmp_path / "b")
    runner = CliRunner()
    line = ["--bundle", str(made.root), "--rounds", "2", "--threads", "1"]
    done = runner.invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "chosen" in done.output
    kept = read_tuned(made.digest)
    assert kept is not None
    assert open_runtime(made, AUTO).name == kept.version
    shown = runner.invoke(app, ["--bundle", str(made.root), "--show", "--json"])
    assert json.loads(shown.output) == kept.to_dict()
    assert runner.invoke(app, ["--bundle", str(made.root), "--forget"]).exit_code == 0
    assert read_tuned(made.digest) is None
    untuned = runner.invoke(app, ["--bundle", str(made.root), "--show"])
    assert isinstance(untuned.exception, UsageError)
    assert "was not tuned" in str(untuned.exception)


def test_a_task_is_found_where_it_is_promoted(tmp_path: Path, home: Home) -> None:
    runner = CliRunner()
    missing = runner.invoke(app, ["dr_grading"])
    assert "isn't served" in str(missing.exception)
    both = runner.invoke(app, ["dr_grading", "--bundle", str(tmp_path)])
    assert "Name either a task or --bundle" in str(both.exception)
