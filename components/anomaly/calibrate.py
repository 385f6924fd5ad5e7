"""The threshold, from images that the memory doesn't hold."""

from kfp import dsl

from components.base import component


@component
def calibrate(
    scoring: str,
    extractor: dsl.Input[dsl.Model],
    memory: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    code_digest: str,
    calibration: dsl.Output[dsl.Artifact],
    scores: dsl.Output[dsl.Artifact],
) -> None:
    """Choose the threshold by the rule of the anomaly service, from OK validation images.

    Images that are not OK help where the training and validation splits have some: no memory holds them.

    Args:
        scoring: JSON: the part of the resolved task that scores depend on.
        extractor: The extractor's folder.
        memory: The memory's folder.
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest, so that other content is no cache hit.
        code_digest: Of the code that calibrates, likewise.
        calibration: JSON, as ``calib.json`` holds it.
        scores: A folder with what was scored for it.
    """
    from components.steps import step

    with step("calibrate") as say:
        import json
        from pathlib import Path

        from data.dataset import Dataset
        from data.files import write_json
        from training.patchcore.scoring import calibrate_memory, open_scorer
        from training.task import task_from_dict

        task = task_from_dict(json.loads(scoring))
        scorer = open_scorer(task, Path(extractor.path), Path(memory.path))
        found = calibrate_memory(scorer, Dataset.open(Path(dataset.path)), task, Path(scores.path))
        write_json(Path(calibration.path), found.calibration.to_dict())
        say(
            f"threshold {found.calibration.threshold:.4f} from {found.ok} OK"
            + (f" and {found.ng} NG images" if found.ng else " images")
        )
