from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data.errors import TaskError, UsageError
from training import face_cnn
from training.export.graph import graph_of
from training.registry.importer.foreign import Foreign
from training.registry.importer.state import architecture, classifier
from training.task import Task, load_task


def old_network(
    blocks: int, classes: int, *, padding: int = 1, average: int | None = None, side: int | None = None
) -> nn.Sequential:
    """As the older service wrote it: one sequence, with dropout before the last layer."""
    torch.manual_seed(blocks)
    layers: list[nn.Module] = []
    for given, wide in zip((3, 32, 64, 128), (32, 64, 128, 256)[:blocks], strict=False):
        layers += [nn.Conv2d(given, wide, 3, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]
    if average:
        layers.append(nn.AdaptiveAvgPool2d(average))
    places = (average or side or face_cnn.map_side(blocks, padded=padding == 1)) ** 2
    layers += [nn.Flatten(), nn.Linear(wide * places, 512), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(512, classes)).eval()


def task(heads: str = "acne") -> Task:
    return load_task(heads, overrides={"weights": "none"})


CASES = [
    ("face_cnn3", 3, {}),
    ("face_cnn4", 4, {}),
    ("face_cnn3_valid", 3, {"padding": 0}),
    ("face_cnn4_valid", 4, {"padding": 0}),
    ("face_cnn4_avg7", 4, {"average": 7}),
    ("face_cnn3_avg1", 3, {"average": 1}),
]


@pytest.mark.parametrize(("name", "blocks", "shape"), CASES)
def test_a_state_dict_tells_its_network(name: str, blocks: int, shape: dict[str, int]) -> None:
    state = old_network(blocks, 2, **shape).state_dict()
    assert face_cnn.name_of(state) == name
    # safetensors gives its tensors by name, not by layer
    assert face_cnn.name_of(dict(reversed(list(state.items())))) == name


@pytest.mark.parametrize(("name", "blocks", "shape"), [CASES[1], CASES[4]])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
def test_the_imported_network_gives_what_the_old_one_gave(
    name: str, blocks: int, shape: dict[str, int], wrapper: str | None, tmp_path: Path
) -> None:
    old = old_network(blocks, 5, **shape)
    state: object = old.state_dict()
    torch.save({wrapper: state} if wrapper else state, tmp_path / "old.pth")
    foreign = Foreign(tmp_path / "old.pth", architecture=name)
    assert architecture(foreign) == name
    ours = classifier(foreign, _with_backbone(task("skin_condition"), name), None)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(ours(images), old(images), atol=1e-5)


def test_the_order_of_classes_is_turned(tmp_path: Path) -> None:
    old = old_network(4, 2, average=2)
    torch.save(old.state_dict(), tmp_path / "old.pth")
    foreign = Foreign(tmp_path / "old.pth", architecture="face_cnn4_avg2")
    ours = classifier(foreign, _with_backbone(task(), "face_cnn4_avg2"), (1, 0))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(ours(images), old(images)[:, [1, 0]], atol=1e-5)


@pytest.mark.parametrize("name", ["face_cnn4", "face_cnn4_avg7"])
def test_its_maps_are_grad_cam(name: str) -> None:
    from training.model import Classifier

    model = Classifier(name, task("skin_condition").heads, pretrained=False).eval()
    graph, names, reason = graph_of(model)
    assert (names, reason) == (["logits", "cam", "embedding"], None)
    image = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    with torch.no_grad():
        logits, cam, _ = graph(image)
    for c in range(5):
        assert torch.allclose(cam[0, c], _autograd_cam(model, image, c, logits), atol=1e-6)


def _autograd_cam(model: nn.Module, image: Tensor, c: int, logits: Tensor) -> Tensor:
    features = model.features(model.normalise(image)).detach().requires_grad_()  # type: ignore[operator]
    said = model.head(model.pool(features))  # type: ignore[operator]
    assert torch.allclose(said, logits, atol=1e-4)
    (gradient,) = torch.autograd.grad(said[0, c], features)
    return torch.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1))[0].detach()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"0.weight": torch.zeros(32, 3, 5, 5)}, "32×3×5×5"),
        ({"3.weight": torch.zeros(48, 32, 3, 3)}, "48×32×3×3"),
        ({"more.weight": torch.zeros(7)}, "it has more.weight besides"),
    ],
)
def test_another_network_is_refused_by_what_differs(change: dict[str, Tensor], told: str) -> None:
    state = {**old_network(3, 2, average=2).state_dict(), **change}
    with pytest.raises(UsageError, match=told) as caught:
        face_cnn.as_ours(state)
    assert "3 or 4 convolutions" in str(caught.value.hint)


def test_a_map_that_is_no_square_is_refused() -> None:
    state = old_network(3, 2, average=2).state_dict()
    hidden = next(key for key, value in state.items() if value.ndim == 2 and len(value) == 512)
    with pytest.raises(UsageError, match="no square map"):
        face_cnn.name_of({**state, hidden: torch.zeros(512, 128 * 3)})
    with pytest.raises(UsageError, match="more than 28"):
        face_cnn.name_of({**state, hidden: torch.zeros(512, 128 * 900)})


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    torch.save(old_network(4, 3, average=2).state_dict(), tmp_path / "old.pth")
    foreign = Foreign(tmp_path / "old.pth", architecture="face_cnn4_avg2")
    with pytest.raises(UsageError, match="has 3 outputs, the task acne 2 classes"):
        classifier(foreign, _with_backbone(task(), "face_cnn4_avg2"), None)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    import pickle

    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(TaskError, match="can't be read as weights"):
        architecture(Foreign(tmp_path / "bad.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_whole_model_in_a_file_is_refused_in_our_own_words(tmp_path: Path) -> None:
    torch.save(face_cnn.build("face_cnn4_avg2"), tmp_path / "whole.pth")
    with pytest.raises(TaskError, match=r"holds training\.face_cnn\.FaceCnn, which is code") as caught:
        architecture(Foreign(tmp_path / "whole.pth"))
    # torch's advice is to run it all the same.
    assert "weights_only" not in str(caught.value)
    assert "state_dict()" in str(caught.value)


def test_an_unknown_name_is_refused() -> None:
    for name in ("face_cnn5", "face_cnn3_avg0", "face_cnn"):
        with pytest.raises(TaskError, match="no backbone"):
            face_cnn.build(name)


def _with_backbone(of: Task, name: str) -> Task:
    return dataclasses.replace(of, backbone=name)
