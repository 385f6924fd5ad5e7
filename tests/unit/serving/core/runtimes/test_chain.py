from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from data.errors import RequestError, ServingError
from data.paths import Home
from serving.core.bundle import Bundle, HeadCard, PrecisionCard
from serving.core.runtimes.chain import open_chain
from serving.core.runtimes.tuned import Measured, Tuned, host_kind, write_tuned
from tests.bundles import tiny_bundle
from tests.lite import lite_bundle

HEADS = (HeadCard("skin_type", ("normal", "dry")), HeadCard("hair_type", ("straight", "wavy", "curly")))
IMAGE = np.zeros((2, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return lite_bundle(tmp_path_factory.mktemp("chain") / "b")


def test_tflite_comes_first(both: Bundle) -> None:
    chain = open_chain(both)
    assert (chain.model_type, chain.runtime.precision, dict(chain.passed_over)) == ("tflite", "tflite", {})


def test_onnx_where_there_is_no_tflite_model(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    chain = open_chain(bundle, mock=True)
    assert (chain.model_type, chain.runtime.name.split()[0]) == ("onnx", "onnxruntime")
    assert "no approved tflite" in chain.passed_over["tflite"]


def test_onnx_where_litert_is_missing(both: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    chain = open_chain(both)
    assert chain.model_type == "onnx"
    assert "can't be used here" in chain.passed_over["tflite"]


def test_onnx_where_tflite_was_not_approved(tmp_path: Path) -> None:
    bundle = lite_bundle(
        tmp_path / "b",
        precisions={
            "fp32": PrecisionCard("model.onnx", tolerance=1.0),
            "tflite": PrecisionCard("model.tflite", "tflite", approved=False),
        },
    )
    assert open_chain(bundle).model_type == "onnx"


def test_no_other_runtime_whatever_was_tuned(both: Bundle, home: Home) -> None:
    write_tuned(
        Tuned("t", both.digest, host_kind(), {}, 1, "now", "openvino", "fp32", "openvino 2026", table=())
    )
    assert open_chain(both).runtime.name.split()[0] == "tflite"


def test_without_a_model_the_mock_must_be_switched_on() -> None:
    with pytest.raises(ServingError, match=r"No runtime of the chain.*tflite: there is no model; onnx"):
        open_chain(None, heads=HEADS)


def test_the_mock_says_so_and_knows_nothing() -> None:
    chain = open_chain(None, heads=HEADS, mock=True)
    assert (chain.model_type, chain.runtime.name, set(chain.passed_over)) == (
        "mock",
        "mock",
        {"tflite", "onnx"},
    )
    np.testing.assert_array_equal(chain.runtime.run(IMAGE)["logits"], np.zeros((2, 5)))
    with pytest.raises(RequestError, match="logits alone"):
        chain.runtime.run(IMAGE, ("cam",))
    with pytest.raises(RequestError, match="takes uint8"):
        chain.runtime.run(IMAGE.astype(np.float32))  # type: ignore[arg-type]
    chain.runtime.close()


def test_a_damaged_model_does_not_become_a_mock_by_itself(both: Bundle, tmp_path: Path) -> None:
    precisions = {
        name: dataclasses.replace(item, tolerance=0.0) for name, item in both.card.precisions.items()
    }
    bundle = lite_bundle(tmp_path / "b", precisions=precisions)
    with pytest.raises(ServingError, match="golden images"):
        open_chain(bundle)
    assert open_chain(bundle, mock=True).model_type == "mock"


@pytest.mark.parametrize(
    ("measured", "comes_first"),
    [
        ({"tflite": 3.0, "tflite_int8": 1.5}, "tflite_int8"),
        ({"tflite": 3.0, "tflite_int8": 2.9}, "tflite"),
        ({"tflite": 1.0, "tflite_int8": 2.0}, "tflite"),
        ({"tflite_int8": 1.5}, "tflite"),
        ({}, "tflite"),
    ],
    ids=["int8 faster", "hardly", "slower", "float not measured", "not tuned"],
)
def test_int8_comes_first_where_it_was_found_faster(
    tmp_path: Path, home: Home, measured: dict[str, float], comes_first: str
) -> None:
    card = PrecisionCard("model.tflite", "tflite", tolerance=1.0)
    precisions = {
        "fp32": PrecisionCard("model.onnx", tolerance=1.0),
        "tflite": card,
        "tflite_int8": card,
    }
    bundle = lite_bundle(tmp_path / "b", precisions=precisions)
    # Another runtime is faster still, and isn't in the chain.
    rows = [Measured("openvino", "int8", median_ms=0.1, passed=True)]
    rows += [Measured("tflite", name, median_ms=ms, passed=True) for name, ms in measured.items()]
    if measured:
        write_tuned(
            Tuned(
                "t", bundle.digest, host_kind(), {}, 1, "now", "openvino", "int8", "2026", table=tuple(rows)
            )
        )
    chain = open_chain(bundle)
    assert (chain.model_type, chain.runtime.precision) == ("tflite", comes_first)


def test_int8_that_was_not_approved_is_never_taken(tmp_path: Path, home: Home) -> None:
    precisions = {
        "fp32": PrecisionCard("model.onnx", tolerance=1.0),
        "tflite": PrecisionCard("model.tflite", "tflite", tolerance=1.0),
        "tflite_int8": PrecisionCard("model.tflite", "tflite", approved=False, tolerance=1.0),
    }
    bundle = lite_bundle(tmp_path / "b", precisions=precisions)
    rows = tuple(
        Measured("tflite", name, median_ms=ms, passed=True)
        for name, ms in (("tflite", 3.0), ("tflite_int8", 1.0))
    )
    write_tuned(Tuned("t", bundle.digest, host_kind(), {}, 1, "now", "tflite", "tflite", "2", table=rows))
    assert open_chain(bundle).runtime.precision == "tflite"
    # Without float it isn't taken either: ONNX is.
    precisions["tflite"] = precisions["tflite_int8"]
    assert open_chain(lite_bundle(tmp_path / "c", precisions=precisions)).model_type == "onnx"


def test_int8_alone_is_taken_too(tmp_path: Path, home: Home) -> None:
    precisions = {
        "fp32": PrecisionCard("model.onnx", tolerance=1.0),
        "tflite_int8": PrecisionCard("model.tflite", "tflite", tolerance=1.0),
    }
    chain = open_chain(lite_bundle(tmp_path / "b", precisions=precisions))
    assert (chain.model_type, chain.runtime.precision) == ("tflite", "tflite_int8")
