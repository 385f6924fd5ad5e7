"""A task: one thing to predict, described by one YAML file.

``load_task("dr_grading")`` reads a task that comes with the package, ``load_task("my/task.yaml")`` one of
your own. A file's ``profiles`` hold what differs for a kind of source (28 px thumbnails, dermoscopes); a
profile and then the caller's overrides are laid over the file before it is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from data.errors import TaskError, UsageError
from data.files import digest_json, sha256_file
from training.spec.export import ExportSpec
from training.spec.parts import (
    NAME,
    CalibrationSpec,
    GateSpec,
    HeadEntry,
    HeadSpec,
    StepSpec,
    WeightsSpec,
)
from training.spec.patchcore import PatchCoreSpec
from training.spec.reader import build, knob, near, plain
from training.spec.recipe import Augment, Balance, Recipe
from training.spec.resolve import (
    check_metrics,
    check_steps,
    check_train,
    heads_of,
    patchcore_of,
    preprocessing_of,
    quality_of,
)

if TYPE_CHECKING:
    from data.preprocess import Preprocessing
    from data.quality.profile import QualityProfile

__all__ = ["Augment", "Balance", "HeadSpec", "Recipe", "StepSpec", "Task", "load_task", "task_names"]

TASKS = Path(__file__).resolve().parent / "tasks"


@dataclass(frozen=True, slots=True)
class _File:
    """A task file's keys as written, after profile and overrides."""

    name: str
    title: str
    heads: dict[str, HeadEntry]
    kind: Literal["classification", "anomaly"] = "classification"
    backbone: str = "tf_efficientnet_lite0"
    weights: WeightsSpec = dataclasses.field(default_factory=WeightsSpec)
    input_size: int | tuple[int, int] = knob(224, "side, or [height, width]", low=16, high=2048)
    preprocessing: dict[str, Any] = dataclasses.field(default_factory=dict)
    quality: str | dict[str, Any] = "photo"
    train: Recipe = dataclasses.field(default_factory=Recipe)
    calibration: CalibrationSpec = dataclasses.field(default_factory=CalibrationSpec)
    gate: GateSpec = dataclasses.field(default_factory=GateSpec)
    export: ExportSpec = dataclasses.field(default_factory=ExportSpec)
    steps: dict[str, StepSpec] = dataclasses.field(default_factory=dict)
    profile: str | None = None
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    patchcore: PatchCoreSpec | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task, read and checked. ``to_dict`` writes it so that :func:`load_task` reads it back equal."""

    name: str
    title: str
    kind: str
    heads: tuple[HeadSpec, ...]
    backbone: str
    weights: WeightsSpec
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    quality: QualityProfile
    train: Recipe
    calibration: CalibrationSpec
    gate: GateSpec
    export: ExportSpec
    steps: Mapping[str, StepSpec]
    profile: str | None
    intended_use: str
    limits: tuple[str, ...]
    references: tuple[str, ...]
    patchcore: PatchCoreSpec | None = None
    """Of kind ``anomaly`` only, and always there."""

    def head(self, name: str) -> HeadSpec:
        """The head of that name."""
        for head in self.heads:
            if head.name == name:
                return head
        raise TaskError(
            f"Task {self.name} has no head {name!r}.", hint=near(name, (h.name for h in self.heads))
        )

    def step(self, name: str) -> StepSpec:
        """What a pipeline step asks of a cluster: its own entry, or the task's ``default``."""
        return self.steps.get(name) or self.steps.get("default") or StepSpec()

    def to_dict(self) -> dict[str, Any]:
        """What JSON and YAML hold; every value stated, profiles already applied."""
        body = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in {"heads", "preprocessing", "quality"}
        }
        written: dict[str, Any] = plain(body)
        written["heads"] = {
            head.name: {key: value for key, value in plain(head).items() if key != "name"}
            for head in self.heads
        }
        preprocessing = self.preprocessing.to_dict()
        preprocessing.pop("size", None)  # input_size says it already
        written["preprocessing"] = preprocessing
        written["quality"] = self.quality.to_dict()
        if self.patchcore is None:
            written.pop("patchcore")  # so that no other task's digest knows of it
        return written

    def pinned(self) -> Task:
        """This task with the SHA-256 of its weights' file, where it names one that is there."""
        path = self.weights.file
        if self.weights.sha256 is not None or path is None or not path.is_file():
            return self
        weights = dataclasses.replace(self.weights, sha256=sha256_file(path))
        return dataclasses.replace(self, weights=weights)

    def _digested(self) -> dict[str, Any]:
        body = self.pinned().to_dict()
        # A list, since the heads' order is that of the logits, and a digest sorts the keys of a mapping.
        return {**body, "heads": [{"name": name, **head} for name, head in body["heads"].items()]}

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` over what can change the model or its judgement, not words and resources."""
        left_out = {"steps", "title", "intended_use", "limits", "references"}
        return digest_json({k: v for k, v in self._digested().items() if k not in left_out})

    @property
    def training_digest(self) -> str:
        """``sha256:<hex>`` over what can change the trained weights, the seed apart."""
        body = self._digested()
        kept = {key: body[key] for key in _MODEL_KEYS}
        if self.patchcore is not None:  # nothing is fitted by gradient, so that the recipe says nothing
            del kept["train"]
            return digest_json({**kept, "patchcore": body["patchcore"]})
        kept["train"] = {key: value for key, value in body["train"].items() if key not in _NOT_THE_MODEL}
        return digest_json(kept)


_MODEL_KEYS = ("heads", "backbone", "weights", "input_size", "preprocessing", "train")
_NOT_THE_MODEL = ("seed", "checkpoint_seconds")


def task_names() -> tuple[str, ...]:
    """The tasks that come with the package."""
    return tuple(sorted(path.stem for path in TASKS.glob("*.yaml")))


def task_path(name_or_path: str | Path) -> Path:
    """The file of a task that comes with the package, or of one's own."""
    text = str(name_or_path)
    if text in task_names():
        return TASKS / f"{text}.yaml"
    path = Path(text)
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml", ".json"} or "/" in text:
        raise TaskError(f"There is no task file {text}.", hint="Give the path of a YAML file.")
    raise TaskError(
        f"There is no task {text!r}.",
        hint=near(text, task_names()) + " A path to a YAML file is taken too.",
    )


def load_task(
    name_or_path: str | Path,
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Task:
    """Read a task, lay the source's profile and then ``overrides`` over it, and check everything.

    ``overrides`` may be nested (``{"train": {"epochs": 3}}``) or dotted (``{"train.epochs": 3}``). A profile
    that the file doesn't mention changes nothing: most sources need no special treatment.

    Raises :class:`TaskError` that names the key, what is wrong with it and what is near.
    """
    path = task_path(name_or_path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, Mapping):
        raise TaskError(f"{path} must hold a mapping of keys to values.", hint="See docs/tasks.md.")
    return task_from_dict(raw, profile=profile, overrides=overrides)


def task_from_dict(
    raw: Mapping[str, Any],
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Task:
    """As :func:`load_task`, from what a file holds."""
    body = dict(raw)
    profiles = body.pop("profiles", None) or {}
    if not isinstance(profiles, Mapping):
        raise TaskError("`profiles` must be a mapping of profile names to what differs for them.")
    if profile is not None:
        changes = profiles.get(profile)
        if changes is not None and not isinstance(changes, Mapping):
            raise TaskError(f"`profiles.{profile}` must be a mapping.")
        body = merge(body, changes or {})
        body["profile"] = profile
    body = merge(body, undot(overrides or {}))
    return _resolve(build(_File, body, ""))


def profile_names(name_or_path: str | Path) -> tuple[str, ...]:
    """The profiles that a task file has something to say about."""
    raw = yaml.safe_load(task_path(name_or_path).read_text(encoding="utf-8"))
    return tuple(raw.get("profiles") or {})


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` laid over ``base``, mapping by mapping; anything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        # `heads` is replaced whole: two sets of classes can't be mixed.
        if (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and key not in {"heads", "floors", "val_metric"}
        ):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def undot(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``{"train.epochs": 3}`` as ``{"train": {"epochs": 3}}``."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        head, _, rest = str(key).partition(".")
        entry = undot({rest: value}) if rest else (undot(value) if isinstance(value, Mapping) else value)
        if isinstance(entry, Mapping) and isinstance(nested.get(head), Mapping):
            nested[head] = merge(nested[head], entry)
        else:
            nested[head] = entry
    return nested


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``["train.epochs=3", "weights=hub"]`` as overrides; values are read as YAML."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{setting!r} is not KEY=VALUE.", hint="For example: --set train.epochs=10")
        try:
            overrides[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"The value of {key.strip()} can't be read: {error}") from error
    return overrides


def _resolve(file: _File) -> Task:
    if not NAME.match(file.name):
        raise TaskError(f"`name` is {file.name!r}.", hint="Use lower-case letters, digits and underscores.")
    heads = heads_of(file.heads)
    size = (file.input_size, file.input_size) if isinstance(file.input_size, int) else file.input_size
    check_metrics(file.kind, file.train, file.gate, heads)
    check_steps(file.kind, file.steps)
    check_train(file.train)
    return Task(
        name=file.name,
        title=file.title,
        kind=file.kind,
        heads=heads,
        backbone=file.backbone,
        weights=file.weights,
        input_size=size,
        preprocessing=preprocessing_of(file.preprocessing, size),
        quality=quality_of(file.quality),
        train=file.train,
        calibration=file.calibration,
        gate=file.gate,
        steps=file.steps,
        profile=file.profile,
        intended_use=file.intended_use.strip(),
        limits=file.limits,
        references=file.references,
        export=file.export,
        patchcore=patchcore_of(file.kind, file.patchcore, heads),
    )
