"""A training that begins with weights that were trained here: backbone, normalisation and head go along."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data.errors import IntegrityError, TaskError, UsageError
from data.files import sha256_file
from data.paths import Home
from tests.trainings import tiny_task
from training.loop.warm import CARD_KEY, warm
from training.model import build_model, save_model
from training.task import Task, task_from_dict


def trained(folder: Path, **recipe: Any) -> Path:
    model = build_model(tiny_task(**recipe))
    model.mean, model.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


def starting_from(path: Path, **changes: Any) -> Task:
    body = tiny_task().to_dict() | {"weights": {"source": str(path), "licence": "CC-BY-NC-4.0"}} | changes
    return task_from_dict(body)


def test_backbone_normalisation_and_head_go_along(tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = trained(tmp_path)
    torch.manual_seed(2)
    model = build_model(starting_from(path))
    state = load_file(path)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, state[key])
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (model.weights_info.source, model.weights_info.licence) == ("model.safetensors", "CC-BY-NC-4.0")
    assert model.weights_info.sha256 == sha256_file(path)


def test_another_set_of_heads_takes_the_backbone_alone(tmp_path: Path) -> None:
    path = trained(tmp_path)
    heads = {"other": {"classes": ["a", "b"]}}
    model = build_model(starting_from(path, heads=heads))
    assert model.head.weight.shape[0] == 2


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    path = trained(tmp_path)
    with pytest.raises(TaskError, match="holds a test_efficientnet, the task asks for test_resnet"):
        build_model(starting_from(path, backbone="test_resnet"))


class Registry:
    """One champion, and what MLflow keeps of its run."""

    def __init__(self, kept: Path | None, **card: Any) -> None:
        task = tiny_task()
        self.kept = kept
        self.downloads = 0
        told = {
            "backbone": task.backbone,
            "heads": [SimpleNamespace(name=head.name, classes=head.classes) for head in task.heads],
            "extra": {CARD_KEY: sha256_file(kept)} if kept else {},
            "dataset": SimpleNamespace(licences=("CC-BY-NC-4.0",)),
            "weights": SimpleNamespace(licence="Apache-2.0"),
            "forbids": ("commercial",),
        }
        self.card = SimpleNamespace(**{**told, **card})

    def bundle(self, version: object) -> object:
        return SimpleNamespace(card=self.card)

    def download(self, version: object, path: str, folder: Path) -> Path | None:
        self.downloads += 1
        if self.kept is None:
            return None
        copy = folder / "fetched"
        copy.write_bytes(self.kept.read_bytes())
        return copy


@pytest.fixture
def champion(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.registry import champion as place

    version = SimpleNamespace(task="tiny", version="3", run_id="r")
    monkeypatch.setattr(place, "champion_of", lambda registry, entries, task: version)


RECIPE = json.loads(json.dumps(tiny_task().to_dict()))


@pytest.mark.usefixtures("champion")
def test_the_recipe_names_the_champions_weights_and_their_terms(home: Home, tmp_path: Path) -> None:
    registry = Registry(trained(tmp_path))
    changed, version = warm(registry, "tiny", RECIPE)  # type: ignore[arg-type]
    assert version.version == "3"
    weights = changed["weights"]
    assert weights["licence"] == "CC-BY-NC-4.0; Apache-2.0"
    assert weights["forbids"] == ["commercial"]
    assert sha256_file(Path(weights["source"])) == weights["sha256"]
    assert Path(weights["source"]).is_relative_to(home.root / "loop" / "tiny")
    task = task_from_dict(changed)
    assert task.weights.sha256 == weights["sha256"]
    again, _ = warm(registry, "tiny", RECIPE)  # type: ignore[arg-type]
    assert again == changed
    assert registry.downloads == 1


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"backbone": "resnet50"}, "is a resnet50; the task asks for test_efficientnet"),
        ({"heads": []}, "other heads or classes"),
        ({"extra": {}}, "without keeping its weights"),
    ],
)
def test_a_champion_that_cannot_be_gone_on_from(
    home: Home, tmp_path: Path, card: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as error:
        warm(Registry(trained(tmp_path), **card), "tiny", RECIPE)  # type: ignore[arg-type]
    assert "from scratch" in str(error.value.hint)


@pytest.mark.usefixtures("champion")
def test_other_weights_than_the_bundles_are_refused(home: Home, tmp_path: Path) -> None:
    registry = Registry(trained(tmp_path))
    registry.card.extra = {CARD_KEY: "0" * 64}
    with pytest.raises(IntegrityError, match="not those that its bundle"):
        warm(registry, "tiny", RECIPE)  # type: ignore[arg-type]
    registry.kept = None
    with pytest.raises(UsageError, match="no longer in MLflow"):
        warm(registry, "tiny", RECIPE)  # type: ignore[arg-type]


def test_without_a_champion_there_is_nothing_to_start_from(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.registry import champion as place

    monkeypatch.setattr(place, "champion_of", lambda registry, entries, task: None)
    with pytest.raises(UsageError, match="no champion to start from"):
        warm(Registry(None), "tiny", RECIPE)  # type: ignore[arg-type]
