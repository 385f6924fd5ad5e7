"""The classifier: a timm backbone, pooling, and one linear layer over all heads' classes.

``logits = head(dropout(pool(features(x))))``. Where pooling is a plain mean over the map (``closed_form``),
Grad-CAM needs no gradient: the map of class c is ReLU(sum over k of w_ck A_k) / (h w).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from data.errors import DataError, IntegrityError, TaskError
from data.files import atomic_path, read_json
from training.spec.parts import HeadSpec, WeightsSpec
from training.task import Task, task_from_dict
from training.weights import Start, WeightsInfo, start

if TYPE_CHECKING:
    from collections.abc import Mapping

Triple = tuple[float, float, float]


class Classifier(nn.Module):
    """Images to logits.

    ``forward`` takes float ``[N, 3, H, W]``, normalised by ``mean`` and ``std`` (of pixels from 0 to 1), and
    gives logits ``[N, sum of classes]``; ``slices`` says which of them belong to which head.
    """

    def __init__(
        self,
        backbone: str,
        heads: Sequence[HeadSpec],
        *,
        weights: WeightsSpec | None = None,
        pretrained: bool = True,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path > 0 else {}
        begun: Start = start(backbone, weights or WeightsSpec(), pretrained=pretrained, **options)
        self.backbone_name = backbone
        self.backbone = begun.backbone
        self.mean: Triple = begun.mean
        self.std: Triple = begun.std
        self.weights_info: WeightsInfo = begun.info
        self.slices: dict[str, slice] = {}
        total = 0
        for head in heads:
            self.slices[head.name] = slice(total, total + len(head.classes))
            total += len(head.classes)
        channels, width, self.closed_form = _shape(self.backbone, backbone)
        self.feature_channels = channels
        self.embedding_width = width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, total)
        # Small first logits: the first steps of an untrained head then leave the backbone nearly whole.
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        if begun.head is not None and dict(begun.head.places) == _places(self):
            self.head.load_state_dict({"weight": begun.head.weight, "bias": begun.head.bias})

    def features(self, images: Tensor) -> Tensor:
        """The last map before pooling, ``[N, K, h, w]``."""
        return self.backbone.forward_features(images)  # type: ignore[operator,no-any-return]

    def pool(self, features: Tensor) -> Tensor:
        """The embedding ``[N, D]`` of a map ``[N, K, h, w]``: its mean, or the backbone's own way."""
        if self.closed_form:
            return features.mean((2, 3))
        return self.backbone.forward_head(features, pre_logits=True).flatten(1)  # type: ignore[operator,no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, sum of classes]``."""
        return self.head(self.dropout(self.pool(self.features(images))))  # type: ignore[no-any-return]

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 ``[N, H, W, 3]`` to what :meth:`forward` takes."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _shape(backbone: nn.Module, name: str) -> tuple[int, int, bool]:
    """Channels of the last map, width of the embedding, and whether the one is the other's plain mean.

    Found by trying, since timm has no flag for it. A backbone that has no ``[N, K, h, w]`` map is refused:
    there would be nothing to explain an answer with.
    """
    channels = int(getattr(backbone, "num_features", 0))
    side = int(backbone.default_cfg["input_size"][-1])  # type: ignore[index]
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            maps = backbone.forward_features(torch.zeros(1, 3, side, side))  # type: ignore[operator]
            if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[1] != channels:
                raise TaskError(
                    f"{name} gives no map of features that an answer could be explained with.",
                    hint="Use a convolutional one, such as resnet50 or tf_efficientnet_lite0.",
                )
            # Noise, so that no other kind of pooling gives the mean by chance.
            generator = torch.Generator().manual_seed(0)
            probe = torch.randn(maps.shape, generator=generator)
            pooled = backbone.forward_head(probe, pre_logits=True).flatten(1)  # type: ignore[operator]
    finally:
        backbone.train(was_training)
    same = pooled.shape[1] == channels and bool(torch.allclose(pooled, probe.mean((2, 3)), atol=1e-5))
    return channels, int(pooled.shape[1]), same


def build_model(task: Task, *, pretrained: bool = True) -> Classifier:
    """The task's classifier with its first weights; ``pretrained=False`` leaves them random."""
    return Classifier(
        task.backbone,
        task.heads,
        weights=task.weights,
        pretrained=pretrained,
        dropout=task.train.dropout,
        drop_path=task.train.drop_path,
    )


def about(model: Classifier) -> dict[str, Any]:
    """What belongs to the weights but is no tensor: normalisation, origin, backbone, places of the heads."""
    return {
        "backbone": model.backbone_name,
        "mean": list(model.mean),
        "std": list(model.std),
        "weights": model.weights_info.to_dict(),
        "slices": _places(model),
    }


def _places(model: Classifier) -> dict[str, list[int]]:
    return {name: [part.start, part.stop] for name, part in model.slices.items()}


def set_about(model: Classifier, values: Mapping[str, Any]) -> None:
    """Give a model what :func:`about` said of another of the same architecture."""
    if values["backbone"] != model.backbone_name:
        raise IntegrityError(
            f"The weights are a {values['backbone']}'s, the task says {model.backbone_name}."
        )
    if values["slices"] != _places(model):
        raise IntegrityError(
            f"The weights' logits are {values['slices']}, the task's heads are {_places(model)}.",
            hint="Give the task its heads in the order they were trained in, or train again.",
        )
    red, green, blue = (float(value) for value in values["mean"])
    model.mean = (red, green, blue)
    red, green, blue = (float(value) for value in values["std"])
    model.std = (red, green, blue)
    model.weights_info = WeightsInfo.from_dict(values["weights"])


def save_model(model: Classifier, state: Mapping[str, Tensor], path: Path) -> None:
    """Write ``state`` as safetensors, with the normalisation and the origin of the weights beside it."""
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"retiderm": json.dumps(about(model))})


def load_model(run_dir: Path) -> tuple[Classifier, Task]:
    """The trained model and its task from a folder that :func:`training.fit.fit` filled; in evaluation mode.

    Raises :class:`DataError` when training has not finished there, :class:`IntegrityError` when the files
    don't belong together.
    """
    from safetensors import safe_open

    path = run_dir / "model.safetensors"
    if not path.is_file() or not (run_dir / "task.json").is_file():
        raise DataError(
            f"{run_dir} holds no trained model.", hint="Start the training again; it goes on where it ended."
        )
    task = task_from_dict(read_json(run_dir / "task.json"))
    model = build_model(task, pretrained=False)
    try:
        with safe_open(path, framework="pt") as stream:
            values = json.loads((stream.metadata() or {})["retiderm"])
            state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - no iterator
        set_about(model, values)
        model.load_state_dict(state, strict=True)
    except IntegrityError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise IntegrityError(f"{path} can't be read: {error}", hint="Train again.") from error
    return model.eval(), task
