"""A trained model becomes a bundle, after every proof that it answers as it did in training."""

from kfp import dsl

from components.base import component


@component
def export(
    task: str,
    model: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Metrics],
    calibration: dsl.Input[dsl.Artifact],
    mlflow_run_id: str,
    code_digest: str,
    bundle: dsl.Output[dsl.Model],
) -> None:
    """Export to ONNX and prove torch ↔ ONNX Runtime, Grad-CAM ↔ autograd, and served ↔ offline.

    Args:
        task: The resolved task as JSON: its words go on the card.
        model: The training's folder.
        dataset: The canonical dataset's folder: its test images are the proof's.
        evaluation: The test figures for the card.
        calibration: Each head's calibration.
        mlflow_run_id: The run that trained it, for the card.
        code_digest: Of the code that exports, so that a change is no cache hit.
        bundle: The bundle's folder.
    """
    from components.steps import step

    with step("export") as say:
        import json
        from pathlib import Path

        from data.dataset import Dataset
        from data.files import read_json
        from training.calibrate import HeadCalibration
        from training.export.build import package, trained
        from training.model import load_model
        from training.task import task_from_dict

        fitted = {
            name: HeadCalibration.from_dict(value)
            for name, value in read_json(Path(calibration.path)).items()
        }
        network, _ = load_model(Path(model.path))
        made = package(
            network,
            task_from_dict(json.loads(task)),
            Dataset.open(Path(dataset.path)),
            read_json(Path(evaluation.path)),
            fitted,
            Path(bundle.path),
            run_id=mlflow_run_id,
            extra=trained(Path(model.path)),
        )
        bundle.metadata.update(digest=made.digest)
        say(f"bundle {made.digest[:19]}, parity holds")
