"""Temperature, conformal sets and the threshold of doubt, from validation answers alone."""

from kfp import dsl

from components.base import component


@component
def calibrate(
    task: str,
    predictions: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    code_digest: str,
    calibration: dsl.Output[dsl.Artifact],
    evaluation: dsl.Output[dsl.Metrics],
    pictures: dsl.Output[dsl.Artifact],
) -> None:
    """Fit each head's calibration on validation data, then judge the test answers as they will be served.

    Args:
        task: The resolved task as JSON.
        predictions: What the model said about validation and test images.
        dataset: The canonical dataset's folder, for its slices.
        code_digest: Of the code that calibrates and judges, so that a change is no cache hit.
        calibration: JSON: each head's calibration.
        evaluation: JSON: every test figure with its interval, the slices, the bands.
        pictures: A folder with the confusion matrix, ROC curves and reliability diagram.
    """
    from components.steps import step

    with step("calibrate") as say:
        import json
        from pathlib import Path

        from data.dataset import Dataset
        from data.files import write_json
        from training.calibrate import calibrate_heads
        from training.evaluate import evaluate as judge
        from training.predict import Predictions
        from training.task import task_from_dict

        spec = task_from_dict(json.loads(task))
        said = {split: Predictions.load(Path(predictions.path) / f"{split}.npz") for split in ("val", "test")}
        fitted = calibrate_heads(said["val"], spec)
        write_json(Path(calibration.path), {name: head.to_dict() for name, head in fitted.items()})
        frame = Dataset.open(Path(dataset.path)).split("test")
        report = judge(said["test"], spec.heads, frame, calibration=fitted, pictures=Path(pictures.path))
        write_json(Path(evaluation.path), report)
        lines = []
        for name, head in report["heads"].items():
            told = head["calibration"]
            if head["auc"]["value"] is not None:  # the test images are of one class
                evaluation.log_metric(f"{name}.auc", head["auc"]["value"])
            evaluation.log_metric(f"{name}.ece", told["ece_after"])
            lines.append(
                f"{name} NLL {told['nll_before']:.3f} → {told['nll_after']:.3f}, "
                f"ECE {told['ece_after']:.3f} (band {told['ece_band'][0]:.3f}–{told['ece_band'][1]:.3f})"
            )
        say("; ".join(lines))
