"""The map in the graph against autograd, for each way that a backbone can end, without leaving torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.export.graph import Graph
from training.export.parity import autograd_cam
from training.export.tail import Tail, UnknownTail, find_tail
from training.model import Classifier
from training.spec.parts import HeadSpec

HEADS = (HeadSpec("grade", tuple("abc")), HeadSpec("site", tuple("xy")))


def classifier(backbone: str) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(backbone, HEADS, pretrained=False).eval()
    nn.init.normal_(model.head.weight, std=0.3)
    # Statistics as after some training: at 0 and 1 a batch norm would hide an error in its rule.
    for layer in model.modules():
        if (
            isinstance(layer, nn.BatchNorm2d)
            and layer.running_mean is not None
            and layer.running_var is not None
        ):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.6, 1.4)
    return model


@pytest.mark.parametrize(
    ("backbone", "closed"),
    [
        ("test_resnet", True),
        ("test_efficientnet", True),
        ("tf_efficientnet_lite0", True),
        ("mobilenetv3_small_050", False),
        ("test_convnext", False),
    ],
)
def test_the_map_is_autograds(backbone: str, closed: bool) -> None:
    model = classifier(backbone)
    assert model.closed_form is closed
    tail = None if closed else find_tail(model)
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        logits, cam, embedding = Graph(model, tail)(pixels)
        wanted = model(model.normalise(pixels))
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
    assert embedding.shape == (3, model.embedding_width)
    grad = torch.from_numpy(autograd_cam(model, pixels.numpy()))
    assert grad.max() > 0
    torch.testing.assert_close(cam, grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [nn.Hardswish, nn.SiLU, nn.GELU, nn.ReLU, nn.ReLU6])
def test_each_activation_has_its_own_slope(kind: type[nn.Module]) -> None:
    from training.export.tail import _step

    (step,) = _step(kind())
    x = torch.linspace(-5, 8, 400, dtype=torch.float64)[:, None].requires_grad_(True)
    y = kind()(x)
    torch.testing.assert_close(step(x), y)
    (wanted,) = torch.autograd.grad(y.sum(), x)
    found = step.back(x.detach(), torch.ones(400, 1, 1, dtype=torch.float64))[:, 0]
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-6)


def test_each_layer_pulls_back_as_autograd_does() -> None:
    from training.export.tail import _step

    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    layers = [nn.Linear(6, 8), norm, nn.Hardswish(), nn.LayerNorm(8), nn.Linear(8, 4, bias=False)]
    tail = Tail([step for layer in layers for step in _step(layer)])
    x = torch.randn(5, 6, requires_grad=True)
    y = nn.Sequential(*layers)(x)
    torch.testing.assert_close(tail(x), y)
    gradient = torch.randn(5, 3, 4)
    found = tail.back(tail.trace(x), gradient)
    for c in range(3):
        (wanted,) = torch.autograd.grad(y, x, gradient[:, c], retain_graph=True)
        torch.testing.assert_close(found[:, c], wanted, atol=1e-5, rtol=1e-4)


def test_a_tail_without_a_rule_is_refused_by_name() -> None:
    model = classifier("mobilenetv3_small_050")
    model.backbone.act2 = nn.Softplus()
    with pytest.raises(UnknownTail, match="Softplus, whose derivative isn't known"):
        find_tail(model)


def test_a_tail_that_is_no_chain_is_refused() -> None:
    model = classifier("mobilenetv3_small_050")

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Hardswish()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x) + x

    model.backbone.act2 = Twice()
    with pytest.raises(UnknownTail, match="more than pooling and a chain"):
        find_tail(model)
