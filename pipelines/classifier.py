"""The classifier pipeline: from a source of labelled images to a served model, one definition for all places.

:mod:`pipelines.local` runs it on this machine as it is; :mod:`pipelines.cluster` hands :func:`build` what a
task asks of a cluster (resources, GPU, secrets, retries) and compiles it to YAML for Kubeflow.
"""

import json
from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.calibrate import calibrate
from components.deploy import deploy
from components.evaluate import evaluate
from components.export import export
from components.gate import gate
from components.ingest import ingest
from components.promote import promote
from components.register import register
from components.train import train
from components.validate import validate
from pipelines.shape import NEVER_CACHED, Configure, Placing, Shape

__all__ = ["NEVER_CACHED", "SHAPE", "STEPS", "after_ingest", "build"]

#: In order. The last four change the world outside the run, so they are never cached.
STEPS = (
    "ingest",
    "validate",
    "train",
    "evaluate",
    "calibrate",
    "export",
    "register",
    "gate",
    "promote",
    "deploy",
)

#: What the weights depend on.
_RECIPE = ("name", "title", "heads", "backbone", "weights", "input_size", "preprocessing", "train")


def build(configure: Configure | None = None, *, name: str = "classifier", fresh: bool = False) -> Any:
    """The pipeline, each of its tasks handed to ``configure``; ``fresh`` as in :class:`Placing`."""
    placed = Placing(configure, fresh=fresh)

    def pipeline(
        task_name: str,
        task: str,
        recipe: str,
        heads: str,
        quality: str,
        source: str,
        source_digest: str,
        split: str,
        seed: int,
        promotes: bool,
        actor: str,
        data_code: str,
        model_code: str,
        bundle_code: str,
    ) -> None:
        made = placed(
            "ingest",
            ingest(
                task=task_name,
                heads=heads,
                quality=quality,
                source=source,
                source_digest=source_digest,
                split=split,
                code_digest=data_code,
            ),
        )
        after_ingest(
            placed,
            made,
            task_name=task_name,
            task=task,
            recipe=recipe,
            seed=seed,
            promotes=promotes,
            actor=actor,
            data_code=data_code,
            model_code=model_code,
            bundle_code=bundle_code,
        )

    return dsl.pipeline(pipeline, name=name, description=f"{', '.join(STEPS)}.")


def after_ingest(
    placed: Placing,
    made: Any,
    *,
    task_name: Any,
    task: Any,
    recipe: Any,
    seed: Any,
    promotes: Any,
    actor: Any,
    data_code: Any,
    model_code: Any,
    bundle_code: Any,
) -> Any:
    """Every step after ``made``, the one that put out the dataset; gives the gate's task."""
    dataset, digest = made.outputs["dataset"], made.outputs["Output"]
    checked = placed("validate", validate(dataset=dataset, dataset_digest=digest, code_digest=data_code))
    fitted = placed(
        "train",
        train(recipe=recipe, dataset=dataset, dataset_digest=digest, seed=seed, code_digest=model_code),
    ).after(checked)
    model = fitted.outputs["model"]
    judged = placed(
        "evaluate",
        evaluate(model=model, dataset=dataset, dataset_digest=digest, code_digest=bundle_code),
    )
    predictions = judged.outputs["predictions"]
    calibrated = placed(
        "calibrate",
        calibrate(task=task, predictions=predictions, dataset=dataset, code_digest=bundle_code),
    )
    evaluation = calibrated.outputs["evaluation"]
    exported = placed(
        "export",
        export(
            task=task,
            model=model,
            dataset=dataset,
            evaluation=evaluation,
            calibration=calibrated.outputs["calibration"],
            mlflow_run_id=fitted.outputs["Output"],
            code_digest=bundle_code,
        ),
    )
    registered = placed(
        "register",
        register(
            bundle=exported.outputs["bundle"],
            predictions=predictions,
            evaluation=evaluation,
            pictures=calibrated.outputs["pictures"],
            mlflow_run_id=fitted.outputs["Output"],
        ),
    )
    version = registered.outputs["Output"]
    decided = placed("gate", gate(task=task, version=version, dataset=dataset, promotes=promotes))
    with dsl.If(decided.outputs["Output"] == "promote", name="accepted"):
        promoted = placed("promote", promote(task=task_name, version=version, actor=actor))
        placed("deploy", deploy(task=task_name, version=promoted.outputs["Output"]))
    return decided


def _arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """Training gets only what the weights depend on: another floor of the gate is no new training."""
    return {"recipe": json.dumps({key: body[key] for key in _RECIPE})}


SHAPE = Shape("classifier", STEPS, build, _arguments, run_step="train", judged_step="calibrate")
