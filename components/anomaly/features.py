"""The frozen network becomes an extractor, and the OK training images become patches."""

from kfp import dsl

from components.base import component


@component
def features(
    recipe: str,
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    seed: int,
    code_digest: str,
    extractor: dsl.Output[dsl.Model],
    patches: dsl.Output[dsl.Artifact],
) -> None:
    """Export the extractor to ONNX, then embed the OK training images with what will serve.

    Args:
        recipe: JSON: the part of the resolved task that the patches depend on.
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest, so that other content is no cache hit.
        seed: Of the sampling, and of a random projection where there is one.
        code_digest: Of the code that makes features, likewise.
        extractor: A folder: ``extractor.onnx`` and ``extractor.json``.
        patches: A folder: the OK training images' patches, at most the task's ``max_patches``.
    """
    from components.steps import step

    with step("features") as say:
        import json
        from pathlib import Path

        from data.dataset import Dataset
        from serving.core.patchcore.extractor import Extractor
        from training.patchcore.build import a_few, collect, network, seeded
        from training.patchcore.export import export_extractor
        from training.task import task_from_dict

        task = seeded(task_from_dict(json.loads(recipe)), seed)
        data = Dataset.open(Path(dataset.path))
        export_extractor(network(task), task, Path(extractor.path), images=a_few(data, task))
        opened = Extractor.open(Path(extractor.path))
        found = collect(task, data, opened, Path(patches.path), seed=seed)
        height, width = found.grid
        copies = f" ({found.copies} with copies)" if found.copies != found.images else ""
        say(
            f"{len(found):,} of {found.made:,} patches of {found.images} OK images{copies}, "
            f"{height}×{width} of {found.array.shape[1]} an image"
        )
