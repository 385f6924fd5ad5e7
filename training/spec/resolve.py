"""The checks of a task file beyond types and limits; each names the place and what was probably meant."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from data.errors import TaskError, UsageError
from training.spec.parts import (
    ANOMALY_METRICS,
    ANOMALY_STEPS,
    DRIFT_STEPS,
    LOOP_STEPS,
    METRICS,
    NAME,
    STEPS,
    GateSpec,
    HeadEntry,
    HeadSpec,
    StepSpec,
)
from training.spec.patchcore import PatchCoreSpec
from training.spec.reader import coerce, near
from training.spec.recipe import Recipe

if TYPE_CHECKING:
    from data.preprocess import Preprocessing
    from data.quality.profile import QualityProfile

_VAL_METRICS = ("auc", "kappa", "accuracy", "balanced_accuracy", "nll")
#: The classes of an anomaly task's head, in the order of its scores: the second is what is looked for.
OK_NG = ("ok", "ng")


def heads_of(entries: Mapping[str, HeadEntry]) -> tuple[HeadSpec, ...]:
    """The heads of ``heads:``, each with a name, two classes or more, and titles that fit."""
    if not entries:
        raise TaskError("`heads` is empty.", hint="Name at least one head with its classes.")
    heads = []
    for name, entry in entries.items():
        where = f"heads.{name}"
        if not NAME.match(name):
            raise TaskError(
                f"`{where}`: {name!r} is no name.", hint="Use lower-case letters, digits, underscores."
            )
        if len(entry.classes) < 2:
            raise TaskError(f"`{where}.classes` has {len(entry.classes)} classes and needs at least 2.")
        for label in entry.classes:
            if not NAME.match(label):
                raise TaskError(
                    f"`{where}.classes`: {label!r} is no class name.",
                    hint="Use lower-case letters, digits and underscores; words for people go to `titles`.",
                )
        twice = sorted({label for label in entry.classes if entry.classes.count(label) > 1})
        if twice:
            raise TaskError(f"`{where}.classes` holds {twice[0]!r} twice.")
        if entry.titles and len(entry.titles) != len(entry.classes):
            raise TaskError(
                f"`{where}.titles` has {len(entry.titles)} entries for {len(entry.classes)} classes."
            )
        heads.append(
            HeadSpec(name, entry.classes, titles=entry.titles, ordinal=entry.ordinal, weight=entry.weight)
        )
    if not any(head.weight > 0 for head in heads):
        raise TaskError("Every head's `weight` is 0, so nothing would be learned.")
    return tuple(heads)


def patchcore_of(kind: str, given: PatchCoreSpec | None, heads: Sequence[HeadSpec]) -> PatchCoreSpec | None:
    """The section ``patchcore:`` of an anomaly task, defaults when left out; None for other kinds."""
    if kind != "anomaly":
        if given is not None:
            raise TaskError(
                "`patchcore` belongs to tasks of `kind: anomaly`.", hint="Set `kind`, or drop it."
            )
        return None
    if len(heads) != 1 or heads[0].classes != OK_NG:
        found = "; ".join(f"{head.name}: {', '.join(head.classes)}" for head in heads)
        raise TaskError(
            f"A task of kind anomaly has one head with the classes ok and ng, in this order, not {found}.",
            hint="Write heads: {status: {classes: [ok, ng]}}.",
        )
    spec = given or PatchCoreSpec()
    if spec.neighbourhood % 2 == 0:
        raise TaskError(f"`patchcore.neighbourhood` is {spec.neighbourhood} and must be odd.")
    if len(set(spec.layers)) != len(spec.layers):
        raise TaskError("`patchcore.layers` names a level twice.")
    return spec


def check_metrics(kind: str, train: Recipe, gate: GateSpec, heads: Sequence[HeadSpec]) -> None:
    """Every metric that training or the gate is told must exist for this kind and these heads."""
    names = {head.name for head in heads}
    chosen = train.val_metric
    known = ANOMALY_METRICS if kind == "anomaly" else METRICS
    for place, given, allowed in (
        ("train.val_metric", chosen if isinstance(chosen, dict) else {chosen: 1.0}, (*_VAL_METRICS, "auto")),
        ("gate.floors", gate.floors, known),
        ("gate.margin.metric", {gate.margin.metric: 0.0}, [name for name in known if name in METRICS]),
    ):
        for metric in given:
            head, dot, rest = metric.rpartition(".")
            if rest not in allowed or (rest == "auto" and (dot or isinstance(chosen, dict))):
                raise TaskError(f"`{place}`: {metric!r} is no metric.", hint=near(rest, allowed))
            if dot and head not in names:
                raise TaskError(f"`{place}`: there is no head {head!r}.", hint=near(head, names))


def check_steps(kind: str, steps: Mapping[str, StepSpec]) -> None:
    """Every entry of ``steps:`` must be a step of the kind's pipeline; timeout and secrets as written."""
    known = (*(ANOMALY_STEPS if kind == "anomaly" else STEPS), *LOOP_STEPS, *DRIFT_STEPS, "default")
    for name, step in steps.items():
        if name not in known:
            raise TaskError(f"`steps.{name}` is no step.", hint=near(name, known))
        if step.timeout is not None and not re.fullmatch(r"\d+(\.\d+)?[smhd]", step.timeout):
            raise TaskError(f"`steps.{name}.timeout` is {step.timeout!r}.", hint="Write 90s, 30m or 2h.")
        for variable, secret in step.secrets.items():
            if secret.count("/") != 1 or not all(secret.split("/")):
                raise TaskError(f"`steps.{name}.secrets.{variable}` must be secret/key, not {secret!r}.")


