"""A task that answers on its chain wherever it is served, whatever was tuned or asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import ServingError
from data.paths import Home
from serving.core.runtimes import open_runtime
from serving.core.runtimes.chain import check_precision
from serving.core.runtimes.tuned import Measured, Tuned, host_kind, write_tuned
from serving.engine import load_engine
from serving.source import open_source
from tests.profiles import profile_bundle


def test_auto_is_the_chains_order(home: Home, tmp_path: Path) -> None:
    lite = profile_bundle(tmp_path / "lite", tflite=True)
    assert open_runtime(lite, "auto", 1).name.startswith("tflite ")
    plain = profile_bundle(tmp_path / "plain")
    assert open_runtime(plain, "auto", 1).name.startswith("onnxruntime ")


def test_what_was_tuned_beside_the_chain_is_not_taken(home: Home, tmp_path: Path) -> None:
    lite = profile_bundle(tmp_path / "lite", tflite=True)
    onnx = open_runtime(lite, "fp32", 1)
    row = Measured("onnxruntime", "fp32", onnx.name, median_ms=0.1, passed=True)
    write_tuned(
        Tuned(
            task="skin_profile",
            digest=lite.digest,
            host=host_kind(),
            hardware={},
            threads=1,
            tuned_at="2026-01-01T00:00:00+00:00",
            runtime="onnxruntime",
            precision="fp32",
            version=onnx.name,
            table=(row,),
        )
    )
    assert open_runtime(lite, "auto", 1).name.startswith("tflite ")


def test_no_engine_beside_the_chain(tmp_path: Path) -> None:
    lite = profile_bundle(tmp_path / "lite", tflite=True)
    (served,) = open_source(None, lite.root).scan().values()
    for precision, runtime in (("auto", "tflite"), ("tflite", "tflite"), ("fp32", "onnxruntime")):
        engine = load_engine(served, precision=precision, threads=1)
        assert engine.describe()["runtime"].startswith(f"{runtime} ")
    with pytest.raises(ServingError, match="TFLite or ONNX Runtime only"):
        load_engine(served, precision="bf16", threads=1)
    # Another task may be served as it likes.
    check_precision("acne", "bf16")
