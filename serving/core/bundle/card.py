"""The bundle's card: everything that a server, a gate or a reader must know about a model, in one JSON file.

``docs/bundle.md`` says what each field means to those who read cards; the format is frozen as ``FORMAT`` 1.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data.errors import BundleError, ParityError
from serving.core.bundle.codec import from_plain, to_plain

FORMAT = 1

KINDS = ("classification", "anomaly")

#: What `parity` must hold before a bundle is registered, each with `passed`, by the kind of model.
PROOFS: Mapping[str, tuple[str, ...]] = {
    # torch (or the imported original) and ONNX Runtime; Grad-CAM and autograd; the started server and offline
    "classification": ("onnx", "cam", "served"),
    # scores from torch's features and from ONNX Runtime's; the started server and offline
    "anomaly": ("features", "served"),
}

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BundleError(message, hint="Correct what wrote the card, and export the bundle again.")


@dataclass(frozen=True, slots=True)
class HeadCard:
    """One thing that the model predicts, and how its logits become an answer.

    ``probabilities = softmax((logits + bias) / temperature)``. The set holds the most probable class and each
    class whose probability is at least ``1 - qhat``. The answer is uncertain when the highest probability is
    below ``uncertain_below``. A head as constructed here without calibration puts every class in the set.
    """

    name: str
    classes: tuple[str, ...]
    titles: tuple[str, ...] = ()
    ordinal: bool = False
    temperature: float = 1.0
    bias: tuple[float, ...] | None = None
    coverage: float | None = None
    qhat: float = 1.0
    uncertain_below: float = 0.0
    calibrated_on: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(self.name), "A head needs a name.")
        _require(len(self.classes) >= 2, f"Head {self.name!r} needs at least two classes.")
        _require(len(set(self.classes)) == len(self.classes), f"Head {self.name!r} names a class twice.")
        if not self.titles:
            object.__setattr__(self, "titles", self.classes)
        _require(len(self.titles) == len(self.classes), f"Head {self.name!r} needs one title a class.")
        _require(
            math.isfinite(self.temperature) and self.temperature > 0,
            f"Head {self.name!r}: the temperature must be above 0.",
        )
        _require(
            self.bias is None or (len(self.bias) == len(self.classes) and all(map(math.isfinite, self.bias))),
            f"Head {self.name!r} needs one finite bias a class, or none.",
        )
        _require(0 <= self.qhat <= 1, f"Head {self.name!r}: qhat must be between 0 and 1.")
        _require(0 <= self.uncertain_below <= 1.0, f"Head {self.name!r}: uncertain_below must be in 0 to 1.")
        _require(
            self.coverage is None or 0 < self.coverage < 1, f"Head {self.name!r}: coverage must be in 0 to 1."
        )


@dataclass(frozen=True, slots=True)
class InputCard:
    """The model's input tensor: ``uint8 [N, H, W, 3]``, RGB, preprocessed. ``size`` is (H, W).

    ``mean`` and ``std`` (on the 0 to 1 scale) are applied inside the graph; they are here for the record.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    name: str = "image"
    dtype: str = "uint8"
    layout: str = "NHWC"
    color: str = "RGB"


@dataclass(frozen=True, slots=True)
class WeightsCard:
    """Where the weights that training started from came from. ``source`` "none" means random."""

    source: str
    licence: str = ""
    sha256: str | None = None
    forbids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExplanationCard:
    """How the ``cam`` output was made: ``closed-form``, ``vjp`` or ``none``.

    ``max_error`` is the largest difference from autograd Grad-CAM that was measured at export; ``reason``
    says why a model has no explanation.
    """

    method: str = "none"
    max_error: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        _require(
            self.method in ("closed-form", "vjp", "none"), f"Unknown explanation method {self.method!r}."
        )