def check_train(train: Recipe) -> None:
    """Pairs of the recipe that must be in order."""
    for place in ("scale", "erase_area"):
        low, high = getattr(train.augment, place)
        if low > high:
            raise TaskError(
                f"`train.augment.{place}` is [{low:g}, {high:g}].", hint="Write the smaller first."
            )


def preprocessing_of(given: Mapping[str, Any], size: tuple[int, int]) -> Preprocessing:
    """The preprocessing of ``preprocessing:`` at the task's input size."""
    from data.preprocess import Preprocessing

    known = {field.name for field in dataclasses.fields(Preprocessing)} - {"size"}
    for key in given:
        if key not in known:
            meant = "Set `input_size` instead." if key == "size" else near(key, known)
            raise TaskError(f"`preprocessing.{key}` is not known.", hint=meant)
    try:
        return Preprocessing.from_dict({**Preprocessing().to_dict(), "size": list(size), **given})
    except UsageError as error:
        raise TaskError(f"`preprocessing`: {error.message}", hint=error.hint) from error
    except (TypeError, ValueError) as error:
        raise TaskError(f"`preprocessing`: {error}") from error


def quality_of(given: str | Mapping[str, Any]) -> QualityProfile:
    """A profile by name, a file made by ``retiderm data calibrate-quality``, or changes to a profile."""
    from data.quality.profile import PROFILES, QualityProfile

    try:
        if isinstance(given, str):
            if given in PROFILES:
                return PROFILES[given]
            path = Path(given)
            if not path.is_file():
                raise TaskError(
                    f"`quality`: {given!r} is no profile and no file.", hint=near(given, PROFILES)
                )
            given = coerce(dict[str, Any], yaml.safe_load(path.read_text(encoding="utf-8")), "quality")
        changes: dict[str, Any] = dict(given)  # type: ignore[arg-type]
        base = str(changes.pop("base", None) or changes.get("name"))
        start = PROFILES[base].to_dict() if base in PROFILES else {}
        return QualityProfile.from_dict({**start, **changes})
    except TaskError:
        raise
    except UsageError as error:
        raise TaskError(f"`quality`: {error.message}", hint=error.hint) from error
    except (TypeError, ValueError, KeyError) as error:
        raise TaskError(f"`quality`: {error!r}") from error
