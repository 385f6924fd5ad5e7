"""What a run is asked to do: the resolved task, the source, and the pipeline's arguments from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data.errors import SourceError

if TYPE_CHECKING:
    from pipelines.shape import Shape
    from training.task import Task


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked to do."""

    task: Task
    source: str
    seed: int = 0
    split: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cache: bool = True
    promote: bool = True
    actor: str = ""

    @property
    def shape(self) -> Shape:
        """The pipeline that it runs."""
        from pipelines.shape import shape_of

        return shape_of(self.task)

    def arguments(self, source_digest: str) -> dict[str, Any]:
        """The pipeline's arguments, the code's digests among them."""
        from pipelines.fingerprint import code_digests

        return {
            **task_arguments(self.task),
            "source": self.source,
            "source_digest": source_digest,
            "split": self.split or self.shape.split,
            "seed": self.seed,
            "promotes": self.promote,
            "actor": self.actor or user(),
            **code_digests(self.task.kind),
        }


def task_arguments(task: Task) -> dict[str, Any]:
    """What the pipeline is told of a task.

    Ingest gets the heads and the quality profile alone, so that another recipe is no new dataset; the rest is
    the pipeline's own cut (:class:`pipelines.shape.Shape`). A file of weights goes along by its SHA-256, so
    that another content is another training. Keys stay in the task's order, since that of the heads is the
    order of the logits.
    """
    from pipelines.shape import shape_of

    body = task.pinned().to_dict()
    return {
        "task_name": task.name,
        "task": json.dumps(body),
        **shape_of(task).arguments(body),
        "heads": json.dumps({head.name: list(head.classes) for head in task.heads}),
        "quality": json.dumps(task.quality.to_dict(), sort_keys=True),
    }


def resolve(
    task: str,
    source: str,
    *,
    profile: str | None = None,
    backbone: str | None = None,
    settings: Sequence[str] = (),
    split: str = "",
    elsewhere: bool = False,
) -> tuple[Task, dict[str, Any]]:
    """The task as it will run, and the overrides by dotted key.

    Opens the source only to learn its profile, so that a mistyped source is told before anything starts.
    ``elsewhere``: the source's files are on the cluster; only its kind is looked at.

    Raises:
        SourceError: there is no such kind of source, or nothing at that path.
        TaskError: there is no such task or setting.
        UsageError: the split is no rule.
    """
    from data.dataset import Head
    from data.sources import KINDS, open_source, parse_spec
    from data.splits import Rule
    from training.task import load_task

    if split:
        Rule.parse(split)
    overrides = overrides_of(backbone, settings)
    plain = load_task(task, overrides=overrides)
    if profile is None:
        heads = [Head(head.name, head.classes) for head in plain.heads]
        try:
            profile = open_source(source, task=plain.name, heads=heads).profile
        except SourceError:
            if not elsewhere:
                raise
            profile = getattr(KINDS.get(parse_spec(source).kind), "profile", None)
    return load_task(task, profile=profile, overrides=overrides), overrides


def overrides_of(backbone: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """``--backbone`` and ``--set`` as changes to a task, by dotted key."""
    from training.task import parse_settings

    overrides = parse_settings(settings)
    return overrides if backbone is None else {**overrides, "backbone": backbone}


def user() -> str:
    """Who asks, for the ledger."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
