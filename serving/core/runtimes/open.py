"""From a bundle to a runtime that has proved itself on the bundle's golden answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from data.errors import BundleError, IntegrityError, RetidermError
from serving.core.bundle import GOLDEN, Bundle
from serving.core.decisions import calibrated
from serving.core.runtimes.base import Runtime
from serving.core.runtimes.kinds import approved, kind_for, load
from serving.core.runtimes.tuned import Tuned, read_tuned

#: Instead of a precision's name: what ``retiderm tune`` chose on this kind of host, else fp32.
AUTO = "auto"

_LOG = logging.getLogger("retiderm.serving")


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a runtime did on the golden images: the largest difference in probability, and label changes."""

    images: int
    max_difference: float
    labels_changed: int


def open_runtime(
    bundle: Bundle,
    precision: str = "fp32",
    threads: int | None = None,
    *,
    runtime: str | None = None,
    warm: bool = True,
) -> Runtime:
    """Load a bundle's model and, by default, hold its answers against the golden ones.

    ``precision`` may be ``auto``: what ``retiderm tune`` chose on this kind of host, and fp32 with ONNX
    Runtime where it was never run or its choice can't be had; of a task that answers on a fixed chain of
    runtimes (``chain.CHAINED``) the first link that can be had. ``runtime`` names one of ``KINDS`` instead
    of the preferred one for the precision. ``threads`` defaults to the CPU quota of this process.

    Raises:
        BundleError: the precision isn't in the bundle or isn't approved, or the model can't be loaded.
        ServingError: the runtime isn't installed, or this processor lacks the precision.
        IntegrityError: the answers aren't the golden ones within the precision's tolerance.
    """
    if precision == AUTO:
        return _open_auto(bundle, threads, warm)
    item = approved(bundle, precision)
    opened = load(kind_for(precision, item, runtime), bundle, precision, threads)
    if warm:
        try:
            check_golden(opened, bundle)
        except RetidermError:
            opened.close()
            raise
    return opened


def check_golden(runtime: Runtime, bundle: Bundle) -> WarmUp:
    """Warm a runtime up on the golden images, and refuse it where its answers aren't theirs.

    Raises:
        IntegrityError: they differ by more than the precision's tolerance.
    """
    card = bundle.card
    tolerance = card.precisions[runtime.precision].tolerance
    result = warm_up(runtime, bundle)
    if not result.max_difference <= tolerance:
        raise IntegrityError(
            f"{runtime.name} answers the golden images of {card.task!r} with a difference of "
            f"{result.max_difference:.2e} in probability; {runtime.precision} allows {tolerance:.0e}.",
            hint="Another build of the runtime, or another processor, is at fault: don't serve with it.",
        )
    return result


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


def _open_auto(bundle: Bundle, threads: int | None, warm: bool) -> Runtime:
    # The chain opens its links by this module.
    from serving.core.runtimes.chain import CHAINED, open_chain

    if bundle.card.task in CHAINED:
        return open_chain(bundle, threads=threads).runtime
    tuned = read_tuned(bundle.digest)
    if tuned is not None:
        opened = _open_tuned(bundle, tuned, threads, warm)
        if opened is not None:
            return opened
    return open_runtime(bundle, "fp32", threads, warm=warm)


def _open_tuned(bundle: Bundle, tuned: Tuned, threads: int | None, warm: bool) -> Runtime | None:
    """The tuned choice, or None (and a line in the log) where it isn't to be had as it was measured."""
    try:
        opened = open_runtime(bundle, tuned.precision, threads, runtime=tuned.runtime, warm=warm)
        if opened.name != tuned.version:
            opened.close()
            raise BundleError(f"It was measured with {tuned.version}; here is {opened.name}.")
    except RetidermError as error:
        _LOG.warning(
            "%s: tuned to %s with %s, which can't be had here: %s Serving fp32. Run retiderm tune again.",
            bundle.card.task,
            tuned.precision,
            tuned.runtime,
            error.message,
        )
        return None
    return opened
