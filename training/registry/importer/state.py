"""A state dict with a named timm architecture as our classifier: all else is then as for a trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.errors import UsageError

from .foreign import Foreign

if TYPE_CHECKING:
    import torch

    from training.model import Classifier
    from training.task import Task

_PREFIXES = ("model.", "net.", "network.", "encoder.", "_orig_mod.")


def classifier(foreign: Foreign, task: Task, order: Sequence[int] | None) -> Classifier:
    """Load the weights into the task's classifier. ``task.backbone`` is the architecture.

    Taken are timm's own names (torchvision's ResNets have the same), those of our ``model.safetensors``, and
    any names for the older face-scan service's networks. Nothing in the file is run.

    Raises:
        UsageError: the weights aren't those of this architecture with the task's number of outputs.
        TaskError: the file can't be read, or timm has no such model.
    """
    from training import face_cnn
    from training.model import Classifier
    from training.weights import WeightsInfo, read_state

    state = read_state(foreign.weights)
    model = Classifier(task.backbone, task.heads, pretrained=False)
    state = _without_prefix(state)
    if face_cnn.is_name(task.backbone) and not any(key.startswith("backbone.") for key in state):
        state = face_cnn.as_ours(state)
        outputs, wanted = len(state["head.weight"]), sum(len(head.classes) for head in task.heads)
        if outputs != wanted:
            raise UsageError(
                f"{foreign.weights.name} has {outputs} outputs, the task {task.name} {wanted} classes.",
                hint="Import it for the task with its classes: acne has 2, skin_condition 5.",
            )
    if "head.weight" in state and any(key.startswith("backbone.") for key in state):
        _load(model, state, foreign, task)
    else:
        backbone, head = _split(state, foreign, task)
        _load(model.backbone, backbone, foreign, task)
        _load(model.head, head, foreign, task)
    if order is not None:
        index = list(order)
        model.head.weight.data = model.head.weight.data[index].clone()
        model.head.bias.data = model.head.bias.data[index].clone()
    if foreign.mean is not None:
        model.mean = foreign.mean
    if foreign.std is not None:
        model.std = foreign.std
    model.weights_info = WeightsInfo(
        source=f"imported: {foreign.weights.name}",
        licence=foreign.licence or None,
        sha256=foreign.sha256,
        forbids=foreign.forbids,
    )
    return model.eval()


def architecture(foreign: Foreign) -> str | None:
    """The name of the older face-scan service's network that the file holds; None where it holds another.

    Raises:
        TaskError: the file can't be read.
    """
    from training import face_cnn
    from training.weights import read_state

    state = read_state(foreign.weights)
    try:
        return face_cnn.name_of(_without_prefix(state))
    except UsageError:
        return None


def _without_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what a training framework put before every name."""
    found = dict(state)
    for prefix in _PREFIXES:
        if found and all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _split(
    state: Mapping[str, torch.Tensor], foreign: Foreign, task: Task
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A whole timm model's state as that of a backbone and of one linear layer."""
    import timm
    import torch

    outputs = sum(len(head.classes) for head in task.heads)
    whole: Any = timm.create_model(task.backbone, num_classes=outputs)
    names = whole.default_cfg.get("classifier")
    name = names if isinstance(names, str) else None
    layer = dict(whole.named_modules()).get(name) if name else None
    if not isinstance(layer, torch.nn.Linear):
        raise UsageError(
            f"{task.backbone} does not end in one linear layer, so its state can't be taken over.",
            hint="Export it as ONNX and import that.",
        )
    weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
    if weight is None:
        known = ", ".join(sorted(state)[-3:])
        raise UsageError(
            f"{foreign.weights.name} has no {name}.weight, {task.backbone}'s last layer; it ends in {known}.",
            hint="Name the right --architecture.",
        )
    if len(weight) != outputs:
        raise UsageError(
            f"{foreign.weights.name} has {len(weight)} outputs, the task {task.name} {outputs} classes.",
            hint="Import it for a task with its classes; a task is one YAML file.",
        )
    head: dict[str, Any] = {"weight": weight, "bias": bias if bias is not None else torch.zeros(len(weight))}
    rest = {key: value for key, value in state.items() if key not in (f"{name}.weight", f"{name}.bias")}
    return rest, head


def _load(module: torch.nn.Module, state: Mapping[str, torch.Tensor], foreign: Foreign, task: Task) -> None:
    wanted = module.state_dict()
    # Counters of batches are bookkeeping that older files lack.
    filled = {k: v for k, v in wanted.items() if k.endswith("num_batches_tracked")} | dict(state)
    missing, extra = sorted(wanted.keys() - filled.keys()), sorted(filled.keys() - wanted.keys())
    other = sorted(k for k in wanted.keys() & filled.keys() if wanted[k].shape != filled[k].shape)
    if missing or extra or other:
        first = (
            f"it lacks {missing[0]}"
            if missing
            else f"it has {extra[0]}"
            if extra
            else f"{other[0]} differs in shape"
        )
        raise UsageError(
            f"{foreign.weights.name} is not a {task.backbone}: {first} ({len(missing)} missing, "
            f"{len(extra)} unknown, {len(other)} of another shape).",
            hint="Name the right --architecture.",
        )
    module.load_state_dict(filled, strict=True)
