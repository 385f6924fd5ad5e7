"""The anomaly pipeline: from OK images (and some that are not) to a served memory of what is normal.

The same definition runs on this machine and on Kubeflow, as :mod:`pipelines.classifier` does; the steps
around the memory are that pipeline's own.
"""

import json
from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.anomaly.calibrate import calibrate
from components.anomaly.coreset import coreset
from components.anomaly.evaluate import evaluate
from components.anomaly.export import export
from components.anomaly.features import features
from components.deploy import deploy
from components.gate import gate
from components.ingest import ingest
from components.promote import promote
from components.register import register
from components.validate import validate
from pipelines.shape import NEVER_CACHED, Configure, Placing, Shape

__all__ = ["NEVER_CACHED", "SHAPE", "STEPS", "after_ingest", "build"]

#: In order.
STEPS = (
    "ingest",
    "validate",
    "features",
    "coreset",
    "calibrate",
    "evaluate",
    "export",
    "register",
    "gate",
    "promote",
    "deploy",
)

#: What scores depend on; the patches depend on all of it but what is said of ``patchcore`` below.
_SCORING = (
    "name",
    "title",
    "kind",
    "heads",
    "backbone",
    "weights",
    "input_size",
    "preprocessing",
    "patchcore",
)
_AFTER_THE_PATCHES = ("coreset_rate", "blur_sigma", "score")


def build(configure: Configure | None = None, *, name: str = "anomaly", fresh: bool = False) -> Any:
    """The pipeline, each of its tasks handed to ``configure``; ``fresh`` as in :class:`Placing`."""
    placed = Placing(configure, fresh=fresh)

    def pipeline(
        task_name: str,
        task: str,
        recipe: str,
        scoring: str,
        coreset_rate: float,
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
            scoring=scoring,
            coreset_rate=coreset_rate,
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
    scoring: Any,
    coreset_rate: Any,
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
    embedded = placed(
        "features",
        features(recipe=recipe, dataset=dataset, dataset_digest=digest, seed=seed, code_digest=model_code),
    ).after(checked)
    extractor = embedded.outputs["extractor"]
    chosen = placed(
        "coreset",
        coreset(
            extractor=extractor,
            patches=embedded.outputs["patches"],
            coreset_rate=coreset_rate,
            seed=seed,
            code_digest=model_code,
        ),
    )
    memory = chosen.outputs["memory"]
    calibrated = placed(
        "calibrate",
        calibrate(
            scoring=scoring,
            extractor=extractor,
            memory=memory,
            dataset=dataset,
            dataset_digest=digest,
            code_digest=model_code,
        ),
    )
    calibration = calibrated.outputs["calibration"]
    judged = placed(
        "evaluate",
        evaluate(
            scoring=scoring,
            extractor=extractor,
            memory=memory,
            calibration=calibration,
            dataset=dataset,
            dataset_digest=digest,
            code_digest=bundle_code,
        ),
    )
    predictions, evaluation = judged.outputs["predictions"], judged.outputs["evaluation"]
    exported = placed(
        "export",
        export(
            task=task,
            extractor=extractor,
            memory=memory,
            calibration=calibration,
            predictions=predictions,
            evaluation=evaluation,
            dataset=dataset,
            mlflow_run_id=judged.outputs["Output"],
            seed=seed,
            code_digest=bundle_code,
        ),
    )
    registered = placed(
        "register",
        register(
            bundle=exported.outputs["bundle"],
            predictions=predictions,
            evaluation=evaluation,
            pictures=judged.outputs["pictures"],
            mlflow_run_id=judged.outputs["Output"],
        ),
    )
    version = registered.outputs["Output"]
    decided = placed("gate", gate(task=task, version=version, dataset=dataset, promotes=promotes))
    with dsl.If(decided.outputs["Output"] == "promote", name="accepted"):
        promoted = placed("promote", promote(task=task_name, version=version, actor=actor))
        placed("deploy", deploy(task=task_name, version=promoted.outputs["Output"]))
    return decided


def _arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """Each step gets what its result depends on: another threshold rule costs no patches and no coreset."""
    scoring = {key: body[key] for key in _SCORING}
    patchcore = {key: value for key, value in body["patchcore"].items() if key not in _AFTER_THE_PATCHES}
    return {
        "recipe": json.dumps({**scoring, "patchcore": patchcore}),
        "scoring": json.dumps(scoring),
        "coreset_rate": body["patchcore"]["coreset_rate"],
    }


SHAPE = Shape(
    "anomaly", STEPS, build, _arguments, run_step="evaluate", judged_step="evaluate", split="one-class"
)
