from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import training.export.tflite as tflite
from data.dataset import Dataset
from data.errors import ParityError
from training.export import export_onnx
from training.export.images import load_pixels, sample
from training.export.tflite import export_tflite
from training.model import Classifier
from training.task import Task


@pytest.fixture(scope="module")
def images(dataset: Dataset, task: Task) -> np.ndarray:
    return load_pixels(dataset, sample(dataset.split("train"), 24, 0, "training"), task.preprocessing)


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, model: Classifier, task: Task, images: np.ndarray
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tflite")
    made = {name: folder / f"{name}.bin" for name in ("onnx", "float", "int8")}
    export_onnx(model, task.input_size, made["onnx"])
    export_tflite(model, task.input_size, made["float"], quantised=made["int8"], images=images)
    assert {item.name for item in folder.iterdir()} == {path.name for path in made.values()}
    return made


def run(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    signature = interpreter.get_signature_runner()
    answers = [
        {name: np.array(value) for name, value in signature(image=image[None]).items()} for image in images
    ]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


@pytest.mark.slow
def test_float_equals_onnx_and_int8_nearly(files: dict[str, Path], images: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(str(files["onnx"]), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"image": images}), strict=True))
    exact, coarse = run(files["float"], images), run(files["int8"], images)
    assert set(exact) == set(coarse) == set(wanted) == {"logits", "cam", "embedding"}
    for name, value in wanted.items():
        assert exact[name].dtype == coarse[name].dtype == np.float32
        np.testing.assert_allclose(exact[name], value, atol=1e-4, rtol=1e-4)
        assert np.corrcoef(value.ravel(), coarse[name].ravel())[0, 1] > 0.95


@pytest.mark.slow
def test_int8_takes_uint8_and_is_smaller_inside(files: dict[str, Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(files["int8"]), num_threads=1)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    assert given["dtype"] is np.uint8
    kinds = [item["dtype"] for item in interpreter.get_tensor_details()]
    assert kinds.count(np.int8) > kinds.count(np.float32)
    assert files["int8"].stat().st_size < files["float"].stat().st_size


def test_a_converter_that_fails_says_its_last_line(
    model: Classifier, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tflite.subprocess.run

    def fails(command: list[str], **options: Any) -> Any:
        script = "import sys; print('steps'); sys.exit('ValueError: no such operation')"
        return real([command[0], "-c", script], **options)

    monkeypatch.setattr(tflite.subprocess, "run", fails)
    with pytest.raises(ParityError, match=r"test_resnet can't be exported as TFLite: ValueError: no such op"):
        export_tflite(model, task.input_size, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_int8_without_images_is_refused(model: Classifier, task: Task, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="needs training images"):
        export_tflite(model, task.input_size, tmp_path / "a.tflite", quantised=tmp_path / "b.tflite")
