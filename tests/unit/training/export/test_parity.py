from __future__ import annotations

import numpy as np
import pytest
import torch

from data.errors import ParityError
from serving.core.bundle import HeadCard
from training.export.parity import autograd_cam, cam_parity, compare, onnx_parity, torch_logits
from training.model import Classifier

GRADE = (HeadCard("grade", tuple("abcde")),)


class Answers:
    """A runtime that says what it is told to."""

    name = precision = "told"

    def __init__(self, model: Classifier, *, logits: float = 0.0, cam: float = 0.0) -> None:
        self.model, self.logits, self.cam = model, logits, cam

    def run(self, images: np.ndarray, outputs: object = ("logits",)) -> dict[str, np.ndarray]:
        logits = torch_logits(self.model, images)
        logits[:, 0] += self.logits
        return {"logits": logits, "cam": autograd_cam(self.model, images) + self.cam}

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)


def test_equal_answers_pass(model: Classifier, images: np.ndarray) -> None:
    found = onnx_parity(model, Answers(model), images, GRADE)
    assert found == {
        "images": 20,
        "max_difference": pytest.approx(0, abs=1e-6),
        "tolerance": 1e-3,
        "labels_changed": 0,
        "passed": True,
    }
    assert cam_parity(model, Answers(model), images[:4])["max_difference"] < 1e-5


def test_a_difference_in_scores_blocks(model: Classifier, images: np.ndarray) -> None:
    with pytest.raises(ParityError, match="differs from torch on 20 test images"):
        onnx_parity(model, Answers(model, logits=0.05), images, GRADE)


def test_what_is_not_a_number_blocks(model: Classifier, images: np.ndarray) -> None:
    with pytest.raises(ParityError, match="inf in probability"):
        onnx_parity(model, Answers(model, logits=float("nan")), images, GRADE)


def test_a_difference_in_the_map_blocks(model: Classifier, images: np.ndarray) -> None:
    with pytest.raises(ParityError, match="differs from autograd's"):
        cam_parity(model, Answers(model, cam=0.01), images[:4])


def test_another_label_is_counted_however_near() -> None:
    one = np.array([[1.0, 1.0 - 1e-6, 0, 0, 0]])
    other = np.array([[1.0 - 1e-6, 1.0, 0, 0, 0]])
    difference, changed = compare(one, other, GRADE)
    assert difference < 1e-5
    assert changed == 1
    assert compare(one, other[:, :4], GRADE) == (float("inf"), 1)


def test_autograd_cam_by_hand() -> None:
    """One linear layer on a mean: the gradient of class c is w_c / (h·w) everywhere."""

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(3, 2)

        def normalise(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 3, 1, 2).float()

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def pool(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    plain = Plain()
    images = np.random.default_rng(1).integers(0, 9, (2, 4, 5, 3), dtype=np.uint8)
    weight = plain.head.weight.detach().numpy()
    wanted = np.maximum(np.einsum("ck,nhwk->nchw", weight, images.astype(np.float32)) / 20, 0)
    np.testing.assert_allclose(autograd_cam(plain, images), wanted, atol=1e-5)  # type: ignore[arg-type]
