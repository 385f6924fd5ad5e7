"""What an export builds beside the float32 model, and how much worse such a precision may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data.errors import TaskError
from training.spec.reader import knob

#: Every precision that an export can build; ``serving.core.runtimes`` knows what runs each.
PRECISIONS = ("fp32", "bf16", "int8", "tflite", "tflite_int8")


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """``export:`` in a task file. ``fp32`` (ONNX) is always there: the others are judged against it."""

    precisions: tuple[Literal["fp32", "bf16", "int8", "tflite", "tflite_int8"], ...] = knob(
        ("fp32",), "what is built: fp32, bf16, int8, tflite, tflite_int8"
    )
    metric: Literal["auc", "accuracy", "balanced_accuracy", "kappa"] = knob(
        "auc", "what a precision is approved by, on validation images"
    )
    loss: float = knob(0.01, "how much of it a precision may lose against fp32", low=0, high=1)
    calibration_images: int = knob(128, "training images that int8's ranges come from", low=8, high=100_000)
    judged_images: int = knob(
        2000, "most validation images, and most test images, that a precision is judged on", low=16
    )

    def __post_init__(self) -> None:
        if "fp32" not in self.precisions:
            raise TaskError(
                "`export.precisions` lacks fp32, against which the others are judged.",
                hint="Write it first: [fp32, int8].",
            )
        if len(set(self.precisions)) != len(self.precisions):
            raise TaskError("`export.precisions` names a precision twice.")
