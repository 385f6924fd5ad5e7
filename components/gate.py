"""The recorded comparison that a version must win before it may serve."""

from kfp import dsl

from components.base import component


@component
def gate(
    task: str,
    version: str,
    dataset: dsl.Input[dsl.Dataset],
    promotes: bool,
    decision: dsl.Output[dsl.Artifact],
) -> str:
    """Judge a version by the task's gate. A refusal is a result, not an error.

    Args:
        task: The resolved task as JSON.
        version: The version in the registry.
        dataset: The canonical dataset's folder, to ask again where stored test answers are missing.
        promotes: Whether an accepted version is to be promoted by this run.
        decision: JSON: accept or refuse, the reasons, every comparison.

    Returns:
        ``promote``, ``hold`` (accepted, but this run doesn't promote) or ``refuse``.
    """
    from components.steps import step

    with step("gate") as say:
        import json
        from pathlib import Path

        from data.dataset import Dataset
        from data.files import write_json
        from training.registry.client import Registry
        from training.registry.gate import GateRules, judge
        from training.task import task_from_dict

        spec, registry = task_from_dict(json.loads(task)), Registry()
        found = judge(
            registry,
            registry.get(spec.name, version),
            GateRules.of(spec.gate),
            dataset=Dataset.open(Path(dataset.path)),
        )
        write_json(Path(decision.path), found.to_dict())
        say(f"{found.headline}: {' '.join(found.reasons)}")
        if not found.accepted:
            return "refuse"
        return "promote" if promotes else "hold"
