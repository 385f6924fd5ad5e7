"""A bundle becomes a version in the registry."""

from kfp import dsl

from components.base import component


@component
def register(
    bundle: dsl.Input[dsl.Model],
    predictions: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Metrics],
    pictures: dsl.Input[dsl.Artifact],
    mlflow_run_id: str,
) -> str:
    """Register a bundle with what it was judged by; the same bundle again is the version that it already is.

    Args:
        bundle: The bundle's folder.
        predictions: What it said about the test images, for the gate's paired comparison.
        evaluation: The test figures.
        pictures: Confusion matrix, ROC curves, reliability diagram.
        mlflow_run_id: The run that trained it.

    Returns:
        The version.
    """
    from components.steps import step

    with step("register") as say:
        from pathlib import Path

        from data.files import read_json
        from serving.core.bundle import Bundle
        from training.registry.client import Registry

        registry, opened = Registry(), Bundle.open(Path(bundle.path))
        # A run keeps one bundle: where an earlier version has this training's, the new one gets its own run.
        taken = any(
            version.run_id == mlflow_run_id and version.digest != opened.digest
            for version in registry.versions(opened.card.task)
        )
        version = registry.register(
            opened,
            None if taken else mlflow_run_id,
            Path(predictions.path) / "test.npz",
            evaluation=read_json(Path(evaluation.path)),
            files=sorted(Path(pictures.path).glob("*.png")),
        )
        say(f"{version.task} version {version.version}")
        return version.version
