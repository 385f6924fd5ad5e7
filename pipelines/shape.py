"""What all pipelines have in common, and which one a kind of task takes.

A pipeline is a module ``pipelines.<name>`` with a :class:`Shape` named ``SHAPE``. What runs it, compiles it
or reads its results knows the shape alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.task import Task

#: What to do to a step's task after it is made, by the step's name: resources, secrets and so on.
Configure = Callable[[str, Any], None]

#: The module of the pipeline that a kind of task takes.
PIPELINES: Mapping[str, str] = {"classification": "classifier", "anomaly": "anomaly"}

#: They change the world outside the run, so they always run.
NEVER_CACHED = frozenset({"register", "gate", "promote", "deploy"})


@dataclass(frozen=True, slots=True)
class Shape:
    """A pipeline as those see it who don't care what it computes.

    ``build(configure, name=…, fresh=…)`` makes the kfp pipeline. ``arguments`` gives, of a resolved task as
    plain JSON values, the parameters that only this pipeline has. The MLflow run's id is the output of
    ``run_step``, and ``judged_step`` puts out the ``evaluation`` of the answers as they are served.
    """

    name: str
    steps: tuple[str, ...]
    build: Callable[..., Any]
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]
    run_step: str
    judged_step: str
    #: The rule that splits a source where none is asked for; empty: the source's own or the default.
    split: str = ""
    never_cached: frozenset[str] = NEVER_CACHED

    def seed(self, task: Task) -> int:
        """The seed that a task names for everything random."""
        return task.train.seed if task.patchcore is None else task.patchcore.seed


def shape_of(task: Task) -> Shape:
    """The pipeline that a task takes, by its kind."""
    found: Shape = importlib.import_module(f"pipelines.{PIPELINES[task.kind]}").SHAPE
    return found


class Placing:
    """Lays what a step asks for, and whether it may come from the cache, on each task of a pipeline.

    ``fresh`` never takes the dataset from the cache: a recurring run must look at its source each time.
    ``never`` names the steps that are never taken from there.
    """

    def __init__(
        self, configure: Configure | None, *, fresh: bool, never: frozenset[str] = NEVER_CACHED
    ) -> None:
        self._configure, self._fresh, self._never = configure, fresh, never

    def __call__(self, step: str, task: Any) -> Any:
        """Give the task back."""
        if step in self._never or (self._fresh and step == "ingest"):
            task.set_caching_options(False)
        if self._configure is not None:
            self._configure(step, task)
        return task
