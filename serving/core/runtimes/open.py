"""From a bundle to a runtime that has proved itself on the bundle's golden answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.errors import BundleError, IntegrityError
from serving.core.bundle import GOLDEN, Bundle
from serving.core.decisions import calibrated
from serving.core.runtimes.base import Runtime
from serving.core.runtimes.onnx import OnnxRuntime


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a runtime did on the golden images: the largest difference in probability, and label changes."""

    images: int
    max_difference: float
    labels_changed: int


def open_runtime(
    bundle: Bundle, precision: str = "fp32", threads: int | None = None, *, warm: bool = True
) -> Runtime:
    """Load a bundle's model and, by default, hold its answers against the golden ones.

    ``threads`` defaults to the CPU quota of this process.

    Raises:
        BundleError: the precision isn't in the bundle or isn't approved, or the model can't be loaded.
        IntegrityError: the answers aren't the golden ones within the precision's tolerance.
    """
    card = bundle.card
    chosen = card.precisions.get(precision)
    if chosen is None or not chosen.approved:
        approved = [name for name, item in card.precisions.items() if item.approved]
        raise BundleError(
            f"The bundle of {card.task!r} has no approved precision {precision!r}.",
            hint=f"Approved: {', '.join(approved) or 'none'}.",
        )
    if chosen.format != "onnx":
        raise BundleError(
            f"No runtime here runs {chosen.format!r} models.", hint="Choose another precision, such as fp32."
        )
    runtime = OnnxRuntime(bundle.path(chosen.file), card, precision, threads)
    if warm:
        result = warm_up(runtime, bundle)
        if not result.max_difference <= chosen.tolerance:
            runtime.close()
            raise IntegrityError(
                f"{runtime.name} answers the golden images of {card.task!r} with a difference of "
                f"{result.max_difference:.2e} in probability; {precision} allows {chosen.tolerance:.0e}.",
                hint="Another build of the runtime, or another processor, is at fault: don't serve with it.",
            )
    return runtime


def warm_up(runtime: Runtime, bundle: Bundle) -> WarmUp:
    """Answer the bundle's golden images and compare with what was stored at export.

    One image at a time and then all together, so that both shapes are warm and equal. ``golden.npz`` holds
    ``images`` uint8 [n, H, W, 3] and ``logits`` float32 [n, ΣC]. Differences are in probabilities at
    temperature 1, per head.
    """
    golden = bundle.arrays(GOLDEN)
    images, expected = golden["images"], golden["logits"]
    outputs = tuple(name for name in ("logits", "cam") if name in bundle.card.outputs)
    together = runtime.run(images, outputs)["logits"]
    alone = runtime.run(images[:1], outputs)["logits"]
    worst, changed = 0.0, 0
    for part in bundle.card.slices.values():
        for logits, wanted in ((together, expected), (alone, expected[:1])):
            if not np.isfinite(logits).all():
                return WarmUp(len(images), float("inf"), len(images))
            got, want = calibrated(logits[:, part]), calibrated(wanted[:, part])
            worst = max(worst, float(np.abs(got - want).max()))
            changed += int((got.argmax(axis=1) != want.argmax(axis=1)).sum())
    return WarmUp(len(images), worst, changed)
