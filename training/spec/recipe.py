"""How a model is trained: every knob of ``train:`` in a task file, with its limits."""

# ruff: noqa: RUF009 - knob() is dataclasses.field() with a doc and limits
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from training.spec.reader import knob


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes to a training image, drawn anew for every image and epoch."""

    hflip: bool = knob(True, "mirror left and right, half of the time")
    vflip: bool = knob(False, "mirror up and down, half of the time")
    rotate_degrees: float = knob(15.0, "largest rotation either way", low=0, high=180)
    scale: tuple[float, float] = knob((0.9, 1.1), "smallest and largest zoom", low=0.1, high=10)
    translate: float = knob(0.05, "largest shift, as a part of the side", low=0, high=0.5)
    shear_degrees: float = knob(0.0, "largest shear either way", low=0, high=45)
    fill: Literal["reflect", "black"] = knob(
        "reflect", "what comes in at the edges: the mirrored image or black"
    )
    brightness: float = knob(0.1, "largest relative change of brightness", low=0, high=1)
    contrast: float = knob(0.1, "largest relative change of contrast", low=0, high=1)
    saturation: float = knob(0.1, "largest relative change of saturation", low=0, high=1)
    hue: float = knob(0.0, "largest turn of the hue, as a part of the circle", low=0, high=0.5)
    erase_p: float = knob(0.0, "chance that a rectangle is painted over", low=0, high=1)
    erase_area: tuple[float, float] = knob((0.02, 0.2), "its area, as a part of the image", low=0, high=1)
    noise: float = knob(0.0, "largest standard deviation of added noise, of a 0 to 1 image", low=0, high=0.5)
    blur: float = knob(0.0, "chance that an image is slightly blurred", low=0, high=1)


@dataclass(frozen=True, slots=True)
class Balance:
    """What is done about rare classes: ``none``, oversampling, or weights in the loss."""

    kind: Literal["none", "sampler", "weights"] = knob("none", "none, sampler or weights")
    power: float = knob(
        0.5, "a class counts as its frequency to the power -p: 0 nothing, 1 all equal", low=0, high=1
    )

    @staticmethod
    def shorthand(value: Any, where: str) -> Mapping[str, Any]:
        """``balance: sampler`` for ``balance: {kind: sampler}``."""
        return {"kind": value}


@dataclass(frozen=True, slots=True)
class Recipe:
    """``train:`` in a task file. Rates are for the whole batch over all processes."""

    epochs: int = knob(25, "passes over the training set", low=1, high=10_000)
    batch_size: int = knob(32, "images in a step, over all processes", low=2, high=65_536)
    lr: float = knob(1e-3, "highest learning rate of the head", low=0, high=10)
    backbone_lr: float = knob(3e-4, "highest learning rate of the backbone", low=0, high=10)
    layer_decay: float = knob(1.0, "factor on the rate for each layer further from the head", low=0.1, high=1)
    weight_decay: float = knob(0.02, "AdamW's decay of matrices and kernels", low=0, high=1)
    warmup_epochs: float = knob(1.0, "epochs of linear rise from zero", low=0)
    final_lr: float = knob(0.01, "the cosine's end, as a part of the highest rate", low=0, high=1)
    freeze_backbone_epochs: int = knob(0, "epochs in which only the head learns", low=0)
    freeze_norm: bool = knob(False, "keep the backbone's batch statistics as pretrained")
    loss: Literal["ce", "focal", "logit_adjusted", "ordinal"] = knob(
        "ce", "cross-entropy, focal, balanced softmax, or cross-entropy smeared over neighbouring grades"
    )
    label_smoothing: float = knob(0.05, "part of the target spread over all classes", low=0, high=0.9)
    focal_gamma: float = knob(2.0, "focal: how much easy images fade", low=0, high=10)
    adjust_tau: float = knob(1.0, "logit_adjusted: 1 is the balanced softmax", low=0, high=5)
    ordinal_sigma: float = knob(0.5, "ordinal: width of the smear in grades", low=0.05, high=5)
    emd_weight: float = knob(
        0.0, "adds this much squared distance between cumulative grades, on ordinal heads", low=0, high=100
    )
    balance: Balance = knob(Balance, "what is done about rare classes")
    mixup_alpha: float = knob(0.2, "strength of mixing two images, 0 for none", low=0, high=10)
    cutmix_alpha: float = knob(0.0, "strength of pasting one image into another, 0 for none", low=0, high=10)
    mix_p: float = knob(1.0, "chance that a batch is mixed at all", low=0, high=1)
    augment: Augment = knob(Augment, "random changes to the images")
    dropout: float = knob(0.2, "before the head", low=0, high=0.95)
    drop_path: float = knob(0.0, "stochastic depth, where the backbone has it", low=0, high=0.9)
    ema_decay: float = knob(
        0.99, "of the moving average of the weights, a step; 0 for none", low=0, high=0.99999
    )
    grad_clip: float = knob(1.0, "largest norm of the gradient, 0 for no limit", low=0)
    val_metric: str | dict[str, float] = knob(
        "auto", "what the best epoch is chosen by: a metric or a weighted mix, e.g. {auc: 1, kappa: 1}"
    )
    select: Literal["best", "last"] = knob("best", "keep the best epoch on validation data, or the last")
    early_stop_patience: int = knob(0, "stop after so many epochs without a better one, 0 for never", low=0)
    max_minutes: float | None = knob(None, "start no epoch after so long, interruptions not counted", low=0)
    seed: int = knob(0, "of everything random", low=0, high=2**31 - 1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = knob("auto", "of the forward pass while training")
    channels_last: bool = knob(True, "memory order that convolutions prefer")
    compile: bool = knob(False, "torch.compile the model")
    checkpoint_seconds: float = knob(120.0, "write a checkpoint inside an epoch that often", low=0)
