"""The exported extractor: opened only as its card says, and its patches are unit vectors or no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from data.errors import BundleError, RequestError, ServingError, UsageError
from data.files import sha256_file
from serving.core.patchcore.extractor import Extractor, ExtractorCard, Weights, write_card

SIDE, GRID = 16, 4


def graph(path: Path, *, name: str = "images", kind: int = TensorProto.UINT8, normalise: bool = True) -> None:
    """Patches of 4×4 pixels: their mean colour and a constant, at unit length."""
    nodes = [
        helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Transpose", ["means"], ["colours"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["colours", "one"], ["raised"]),
        helper.make_node("LpNormalization", ["raised"], ["patches" if normalise else "unit"], axis=3, p=2),
    ]
    if not normalise:
        nodes.append(helper.make_node("Identity", ["raised"], ["patches"]))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "extractor",
            [helper.make_tensor_value_info(name, kind, ["n", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["n", GRID, GRID, 3])],
            [numpy_helper.from_array(np.ones(3, np.float32), "one")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, path)


def card(folder: Path, **changes: Any) -> ExtractorCard:
    values: dict[str, Any] = {
        "name": "means",
        "backbone": "none",
        "layers": ("0",),
        "input_size": (SIDE, SIDE),
        "grid": (GRID, GRID),
        "dim": 3,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "weights": Weights("drawn", "Apache-2.0"),
        "digest": sha256_file(folder / "extractor.onnx"),
    }
    return ExtractorCard(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph(tmp_path / "extractor.onnx")
    write_card(tmp_path, card(tmp_path))
    return tmp_path


def images(n: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("n", [0, 1, 8, 19])
def test_images_become_patches_of_unit_length(folder: Path, n: int) -> None:
    extractor = Extractor.open(folder, threads=1)
    given = images(n)
    patches = extractor.embed(given)
    means = given.reshape(n, GRID, 4, GRID, 4, 3).mean(axis=(2, 4)) + 1
    assert patches.dtype == np.float32
    assert np.allclose(patches, means / np.linalg.norm(means, axis=3, keepdims=True), atol=1e-5)


def test_a_roi_is_stretched_to_the_input(folder: Path) -> None:
    extractor = Extractor.open(folder, threads=1)
    roi = np.zeros((37, 90, 3), np.uint8)
    roi[:, 45:] = (255, 0, 0)
    prepared = extractor.prepare(roi)
    assert prepared.shape == (SIDE, SIDE, 3)
    assert (prepared[:, :7, 0] == 0).all()
    assert (prepared[:, 9:] == (255, 0, 0)).all()
    assert extractor.prepare(np.zeros((1, 1, 3), np.uint8)).shape == (SIDE, SIDE, 3)


def test_a_card_survives_json(folder: Path) -> None:
    made = card(folder, preprocessing={"fit": "stretch"}, extra={"neighbourhood": 3})
    assert ExtractorCard.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, SIDE, SIDE + 1, 3), np.uint8),
        np.zeros((SIDE, SIDE, 3), np.uint8),
        np.zeros((1, SIDE, SIDE, 3), np.float32),
        np.zeros((1, 3, SIDE, SIDE), np.uint8),
    ],
)
def test_other_images_are_refused(folder: Path, bad: NDArray[Any]) -> None:
    with pytest.raises(RequestError, match="takes uint8"):
        Extractor.open(folder, threads=1).embed(bad)


def test_patches_that_are_no_unit_vectors_are_no_answer(tmp_path: Path) -> None:
    graph(tmp_path / "extractor.onnx", normalise=False)
    write_card(tmp_path, card(tmp_path))
    with pytest.raises(ServingError, match="no unit vector"):
        Extractor.open(tmp_path, threads=1).embed(images(1))


def test_an_altered_model_is_refused(folder: Path) -> None:
    with (folder / "extractor.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleError, match="not the file"):
        Extractor.open(folder)


@pytest.mark.parametrize("name", ["extractor.json", "extractor.onnx"])
def test_a_missing_file_says_what_to_do(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match="anomaly extractor"):
        Extractor.open(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"name": 3}'])
def test_a_damaged_card_is_refused(folder: Path, text: str) -> None:
    (folder / "extractor.json").write_text(text)
    with pytest.raises(BundleError):
        Extractor.open(folder)


@pytest.mark.parametrize(
    "changes",
    [{"grid": (GRID, 5)}, {"dim": 4}, {"input_size": (SIDE, 32), "preprocessing": {"size": [SIDE, SIDE]}}],
)
def test_a_card_of_another_model_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    write_card(folder, card(folder, **changes))
    with pytest.raises(BundleError):
        Extractor.open(folder)


def test_a_card_with_another_preprocessing_s_keys_is_refused(folder: Path) -> None:
    write_card(folder, card(folder, preprocessing={"sharpen": 2}))
    with pytest.raises(UsageError):
        Extractor.open(folder)


@pytest.mark.parametrize("changes", [{"dim": 0}, {"grid": (0, 4)}, {"input_size": (-1, 4)}])
def test_sizes_below_one_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        card(folder, **changes)


@pytest.mark.parametrize("changes", [{"name": "pixels"}, {"kind": TensorProto.FLOAT}])
def test_a_graph_with_another_input_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    graph(tmp_path / "extractor.onnx", **changes)
    write_card(tmp_path, card(tmp_path))
    with pytest.raises(BundleError, match="should take uint8"):
        Extractor.open(tmp_path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "extractor.onnx").write_bytes(b"nothing")
    write_card(tmp_path, card(tmp_path))
    with pytest.raises(BundleError, match="can't load"):
        Extractor.open(tmp_path)


def test_cuda_where_there_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(ServingError, match="CUDA"):
        Extractor.open(folder, device="cuda")


def test_cuda_that_falls_back_in_silence_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As onnxruntime-gpu on a machine without a driver: the provider is listed, and the session has none.
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: real(path, options, providers=providers[-1:]),
    )
    with pytest.raises(ServingError, match="could not start CUDA"):
        Extractor.open(folder, device="cuda")
