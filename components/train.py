"""A checked dataset becomes a trained model, with its curves in MLflow."""

from kfp import dsl

from components.base import component


@component
def train(
    recipe: str,
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    seed: int,
    code_digest: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Fit the task's model; a training that was killed goes on from its checkpoint.

    Args:
        recipe: JSON: the part of the resolved task that the weights depend on.
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest; part of the name of the folder that training works in.
        seed: Of everything random.
        code_digest: Of the code that trains, likewise.
        model: The run's folder: weights, recipe, history, curves.
        metrics: What the chosen epoch showed on validation data.

    Returns:
        The id of the MLflow run that holds the training.
    """
    from components.steps import step

    with step("train") as say:
        import json
        from pathlib import Path

        from components.work import publish, training_key, work_folder
        from data.dataset import Dataset
        from data.files import write_json
        from training.fit import fit
        from training.task import task_from_dict

        task = task_from_dict(json.loads(recipe))
        key = training_key(task=task.training_digest, dataset=dataset_digest, seed=seed, code=code_digest)
        with work_folder(key) as work:
            result = fit(task, Dataset.open(Path(dataset.path)), work, seed=seed)
            publish(work, Path(model.path))
        write_json(Path(metrics.path), result.to_dict())
        for head, found in result.val.items():
            for name, value in found.items():
                metrics.log_metric(f"val.{head}.{name}", float(value))
        say(f"{result.summary}{' (resumed)' if result.resumed else ''}")
        return result.run_id or ""
