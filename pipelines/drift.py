"""The drift pipeline: one look at the recent answers of a task's champion, for a recurring run.

A pipeline of its own and no :class:`~pipelines.shape.Shape`: it trains nothing and takes no source. Its
output, whether the newest window alarms, is for whatever starts a retraining.
"""

from typing import Any

from kfp import dsl

from components.drift import drift
from pipelines.shape import Configure


def build(configure: Configure | None = None, *, name: str = "drift") -> Any:
    """The pipeline, its task handed to ``configure``. Never cached: windows change, their folder doesn't."""

    def pipeline(task: str, windows: str, level: float = 0.01, size: int = 200) -> bool:
        made = drift(task=task, windows=windows, level=level, size=size)
        made.set_caching_options(False)
        if configure is not None:
            configure("drift", made)
        return made.outputs["Output"]  # type: ignore[no-any-return]

    return dsl.pipeline(name=name)(pipeline)
