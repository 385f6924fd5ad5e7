"""A trained model's answers on validation and test images, and how good they are."""

from kfp import dsl

from components.base import component


@component
def evaluate(
    model: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    code_digest: str,
    predictions: dsl.Output[dsl.Artifact],
    evaluation: dsl.Output[dsl.Metrics],
) -> None:
    """Predict, then judge the test answers as the network gave them, before any calibration.

    Args:
        model: The training's folder.
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest, so that other content is no cache hit.
        code_digest: Of the code that predicts and judges, likewise.
        predictions: A folder with ``val.npz`` and ``test.npz``: ids, logits, labels, embeddings.
        evaluation: The test figures before calibration.
    """
    from components.steps import step

    with step("evaluate") as say:
        from pathlib import Path

        from data.dataset import Dataset
        from data.files import atomic_dir, write_json
        from training.evaluate import evaluate as judge
        from training.model import load_model
        from training.predict import predict

        network, task = load_model(Path(model.path))
        data = Dataset.open(Path(dataset.path))
        with atomic_dir(Path(predictions.path)) as folder:
            for split in ("val", "test"):
                found = predict(network, data, split, task=task)
                found.save(folder / f"{split}.npz")
        report = judge(found, task.heads, bootstrap=0)
        write_json(Path(evaluation.path), report)
        lines = []
        for name, head in report["heads"].items():
            auc = head["auc"]["value"]  # None where the test images are of one class
            if auc is not None:
                evaluation.log_metric(f"{name}.auc", auc)
            lines.append(f"{name} AUC n/a" if auc is None else f"{name} AUC {auc:.3f}")
        say(", ".join(lines))
