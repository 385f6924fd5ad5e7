"""An accepted version becomes the champion: ledger, aliases, then every place that serves."""

from kfp import dsl

from components.base import component


@component
def promote(
    task: str,
    version: str,
    actor: str,
    receipt: dsl.Output[dsl.Artifact],
) -> str:
    """Promote a version, whole or not at all; what an earlier crash left half done is finished first.

    Args:
        task: The task's name.
        version: The version that the gate accepted.
        actor: Who asked, for the ledger.
        receipt: JSON: what was promoted where, and what served before.

    Returns:
        The version.
    """
    from components.steps import step

    with step("promote") as say:
        from pathlib import Path

        from data.files import write_json
        from training.registry.client import Registry
        from training.registry.promotion import promote as carry_out

        registry = Registry()
        done = carry_out(registry, registry.get(task, version), who=actor or None)
        write_json(Path(receipt.path), done.to_dict())
        before = f" (before: version {done.before})" if done.before and done.before != version else ""
        say(f"version {version} is champion{before}" if done.changed else f"version {version} serves already")
        return version
