"""Which runtimes there are, and which precisions of a bundle each of them runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import BundleError, UsageError
from serving.core.bundle import Bundle, PrecisionCard

if TYPE_CHECKING:
    from serving.core.runtimes.base import Runtime


@dataclass(frozen=True, slots=True)
class Kind:
    """A runtime that may be installed: its package, and the format and precisions that it runs.

    ``precisions`` empty: every one of its format that no other runtime alone runs.
    """

    name: str
    package: str
    format: str
    precisions: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether its package is there; importing it may still fail."""
        try:
            return importlib.util.find_spec(self.package) is not None
        except (ImportError, ValueError):
            return False

    def runs(self, precision: str, item: PrecisionCard) -> bool:
        """Whether it can run that precision of a bundle."""
        if item.format != self.format:
            return False
        return precision in self.precisions if self.precisions else precision not in _SPECIAL


#: Precisions that aren't in the file but in how it is run, so that one runtime alone has them.
_SPECIAL = ("bf16",)

#: In the order of preference where nothing was measured.
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("onnxruntime", "onnxruntime", "onnx"),
        Kind("openvino", "openvino", "onnx", ("fp32", "bf16", "int8")),
        Kind("tflite", "ai_edge_litert", "tflite"),
    )
}


def approved(bundle: Bundle, precision: str) -> PrecisionCard:
    """The card's entry of an approved precision.

    Raises:
        BundleError: the bundle has none of that name, or it isn't approved.
    """
    card = bundle.card
    found = card.precisions.get(precision)
    if found is None or not found.approved:
        names = [name for name, item in card.precisions.items() if item.approved]
        reason = "" if found is None else f" {found.metric.get('reason', '')}".rstrip()
        raise BundleError(
            f"The bundle of {card.task!r} has no approved precision {precision!r}.{reason}",
            hint=f"Approved: {', '.join(names) or 'none'}.",
        )
    return found


def kind_for(precision: str, item: PrecisionCard, runtime: str | None = None) -> Kind:
    """The runtime of that name, or the preferred one, for a precision.

    Raises:
        UsageError: there is no runtime of that name.
        BundleError: that runtime, or any, doesn't run this precision.
    """
    if runtime is not None and runtime not in KINDS:
        raise UsageError(f"There is no runtime {runtime!r}.", hint=f"Known: {', '.join(KINDS)}.")
    for kind in KINDS.values():
        if runtime in (None, kind.name) and kind.runs(precision, item):
            return kind
    raise BundleError(
        f"{runtime or 'No runtime here'} runs no {precision!r} of the format {item.format!r}.",
        hint="Choose another precision, such as fp32.",
    )


def load(kind: Kind, bundle: Bundle, precision: str, threads: int | None = None) -> Runtime:
    """Load a precision's file with one runtime, without holding it against the golden answers.

    Raises:
        ServingError: the runtime isn't installed, or this processor lacks the precision.
        BundleError: it can't load the file.
    """
    path = bundle.path(bundle.card.precisions[precision].file)
    if kind.name == "openvino":
        from serving.core.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(path, bundle.card, precision, threads)
    if kind.name == "tflite":
        from serving.core.runtimes.tflite import TfliteRuntime

        return TfliteRuntime(path, bundle.card, precision, threads)
    from serving.core.runtimes.onnx import OnnxRuntime

    return OnnxRuntime(path, bundle.card, precision, threads)
