"""The drift pipeline: one look at the recent answers of a task's champion, for a recurring run.

It trains nothing and takes no source. Its output, whether an alarm stands, is for whatever starts a
retraining.
"""

from dataclasses import dataclass, field
from typing import Any

from kfp import dsl

from components.drift import drift
from pipelines.request import Request
from pipelines.shape import Configure, Placing, Shape
from serving.core.drift import Settings
from training.spec.parts import DRIFT_STEPS as STEPS
from training.task import Task

#: Windows change, their address doesn't.
NEVER_CACHED = frozenset(STEPS)


def build(configure: Configure | None = None, *, name: str = "drift", fresh: bool = False) -> Any:
    """The pipeline, its one step handed to ``configure``. ``fresh`` changes nothing: it always looks."""
    placed = Placing(configure, fresh=fresh, never=NEVER_CACHED)

    def pipeline(task: str, windows: str, level: float = 0.01, size: int = 200) -> bool:
        made = placed("drift", drift(task=task, windows=windows, level=level, size=size))
        return made.outputs["Output"]  # type: ignore[no-any-return]

    return dsl.pipeline(pipeline, name=name, description=f"{', '.join(STEPS)}.")


def drift_shape(task: Task) -> Shape:
    """The pipeline as those see it who compile or submit it; it has neither run nor judged answers."""
    return Shape(
        name="drift",
        steps=STEPS,
        build=build,
        arguments=lambda body: {},
        run_step="",
        judged_step="",
        never_cached=NEVER_CACHED,
    )


@dataclass(frozen=True, slots=True)
class Look(Request):
    """What a look is asked for. ``source`` are the windows: the gateway's address, or a folder."""

    settings: Settings = field(default_factory=Settings)

    @property
    def shape(self) -> Shape:
        """The pipeline that it runs."""
        return drift_shape(self.task)

    def arguments(self, source_digest: str) -> dict[str, Any]:
        """The pipeline's arguments."""
        return {
            "task": self.task.name,
            "windows": self.source,
            "level": self.settings.level,
            "size": self.settings.size,
        }
