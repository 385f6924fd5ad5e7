"""The dataset of a version that was judged is kept as the base of the next one."""

from kfp import dsl

from components.base import component


@component
def keep(dataset: dsl.Input[dsl.Dataset], dataset_digest: str) -> None:
    """Keep a dataset under the home, where the next labels find it.

    Args:
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest.
    """
    from components.steps import step

    with step("keep") as say:
        from pathlib import Path

        from data.dataset import Dataset
        from training.loop.places import keep as put

        put(Dataset.open(Path(dataset.path)))
        say(f"{dataset_digest[:19]} is the base of the next version")
