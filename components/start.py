"""What a training begins with: the backbone's first weights, or the champion's."""

from components.base import component


@component
def start(task: str, recipe: str, warm: bool) -> str:
    """Give the recipe as it is, or with the champion's weights in it.

    Args:
        task: The task's name.
        recipe: JSON: the part of the resolved task that the weights depend on.
        warm: Whether to begin with the champion's weights.

    Returns:
        The recipe that training takes.
    """
    from components.steps import step

    with step("start") as say:
        if not warm:
            say("from scratch")
            return recipe
        import json

        from training.loop.warm import warm as begin
        from training.registry.client import Registry

        changed, champion = begin(Registry(), task, json.loads(recipe))
        say(f"from the weights of version {champion.version}")
        return json.dumps(changed)
