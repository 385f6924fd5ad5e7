"""A checked dataset becomes a trained model, with its curves in MLflow."""

from kfp import dsl

from components.base import component


@component
def train(
    task: str,
    dataset: dsl.Input[dsl.Dataset],
    dataset_digest: str,
    seed: int,
    code_digest: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Fit the task's model; a training that was killed goes on from its checkpoint.

    Args:
        task: The resolved task as JSON.
        dataset: The canonical dataset's folder.
        dataset_digest: Its digest; part of the name of the folder that training works in.
        seed: Of everything random.
        code_digest: Of the code that trains, likewise.
        model: The run's folder: weights, task, history, curves.
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

        spec = task_from_dict(json.loads(task))
        key = training_key(task=spec.digest, dataset=dataset_digest, seed=seed, code=code_digest)
        with work_folder(key) as work:
            result = fit(spec, Dataset.open(Path(dataset.path)), work, seed=seed, resume=True)
            publish(work, Path(model.path))
        write_json(Path(metrics.path), result.to_dict())
        say(result.summary)
        return result.run_id
