from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from data.dataset import Dataset
from data.errors import ParityError
from training.export import export_onnx
from training.export.images import load_pixels, sample
from training.export.quantise import outside, quantise_onnx
from training.model import Classifier
from training.task import Task


@pytest.fixture(scope="module")
def images(dataset: Dataset, task: Task) -> np.ndarray:
    return load_pixels(dataset, sample(dataset.split("train"), 32, 0, "training"), task.preprocessing)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory, model: Classifier, task: Task) -> Path:
    return export_onnx(model, task.input_size, tmp_path_factory.mktemp("onnx") / "model.onnx").path


@pytest.fixture(scope="module")
def int8(fp32: Path, images: np.ndarray) -> Path:
    return quantise_onnx(fp32, fp32.with_name("model.int8.onnx"), images)


def answers(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images}), strict=True))


def test_int8_answers_nearly_as_float32(fp32: Path, int8: Path, images: np.ndarray) -> None:
    one, other = answers(fp32, images), answers(int8, images)
    assert set(one) == set(other) == {"logits", "cam", "embedding"}
    for name in one:
        assert other[name].shape == one[name].shape
        assert np.corrcoef(one[name].ravel(), other[name].ravel())[0, 1] > 0.95


def test_any_number_of_uint8_images_goes_in(int8: Path, images: np.ndarray) -> None:
    together = answers(int8, images[:3])["logits"]
    alone = np.concatenate([answers(int8, images[i : i + 1])["logits"] for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_convolutions_are_int8_and_head_and_map_are_not(int8: Path) -> None:
    model = onnx.load(str(int8))
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(makers[node.input[0]].op_type == "DequantizeLinear" for node in convolutions)
    head = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    assert head
    assert all(
        name not in makers or makers[name].op_type != "DequantizeLinear"
        for node in head
        for name in node.input[1:]
    )


def test_each_channel_has_its_own_scale(int8: Path) -> None:
    model = onnx.load(str(int8))
    scales = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    weights = [
        scales[node.input[1]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and "weight" in node.input[0]
    ]
    assert any(scale.size > 1 for scale in weights)


def test_what_lies_before_and_behind_the_backbone_stays_float(fp32: Path) -> None:
    graph = onnx.load(str(fp32)).graph
    kinds = {node.name: node.op_type for node in graph.node}
    kept = outside(fp32)
    assert {"Transpose", "Cast", "ReduceMean", "Gemm"} <= {kinds[name] for name in kept}
    assert not any(kinds[name] == "Conv" for name in kept)


def test_the_same_images_give_the_same_bytes(
    int8: Path, fp32: Path, images: np.ndarray, tmp_path: Path
) -> None:
    again = quantise_onnx(fp32, tmp_path / "again.onnx", images)
    assert again.read_bytes() == int8.read_bytes()
    assert list(tmp_path.iterdir()) == [again]


def test_what_cannot_be_quantised_is_said_and_leaves_nothing(images: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"not onnx")
    with pytest.raises(ParityError, match="can't quantise"):
        quantise_onnx(tmp_path / "no.onnx", tmp_path / "int8.onnx", images)
    assert [item.name for item in tmp_path.iterdir()] == ["no.onnx"]
