"""Proof that what was promoted is what serves: every target is asked, and the bundle there answers."""

from components.base import component


@component
def deploy(task: str, version: str) -> str:
    """See that each target serves the version, and hold the copy on this machine to its golden answers.

    The promotion itself turns the pointer and patches the cluster, since a crash in between must be undone
    as one; this step proves from outside that it did.

    Args:
        task: The task's name.
        version: The version that was promoted.

    Returns:
        The targets that serve it, with a comma between.
    """
    from components.steps import step

    with step("deploy") as say:
        from data.errors import RegistryError
        from data.paths import home
        from serving.core.bundle import Bundle
        from serving.core.pointer import read_pointer
        from training.registry.client import Registry
        from training.registry.rescore import hold_to_golden
        from training.registry.targets import default_targets

        registry = Registry()
        wanted = registry.get(task, version)
        targets = default_targets(registry)
        for target in targets:
            if not target.serves(wanted):
                raise RegistryError(
                    f"The target {target.name} does not serve {task} version {version} after its promotion.",
                    hint="retiderm models reconcile, then run again.",
                )
        pointer = read_pointer(home().serving, task)
        if pointer is not None:
            hold_to_golden(Bundle.open(pointer.folder(home().serving)))
        names = ", ".join(target.name for target in targets)
        say(f"served by {names}; golden answers hold")
        return names