@dataclass(frozen=True, slots=True)
class PrecisionCard:
    """One numeric precision of the model. A predictor serves approved ones only.

    ``tolerance`` is the largest difference in uncalibrated probabilities from the golden answers at which a
    runtime still counts as this precision. ``metric`` is what approval rested on.
    """

    file: str
    format: str = "onnx"
    approved: bool = True
    tolerance: float = 1e-3
    metric: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """The data that the model learned from and was judged on."""

    digest: str
    test_digest: str
    source: str
    licences: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    synthetic: bool = False
    counts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileCard:
    """One file of the bundle."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        _require(_SHA256.fullmatch(self.sha256) is not None, f"Not a SHA-256: {self.sha256!r}.")
        _require(self.bytes >= 0, "A file's size can't be negative.")


@dataclass(frozen=True, slots=True)
class Card:
    """The whole card. ``files`` is filled in by ``write_bundle``."""

    task: str
    kind: str
    title: str
    created_at: str
    retiderm_version: str
    code_digest: str
    backbone: str
    input: InputCard
    preprocessing: Mapping[str, Any]
    preprocessing_digest: str
    quality: Mapping[str, Any]
    dataset: DatasetCard
    heads: tuple[HeadCard, ...] = ()
    weights: WeightsCard = WeightsCard("none")
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    explanation: ExplanationCard = ExplanationCard()
    precisions: Mapping[str, PrecisionCard] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    forbids: tuple[str, ...] = ()
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    run_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileCard] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        _require(self.format == FORMAT, _unknown_format(self.format))
        _require(_PART.fullmatch(self.task) is not None, f"{self.task!r} can't be a task's name.")
        _require(self.kind in KINDS, f"Unknown kind of model: {self.kind!r}.")
        _require(self.kind != "classification" or bool(self.heads), "A classification model needs a head.")
        names = [head.name for head in self.heads]
        _require(len(set(names)) == len(names), "Two heads have one name.")
        for digest in (self.preprocessing_digest, self.dataset.digest, self.dataset.test_digest):
            _require(_DIGEST.fullmatch(digest) is not None, f"Not a digest: {digest!r}.")
        for name in itertools.chain(self.files, (item.file for item in self.precisions.values())):
            check_name(name)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each head's classes lie in the model's ``logits`` and ``cam``."""
        found, start = {}, 0
        for head in self.heads:
            found[head.name] = slice(start, start + len(head.classes))
            start += len(head.classes)
        return found

    def head(self, name: str) -> HeadCard:
        """The head of that name; ``BundleError`` when there is none."""
        for head in self.heads:
            if head.name == name:
                return head
        raise BundleError(
            f"The model {self.task!r} has no head {name!r}.",
            hint=f"It has: {', '.join(head.name for head in self.heads)}.",
        )

    def require_parity(self) -> None:
        """Refuse a card whose proofs are incomplete; what registers a bundle calls this.

        Raises:
            ParityError: one of the kind's ``PROOFS`` is missing or failed.
        """
        found = self.parity
        wrong = [
            name
            for name in PROOFS[self.kind]
            if not (isinstance(found.get(name), Mapping) and found[name].get("passed"))
        ]
        if wrong:
            raise ParityError(
                f"The bundle of {self.task!r} has no proof of: {', '.join(wrong)}.",
                hint="Export it again with all checks, as retiderm run does.",
            )

    def to_dict(self) -> dict[str, Any]:
        """The card as plain JSON values."""
        plain: dict[str, Any] = to_plain(self)
        return {"format": plain.pop("format"), **plain}

    @classmethod
    def from_dict(cls, value: Any) -> Card:
        """Read a card strictly; ``BundleError`` names what is wrong and where."""
        if isinstance(value, Mapping) and value.get("format") != FORMAT:
            raise BundleError(_unknown_format(value.get("format")), hint="Upgrade retiderm, or export again.")
        return from_plain(cls, value, "card")


def check_name(name: str) -> str:
    """A file's name inside a bundle, if it stays inside: plain parts joined by ``/``, none hidden.

    Raises:
        BundleError: the name is absolute, climbs out, is hidden, or is ``card.json``.
    """
    parts = name.split("/")
    if name == "card.json" or len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise BundleError(
            f"{name!r} can't be a file's name in a bundle.",
            hint="Don't use this bundle: names lead outside it. Export it again from its run.",
        )
    return name


def _unknown_format(value: Any) -> str:
    return f"The bundle is of format {value!r}; this version reads format {FORMAT}."
