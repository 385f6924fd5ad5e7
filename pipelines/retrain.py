"""The pipeline ``retrain``: labels from review and a dataset become the next candidate for champion.

In front of the pipeline that the task's kind takes (:mod:`pipelines.classifier`, :mod:`pipelines.anomaly`)
stand ``labels``, which pulls and checks them and says whether it is time, and for a classifier ``start``,
which says what training begins with; ``keep`` keeps the dataset of a version that was judged, as the next
base. All other steps are that pipeline's own.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kfp import dsl

from components.ingest import ingest
from components.keep import keep
from components.labels import labels
from components.start import start
from pipelines import anomaly, classifier
from pipelines.request import Request
from pipelines.shape import NEVER_CACHED as ALWAYS_RUN
from pipelines.shape import Configure, Placing, Shape, shape_of
from training.loop.collect import Wishes
from training.loop.due import Trigger
from training.task import Task

#: They look at what is outside the run, or change it.
NEVER_CACHED = ALWAYS_RUN | {"labels", "start", "keep"}

#: What is in front of each kind's pipeline.
_FRONT = {"classification": ("labels", "start"), "anomaly": ("labels",)}
_DUE = "due"


def steps(kind: str) -> tuple[str, ...]:
    """The steps for a kind of task, in order."""
    own = {"classification": classifier.STEPS, "anomaly": anomaly.STEPS}[kind]
    return (*_FRONT[kind], *own[:-2], "keep", *own[-2:])


def build_classifier(
    configure: Configure | None = None, *, name: str = "retrain", fresh: bool = False
) -> Any:
    """The pipeline for a classifier, as :func:`pipelines.classifier.build`.

    ``fresh`` changes nothing: ``labels`` always runs, and says what ingest's source holds.
    """
    placed = Placing(configure, fresh=False, never=NEVER_CACHED)

    def pipeline(
        task_name: str,
        task: str,
        recipe: str,
        heads: str,
        quality: str,
        export: str,
        base: str,
        wishes: str,
        trigger: str,
        warm: bool,
        seed: int,
        promotes: bool,
        actor: str,
        data_code: str,
        model_code: str,
        bundle_code: str,
    ) -> None:
        pulled = _labels(placed, task=task, export=export, base=base, wishes=wishes, trigger=trigger)
        with dsl.If(pulled.outputs["Output"] == _DUE, name="time"):
            begun = placed("start", start(task=task_name, recipe=recipe, warm=warm))
            # After it, so that where there is nothing to start from nothing else is begun.
            made = _ingest(placed, pulled, task_name, heads, quality, data_code).after(begun)
            decided = classifier.after_ingest(
                placed,
                made,
                task_name=task_name,
                task=task,
                recipe=begun.outputs["Output"],
                seed=seed,
                promotes=promotes,
                actor=actor,
                data_code=data_code,
                model_code=model_code,
                bundle_code=bundle_code,
            )
            _keep(placed, made, decided)

    return dsl.pipeline(pipeline, name=name, description=f"{', '.join(steps('classification'))}.")


def build_anomaly(configure: Configure | None = None, *, name: str = "retrain", fresh: bool = False) -> Any:
    """The pipeline for a memory of what is normal, as :func:`build_classifier`."""
    placed = Placing(configure, fresh=False, never=NEVER_CACHED)

    def pipeline(
        task_name: str,
        task: str,
        recipe: str,
        scoring: str,
        coreset_rate: float,
        heads: str,
        quality: str,
        export: str,
        base: str,
        wishes: str,
        trigger: str,
        seed: int,
        promotes: bool,
        actor: str,
        data_code: str,
        model_code: str,
        bundle_code: str,
    ) -> None:
        pulled = _labels(placed, task=task, export=export, base=base, wishes=wishes, trigger=trigger)
        with dsl.If(pulled.outputs["Output"] == _DUE, name="time"):
            made = _ingest(placed, pulled, task_name, heads, quality, data_code)
            decided = anomaly.after_ingest(
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
            _keep(placed, made, decided)

    return dsl.pipeline(pipeline, name=name, description=f"{', '.join(steps('anomaly'))}.")


def _labels(placed: Placing, **given: Any) -> Any:
    return placed("labels", labels(**given))


def _ingest(placed: Placing, pulled: Any, task_name: Any, heads: Any, quality: Any, data_code: Any) -> Any:
    return placed(
        "ingest",
        ingest(
            task=task_name,
            heads=heads,
            quality=quality,
            source=pulled.outputs["source"],
            source_digest=pulled.outputs["source_digest"],
            split="",  # the base's own
            code_digest=data_code,
        ),
    )


def _keep(placed: Placing, made: Any, decided: Any) -> None:
    """Once there is a version that learned from it: until then its labels count as new."""
    kept = keep(dataset=made.outputs["dataset"], dataset_digest=made.outputs["Output"])
    placed("keep", kept).after(decided)


_BUILDS = {"classification": build_classifier, "anomaly": build_anomaly}


def retrain_shape(task: Task) -> Shape:
    """The pipeline as those see it who run, compile or submit it."""
    own = shape_of(task)
    return dataclasses.replace(
        own,
        name="retrain",
        steps=steps(task.kind),
        build=partial(_BUILDS[task.kind]),
        split="",
        never_cached=NEVER_CACHED,
    )


@dataclass(frozen=True, slots=True)
class Retrain(Request):
    """What a retraining is asked to do. ``source`` is ``review:`` and where the labels come from.

    ``base`` is the dataset that they are added to, empty for the loop's newest. A version that the gate lets
    through becomes challenger, and serves only where ``promote`` says so.
    """

    export: str = ""
    base: str = ""
    wishes: Wishes = field(default_factory=Wishes)
    trigger: Trigger = field(default_factory=Trigger)
    warm: bool = False

    @property
    def shape(self) -> Shape:
        """The pipeline that it runs."""
        return retrain_shape(self.task)

    def arguments(self, source_digest: str) -> dict[str, Any]:
        """The pipeline's arguments, the code's digests among them."""
        given = Request.arguments(self, source_digest)
        for name in ("source", "source_digest", "split"):  # what labels put out
            del given[name]
        if self.task.kind == "classification":
            given["warm"] = self.warm
        return {
            **given,
            "export": self.export,
            "base": self.base,
            "wishes": json.dumps(self.wishes.to_dict()),
            "trigger": json.dumps(self.trigger.to_dict()),
        }
