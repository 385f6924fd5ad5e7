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
        mlflow_run_id: The run that trained it; where MLflow has it no longer, a run is opened.

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
        # A training from the cache may outlive its run: deleted, or kept in another MLflow.
        run = mlflow_run_id if registry.has_run(mlflow_run_id) else None
        if run is None:
            print("MLflow has no active run of this training, so the version gets a run of its own.")
        version = registry.register(
            opened,
            run,
            Path(predictions.path) / "test.npz",
            evaluation=read_json(Path(evaluation.path)),
            files=sorted(Path(pictures.path).glob("*.png")),
        )
        say(f"{version.task} version {version.version}")
        return version.version
