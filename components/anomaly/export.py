"""Extractor, memory and threshold become a bundle, after every proof that it answers as it was judged."""

from kfp import dsl

from components.base import component


@component
def export(
    task: str,
    extractor: dsl.Input[dsl.Model],
    memory: dsl.Input[dsl.Model],
    calibration: dsl.Input[dsl.Artifact],
    predictions: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Metrics],
    dataset: dsl.Input[dsl.Dataset],
    mlflow_run_id: str,
    seed: int,
    code_digest: str,
    bundle: dsl.Output[dsl.Model],
) -> None:
    """Prove torch's features ↔ the extractor's on the whole test set, and served ↔ offline; write the bundle.

    Args:
        task: The resolved task as JSON: its words go on the card.
        extractor: The extractor's folder.
        memory: The memory's folder.
        calibration: The threshold and what it rests on.
        predictions: What the exported extractor's features scored on the test images.
        evaluation: The test figures for the card.
        dataset: The canonical dataset's folder: its test images are the proof's.
        mlflow_run_id: The run that holds its figures, for the card.
        seed: Of everything random.
        code_digest: Of the code that exports, so that a change is no cache hit.
        bundle: The bundle's folder.
    """
    from components.steps import step

    with step("export") as say:
        import json
        from pathlib import Path

        from data.dataset import Dataset
        from data.files import read_json
        from serving.core.patchcore.calibrate import Calibration
        from training.patchcore.build import seeded
        from training.patchcore.package import package
        from training.patchcore.scoring import Scored
        from training.task import task_from_dict

        made = package(
            seeded(task_from_dict(json.loads(task)), seed),
            Dataset.open(Path(dataset.path)),
            Path(extractor.path),
            Path(memory.path),
            Calibration.from_dict(read_json(Path(calibration.path))),
            Scored.load(Path(predictions.path) / "scores.npz"),
            read_json(Path(evaluation.path)),
            Path(bundle.path),
            run_id=mlflow_run_id,
        )
        bundle.metadata.update(digest=made.digest)
        proof = made.card.parity["features"]
        say(
            f"bundle {made.digest[:19]}, torch and ONNX within {proof['max_difference']:.1e} "
            f"on {proof['images']} test images"
        )
