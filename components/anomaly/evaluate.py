"""What the memory says about the test images, and how good that is."""

from kfp import dsl

from components.base import component


@component
def evaluate(
    scoring: str,
    extractor: dsl.Input[dsl.Model],
    memory: dsl.Input[dsl.Model],
    calibration: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    code_digest: str,
    predictions: dsl.Output[dsl.Artifact],
    evaluation: dsl.Output[dsl.Metrics],
    pictures: dsl.Output[dsl.Artifact],
) -> str:
    """Score the test images, judge images and pixels, and record all of it as one MLflow run.

    Args:
        scoring: JSON: the part of the resolved task that scores depend on.
        extractor: The extractor's folder.
        memory: The memory's folder.
        calibration: The threshold and what it rests on.
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest, so that other content is no cache hit.
        code_digest: Of the code that scores and judges, likewise.
        predictions: A folder: ``test.npz`` (for the gate's paired comparison) and ``scores.npz``.
        evaluation: JSON: every test figure with its interval.
        pictures: A folder: curves, histograms and the worst images.

    Returns:
        The id of the MLflow run that holds the model's settings and figures.
    """
    from components.steps import step

    with step("evaluate") as say:
        import json
        from pathlib import Path

        from data.dataset import Dataset
        from data.files import read_json, write_json
        from serving.core.patchcore.calibrate import Calibration
        from training.patchcore.record import record
        from training.patchcore.report import judge
        from training.patchcore.scoring import open_scorer
        from training.task import task_from_dict

        task = task_from_dict(json.loads(scoring))
        threshold = Calibration.from_dict(read_json(Path(calibration.path)))
        scorer = open_scorer(task, Path(extractor.path), Path(memory.path))
        data = Dataset.open(Path(dataset.path))
        report = judge(
            scorer, threshold, data, task, predictions=Path(predictions.path), pictures=Path(pictures.path)
        )
        write_json(Path(evaluation.path), report)
        found = report["heads"][task.heads[0].name]
        told = {}
        for name in ("auc", "pixel_auroc", "pro", "f1", "balanced_accuracy"):
            value = found.get(name, {}).get("value")
            if value is not None:
                told[name] = value
                evaluation.log_metric(f"test.{name}", value)
        run = record(task, scorer, threshold, data, report, Path(memory.path), Path(pictures.path))
        say(", ".join(f"{name} {value:.3f}" for name, value in told.items()) or "nothing could be measured")
        return run
