from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.errors import DataError, IntegrityError, TaskError
from data.files import write_json
from tests.trainings import tiny_task
from training.model import Classifier, build_model, load_model, save_model
from training.spec.parts import HeadSpec, WeightsSpec

HEADS = (HeadSpec("grade", ("a", "b", "c")), HeadSpec("side", ("l", "r")))


def make(backbone: str) -> Classifier:
    return Classifier(backbone, HEADS, weights=WeightsSpec("none")).eval()


@pytest.mark.parametrize(
    ("backbone", "closed"),
    [
        ("test_efficientnet", True),
        ("test_resnet", True),
        ("test_convnext", False),
        ("mobilenetv3_small_050", False),
    ],
)
def test_logits_are_the_head_of_the_pooled_map(backbone: str, closed: bool) -> None:
    model = make(backbone)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = model.features(images)
        torch.testing.assert_close(model(images), model.head(model.pool(features)))
        assert features.shape[:2] == (2, model.feature_channels)
        assert model.pool(features).shape == (2, model.embedding_width)
    assert model.closed_form is closed
    assert model.slices == {"grade": slice(0, 3), "side": slice(3, 5)}
    if closed:
        torch.testing.assert_close(model.pool(features), features.mean((2, 3)))


@pytest.mark.parametrize("backbone", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_a_backbone_without_a_map_is_refused_with_what_to_use(backbone: str) -> None:
    with pytest.raises(TaskError, match="resnet50"):
        make(backbone)


def test_pixels_are_normalised_by_the_models_own_figures() -> None:
    model = make("test_resnet")
    model.mean, model.std = (127 / 255,) * 3, (128 / 255,) * 3
    pixels = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 1, 3, 1).expand(1, 1, 3, 3)
    expected = torch.tensor([-127 / 128, 0, 1.0])
    torch.testing.assert_close(model.normalise(pixels)[0, 0, 0], expected)


def test_an_untrained_head_says_that_it_does_not_know() -> None:
    with torch.inference_mode():
        chances = make("test_efficientnet")(torch.randn(4, 3, 64, 64))[:, :3].softmax(1)
    torch.testing.assert_close(chances, torch.full((4, 3), 1 / 3), atol=0.05, rtol=0)


def test_a_saved_model_comes_back_equal(tmp_path: Path) -> None:
    task = tiny_task()
    model = build_model(task).eval()
    model.mean = (0.1, 0.2, 0.3)
    write_json(tmp_path / "task.json", task.to_dict())
    save_model(model, model.state_dict(), tmp_path / "model.safetensors")
    back, read = load_model(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(back(images), model(images), rtol=0, atol=0)
    assert (read, back.mean, back.std, back.weights_info) == (task, model.mean, model.std, model.weights_info)
    assert not back.training


def test_an_unfinished_a_damaged_and_a_mixed_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trained model"):
        load_model(tmp_path)
    task = tiny_task()
    write_json(tmp_path / "task.json", task.to_dict())
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="can't be read"):
        load_model(tmp_path)
    other = make("test_resnet")
    save_model(other, other.state_dict(), path)
    with pytest.raises(IntegrityError, match="test_resnet"):
        load_model(tmp_path)


def test_heads_in_another_order_than_the_weights_are_refused(tmp_path: Path) -> None:
    task = tiny_task()
    model = build_model(task)
    save_model(model, model.state_dict(), tmp_path / "model.safetensors")
    body = task.to_dict()
    body["heads"] = dict(reversed(body["heads"].items()))
    write_json(tmp_path / "task.json", body)
    with pytest.raises(IntegrityError, match="heads"):
        load_model(tmp_path)
