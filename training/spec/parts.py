"""The smaller parts of a task file: heads, weights, calibration, gate, and what each pipeline step needs."""

# ruff: noqa: RUF009 - knob() is dataclasses.field() with a doc and limits
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.spec.reader import knob

#: Names of heads and classes: they become columns, tensor names and metric names.
NAME = re.compile(r"^[a-z][a-z0-9_]*$")

#: The classifier pipeline's steps, in order; ``default`` in a task's ``steps`` is meant for all of them.
STEPS = (
    "ingest",
    "validate",
    "train",
    "evaluate",
    "calibrate",
    "export",
    "register",
    "gate",
    "promote",
    "deploy",
)

#: What the pipeline ``retrain`` has beside those of the task's kind.
LOOP_STEPS = ("labels", "start", "keep")

#: The drift pipeline's.
DRIFT_STEPS = ("drift",)

#: The anomaly pipeline's: nothing is trained, but a memory is made of features.
ANOMALY_STEPS = (
    *STEPS[:2],
    "features",
    "coreset",
    "calibrate",
    "evaluate",
    *STEPS[5:],
)

#: Metrics that a gate can name; ``kappa`` is the quadratic one. Lower is better for the last two.
METRICS = ("auc", "accuracy", "balanced_accuracy", "kappa", "nll", "ece")

#: Those of a task of kind ``anomaly``: of images, and where there are masks of pixels and regions.
ANOMALY_METRICS = ("auc", "accuracy", "balanced_accuracy", "f1", "pixel_auroc", "pro")


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """One thing to predict: a name and its classes, in the order of the logits."""

    name: str
    classes: tuple[str, ...]
    titles: tuple[str, ...] = ()
    ordinal: bool = False
    weight: float = 1.0

    def title(self, index: int) -> str:
        """What a person reads for a class; its name where the task gives no titles."""
        return self.titles[index] if self.titles else self.classes[index].replace("_", " ")


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """A head as the file writes it, under its name."""

    classes: tuple[str, ...]
    titles: tuple[str, ...] = ()
    ordinal: bool = knob(False, "whether the classes are grades, least first")
    weight: float = knob(1.0, "of this head's loss", low=0, high=1000)


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """Where the backbone's first weights come from.

    ``source`` is ``default`` (ImageNet weights that come with the package, for ``tf_efficientnet_lite0``),
    ``hub``, ``none``, or a ``.safetensors`` or ``.pth`` file. A file's licence can't be known: state it.
    ``sha256`` (hex) is what that file must be: a path alone doesn't tell one content from another.
    """

    source: str = "default"
    licence: str | None = None
    forbids: tuple[str, ...] = ()
    sha256: str | None = None

    @property
    def file(self) -> Path | None:
        """The weights' file as named; ``None`` where ``source`` names no file."""
        return None if self.source in {"default", "hub", "none"} else Path(self.source).expanduser()

    @staticmethod
    def shorthand(value: Any, where: str) -> Mapping[str, Any]:
        """``weights: hub`` for ``weights: {source: hub}``."""
        return {"source": "none" if value is None else value}


@dataclass(frozen=True, slots=True)
class CalibrationSpec:
    """What calibration on validation data aims at."""

    coverage: float = knob(0.9, "how often a conformal set must hold the truth", low=0.5, high=0.999)
    uncertain_error: float | None = knob(
        0.2,
        "answers are marked uncertain below the confidence at which errors are this frequent",
        low=0,
        high=1,
    )
    bias: Literal["never", "auto", "always"] = knob(
        "never", "a shift a class beside the temperature; auto: where held-out NLL clearly falls"
    )
    bias_strength: float = knob(
        1.0,
        "how far the shift goes to true frequencies; below 1, labels keep leaning to rare classes",
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class Margin:
    """How a candidate is compared with the champion on the same test images."""

    metric: str = "auc"
    loss: float = knob(0.01, "how much worse than the champion it may be", low=0, high=1)
    confidence: float = knob(0.95, "of the paired bootstrap's interval", low=0.5, high=0.999)


@dataclass(frozen=True, slots=True)
class SliceMargin:
    """The gate's rule on groups: the worst slice of the test images against the champion's worst."""

    by: tuple[str, ...] = knob((), "columns of the dataset, for example ita_class; none: no such rule")
    loss: float | None = knob(
        None, "how much worse than the champion's the worst slice may be; the margin's loss when not given"
    )
    smallest: int = knob(30, "images below which a slice is not judged", low=2, high=100000)


@dataclass(frozen=True, slots=True)
class GateSpec:
    """What a model must show before it may become champion."""

    floors: dict[str, float] = knob(dict, "least value of a metric on test data, for a first version")
    margin: Margin = knob(Margin, "against the champion, on the same test images")
    slices: SliceMargin = knob(SliceMargin, "against the champion, on groups of the test images")
    requires_approval: bool = knob(False, "whether a person must approve a version")
    allowed_use: tuple[str, ...] = knob(
        (), "uses that data and weights must not forbid, for example commercial"
    )


@dataclass(frozen=True, slots=True)
class StepSpec:
    """What a pipeline step asks of a cluster; a laptop ignores it."""

    cpu: str | None = knob(None, "as Kubernetes writes it: 4, 500m")
    memory: str | None = knob(None, "as Kubernetes writes it: 16G, 2Gi")
    gpu: int = knob(0, "GPUs", low=0, high=64)
    gpu_resource: str = knob("nvidia.com/gpu", "the GPU's resource name")
    retries: int = knob(0, "how often a failed step is tried again", low=0, high=20)
    timeout: str | None = knob(None, "longest run: 30m, 2h")
    secrets: dict[str, str] = knob(dict, "environment variable: secret/key")
    node_selector: dict[str, str] = knob(dict, "labels of the nodes that may run it")
