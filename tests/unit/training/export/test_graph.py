from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from data.errors import ParityError
from training.export.graph import Exported, export_onnx
from training.export.parity import autograd_cam, torch_logits
from training.model import Classifier
from training.spec.parts import HeadSpec

HEADS = (HeadSpec("grade", tuple("abc")), HeadSpec("site", tuple("xy")))


def classifier(backbone: str) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(backbone, HEADS, pretrained=False).eval()
    nn.init.normal_(model.head.weight, std=0.3)
    return model


def session(exported: Exported) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier("test_resnet")


@pytest.fixture(scope="module")
def exported(model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    # Neither square nor the backbone's own size, so that nothing is right by accident.
    return export_onnx(model, (96, 64), tmp_path_factory.mktemp("export") / "model.onnx")


def images(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 96, 64, 3), dtype=np.uint8)


def test_the_graph_is_as_stated(exported: Exported, model: Classifier) -> None:
    graph = onnx.load(str(exported.path)).graph
    (taken,) = graph.input
    assert taken.name == "image"
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    dims = taken.type.tensor_type.shape.dim
    assert dims[0].dim_param
    assert [dim.dim_value for dim in dims[1:]] == [96, 64, 3]
    assert [item.name for item in graph.output] == ["logits", "cam", "embedding"]
    assert exported.explanation.method == "closed-form"
    assert exported.outputs["logits"] == (5,)
    assert exported.outputs["embedding"] == (model.embedding_width,)


def test_any_batch_answers_as_torch_does(exported: Exported, model: Classifier) -> None:
    run = session(exported).run
    for n in (1, 2, 5):
        logits, cam = run(["logits", "cam"], {"image": images(n)})
        np.testing.assert_allclose(logits, torch_logits(model, images(n)), atol=1e-4)
        assert cam.shape == (n, *exported.outputs["cam"])
        np.testing.assert_allclose(cam, autograd_cam(model, images(n)), atol=1e-5)


def test_the_file_names_nothing_of_this_machine(exported: Exported) -> None:
    data = exported.path.read_bytes()
    for word in (b"site-packages", b".py", str(Path.cwd()).encode(), str(Path.home()).encode()):
        assert word not in data, word


def test_without_explanation_there_is_no_map(model: Classifier, tmp_path: Path) -> None:
    exported = export_onnx(model, (96, 64), tmp_path / "plain.onnx", explain=False)
    assert exported.explanation.method == "none"
    assert exported.explanation.reason == "Left out on request."
    assert [item.name for item in session(exported).get_outputs()] == ["logits", "embedding"]
    logits = session(exported).run(["logits"], {"image": images(2)})[0]
    np.testing.assert_allclose(logits, torch_logits(model, images(2)), atol=1e-4)


def test_what_onnx_can_not_hold_is_a_parity_error(tmp_path: Path) -> None:
    model = classifier("test_resnet")

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x.flatten(2)).mean() + x

    model.backbone.act1 = Odd()
    with pytest.raises(ParityError, match="can't be exported as ONNX"):
        export_onnx(model, (64, 64), tmp_path / "odd.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "method"),
    [
        ("resnet50", "closed-form"),
        ("mobilenetv3_large_100", "vjp"),
        ("convnext_atto", "vjp"),
        ("densenet121", None),
    ],
)
def test_real_backbones(backbone: str, method: str | None, tmp_path: Path) -> None:
    model = classifier(backbone)
    exported = export_onnx(model, (96, 64), tmp_path / "model.onnx")
    assert method is None or exported.explanation.method == method
    logits, cam = session(exported).run(["logits", "cam"], {"image": images(3)})
    np.testing.assert_allclose(logits, torch_logits(model, images(3)), atol=1e-3, rtol=1e-3)
    wanted = autograd_cam(model, images(3))
    assert np.abs(cam - wanted).max() / max(1.0, wanted.max()) < 1e-4
