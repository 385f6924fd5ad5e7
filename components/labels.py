"""Labels from review, checked against the dataset that they are added to."""

from typing import NamedTuple

from kfp import dsl

from components.base import component


@component
def labels(
    task: str,
    export: str,
    base: str,
    wishes: str,
    trigger: str,
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Labels", [("source", str), ("source_digest", str), ("Output", str)]):  # type: ignore[valid-type]
    """Pull the labels, check them, and say what they come to.

    Args:
        task: The resolved task as JSON.
        export: Where labels come from: a folder, a zip, or the gateway's address. Its token is read from
            RETIDERM_REVIEW_TOKEN.
        base: The canonical dataset that they are added to; empty for the newest that the loop kept.
        wishes: JSON: whether labels may be corrected, the test part extended, and the like.
        trigger: JSON: what must have gathered for the rest to run; see ``training.loop.due``.
        report: A folder: what the labels come to, and how readers agree.

    Returns:
        The source that ingest reads, its digest, and ``due``, or ``wait`` where too little has gathered.
    """
    from components.steps import step

    with step("labels") as say:
        import json
        from collections import namedtuple
        from pathlib import Path

        from training.loop.collect import Wishes, collect
        from training.loop.due import Trigger, judge
        from training.loop.report import changes, write_report
        from training.loop.status import learned_from
        from training.registry.client import Registry
        from training.task import task_from_dict

        spec = task_from_dict(json.loads(task))
        found = collect(spec.name, spec.heads, export, base, Wishes.from_dict(json.loads(wishes)))
        write_report(found.report, Path(report.path))
        asked = Trigger.from_dict(json.loads(trigger))
        registry = Registry()
        champion = registry.champion(spec.name) if asked.drift and not asked.always else None
        said = judge(
            spec.name,
            asked,
            found.report,
            serves=champion.digest if champion else "",
            learned=learned_from(registry, spec.name) if asked.always and not asked.anyway else (),
        )
        say(f"{changes(found.report)} new or changed labels: {said.sentence}")
        outputs = namedtuple("outputs", ["source", "source_digest", "Output"])
        return outputs(found.source, found.digest, "due" if said.due else "wait")
