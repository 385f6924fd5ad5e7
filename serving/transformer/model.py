"""One task as its clients see it: image files in, quality first, then the predictor, then the explanation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from kserve import InferRequest, Model

from data.errors import ImageError
from data.image import DecodeLimits
from serving.answer import ImageAnswer
from serving.explain import encode_png
from serving.identity import ModelInfo
from serving.kinds.base import Form, Result
from serving.kserve_ext.errors import NoneDecodable, PreprocessingMismatch, Unavailable
from serving.kserve_ext.gate import Gate, Workers
from serving.kserve_ext.tensors import from_base64
from serving.metrics import CLASSES, REQUESTS, UNCERTAIN, VERDICTS, step
from serving.preparing import Ready, Recipe
from serving.transformer.observed import Observed, observe
from serving.transformer.outputs import response_parameters, tensors
from serving.transformer.questions import Question, from_v1, from_v2
from serving.transformer.upstream import PredictorClient, Upstream

# How often a request is prepared anew while versions with different preprocessing replace each other.
_TRIES = 4

#: The modes of a challenger that isn't to be asked: not yet, since the predictor loads it, or no more.
STARTING, WITHDRAWN = "starting", "withdrawn"

_LOG = logging.getLogger("retiderm.serving")


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of one transformer share. ``look`` reads the pointers again, now."""

    client: Callable[[], PredictorClient]
    gate: Gate
    workers: Workers
    limits: DecodeLimits
    max_batch: int
    look: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Answered:
    """A question's answers, how they look, how the images were prepared, and what was seen of them."""

    images: list[ImageAnswer]
    form: Form
    recipe: Recipe
    features: Observed | None


class TransformerModel(Model):  # type: ignore[misc]
    """Answers encoded images. One object a task for the process's life; ``use`` gives it a new version."""

    def __init__(self, recipe: Recipe, shared: Shared) -> None:
        super().__init__(recipe.served.name)
        self._recipe, self._previous, self._shared = recipe, recipe, shared
        self._proved: ModelInfo | None = None
        self._leaving = False
        self.ready = True

    def use(self, recipe: Recipe) -> None:
        """Prepare images as a new version's card says; the old way is kept for a predictor that lags."""
        if recipe.preprocessing.digest != self._recipe.preprocessing.digest:
            self._previous = self._recipe
        self._recipe, self._leaving = recipe, False

    def leave(self) -> None:
        """It was withdrawn: say so to who looks, and answer on for who hasn't looked yet."""
        self._leaving = True

    @property
    def proved(self) -> bool:
        """Whether the predictor has answered for it."""
        return self._proved is not None

    @property
    def challenges(self) -> bool:
        """Whether it answers beside a champion."""
        return bool(self._recipe.served.mode)

    @property
    def version(self) -> str:
        """The registry's version."""
        return self._recipe.served.version

    def start(self) -> None:
        """Nothing: a recipe is ready when it exists."""

    def stop(self) -> None:
        """Nothing to free."""

    async def healthy(self) -> bool:
        """Whether the predictor serves this task; proved once by an inference, with a black image."""
        client = self._shared.client()
        if self._proved is None:
            recipe = self._recipe
            black = np.zeros((1, *recipe.card.input.size, 3), np.uint8)
            try:
                upstream = await client.infer(
                    self.name,
                    black,
                    recipe.preprocessing.digest,
                    explain=recipe.explanation.map_shape is not None,
                )
            except Exception as error:
                # Asked often while a predictor starts; the reason is there for who looks for it.
                _LOG.debug("%s is not ready: %s", self.name, error)
                return False
            self._proved = upstream.model
        return await client.is_ready(self.name)

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Answer V1 and V2."""
        return await self._serve(payload, explain=False)

    async def explain(self, payload: Any, headers: Any = None) -> Any:
        """Answer V1's ``:explain``: the same with an overlay for every image."""
        return await self._serve(payload, explain=True)

    async def _serve(self, payload: Any, *, explain: bool) -> Any:
        wire = ("grpc" if payload.from_grpc else "v2") if isinstance(payload, InferRequest) else "v1"
        try:
            with step(self.name, "total"), self._shared.gate.enter():
                most = self._shared.max_batch
                question = (
                    from_v1(payload, explain=explain, max_batch=most)
                    if wire == "v1"
                    else from_v2(payload, max_batch=most)
                )
                answered = await self._answer(question)
        except Exception as error:
            REQUESTS.labels(self.name, wire, getattr(error, "code", "internal")).inc()
            raise
        REQUESTS.labels(self.name, wire, "ok").inc()
        answers, recipe = answered.images, answered.recipe
        self._count(answers)
        if wire == "v1":
            return {"predictions": [answer.to_dict() for answer in answers]}
        mode = question.explain[0]
        shown = recipe.explanation
        form, seen = answered.form, answered.features
        outputs = tensors(answers, form, explain=mode, map_shape=shown.map_shape, features=seen)
        model = answers[0].model
        return outputs.respond(
            payload,
            version=model.version,
            parameters=response_parameters(
                model, form, shown.unavailable if mode in ("overlay", "map") else None, seen
            ),
        )

    async def _answer(self, question: Question) -> _Answered:
        recipe, ready, upstream = await self._ask_until_matched(question)
        form = recipe.form
        model = self._identity(recipe)
        results: Sequence[Result] = ()
        if upstream is not None:
            model, form, results = upstream.model, upstream.form, upstream.images
        answers = await self._explained(question, recipe, ready, results, model)
        seen = None
        if question.features:
            with step(self.name, "features"):
                seen = await self._shared.workers.run(observe, recipe, ready, upstream)
        return _Answered(answers, form, recipe, seen)

    async def _ask_until_matched(
        self, question: Question
    ) -> tuple[Recipe, list[Ready | ImageError], Upstream | None]:
        recipe = self._recipe
        for _ in range(_TRIES):
            try:
                return recipe, *(await self._ask(question, recipe))
            except PreprocessingMismatch:
                # A new version is on its way in: the predictor has it and we don't, or the other way round.
                await self._shared.look()
                tried = recipe.preprocessing.digest
                both = (self._recipe, self._previous)
                recipe = next((r for r in both if r.preprocessing.digest != tried), recipe)
        raise Unavailable(f"{self.name!r} is changing its version.", retry_after=1)

    async def _ask(
        self, question: Question, recipe: Recipe
    ) -> tuple[list[Ready | ImageError], Upstream | None]:
        shared = self._shared
        with step(self.name, "prepare"):
            prepared = await asyncio.gather(
                *(shared.workers.run(_prepare, recipe, image, shared.limits) for image in question.images)
            )
        errors = [item for item in prepared if isinstance(item, ImageError)]
        if len(errors) == len(prepared):
            raise _all_failed(errors)
        pixels = [item.pixels for item in prepared if isinstance(item, Ready) and item.gradable]
        if not pixels:
            return prepared, None
        mapped = any(mode in ("overlay", "map") for mode in question.explain)
        explain = mapped and recipe.explanation.map_shape is not None
        with step(self.name, "predictor"):
            upstream = await shared.client().infer(
                self.name,
                np.stack(pixels),
                recipe.preprocessing.digest,
                explain=explain,
                features=question.features,
            )
        self._proved = upstream.model
        return prepared, upstream

    async def _explained(
        self,
        question: Question,
        recipe: Recipe,
        prepared: Sequence[Ready | ImageError],
        results: Sequence[Result],
        model: ModelInfo,
    ) -> list[ImageAnswer]:
        why = recipe.explanation.unavailable
        following = iter(results)
        answers = []
        for item, mode in zip(prepared, question.explain, strict=True):
            if isinstance(item, ImageError):
                answers.append(ImageAnswer(model, error=item))
                continue
            if not item.gradable:
                answers.append(ImageAnswer(model, verdict=item.verdict))
                continue
            result, picture, view = next(following), None, None
            if result.map is not None and mode == "overlay":
                with step(self.name, "overlay"):
                    picture = await self._shared.workers.run(result.overlay, item.pixels)
            elif mode == "view":
                view = await self._shared.workers.run(encode_png, item.pixels)
            answers.append(
                ImageAnswer(
                    model,
                    verdict=item.verdict,
                    result=result.placed(item.placement) if item.placement is not None else result,
                    overlay=picture,
                    map=result.map if mode == "map" else None,
                    view=view,
                    unexplained=why if mode in ("overlay", "map") else None,
                )
            )
        return answers

    def _identity(self, recipe: Recipe) -> ModelInfo:
        proved = self._proved
        precision = proved.precision if proved else "unknown"
        # What ran another version need not be what runs this one.
        runtime = proved.runtime if proved and proved.digest == recipe.served.digest else ""
        return ModelInfo.of(recipe.served, recipe.card, precision, runtime)

    def _count(self, answers: Sequence[ImageAnswer]) -> None:
        for answer in answers:
            verdict = answer.error.code if answer.error else answer.verdict.verdict if answer.verdict else ""
            VERDICTS.labels(self.name, verdict).inc()
            for head, label, uncertain in answer.result.counts() if answer.result is not None else ():
                CLASSES.labels(self.name, answer.model.version, head, label).inc()
                if uncertain:
                    UNCERTAIN.labels(self.name, head).inc()

    def get_input_types(self) -> list[dict[str, Any]]:
        """V2 metadata."""
        return [{"name": "image", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """V2 metadata; ``overlay`` and ``map`` come when they are asked for."""
        types = [{"name": n, "datatype": "BYTES", "shape": [-1]} for n in ("verdict", "reasons", "error")]
        return types + self._recipe.form.answer_types()

    def describe(self) -> dict[str, Any]:
        """What the metadata says beyond tensors."""
        card = self._recipe.card
        return {
            **self._identity(self._recipe).parameters(),
            "precisions": [name for name, item in card.precisions.items() if item.approved],
            "title": card.title,
            "preprocessing_digest": card.preprocessing_digest,
            **self._recipe.form.describe(),
            "explanation": self._recipe.explanation.method,
            "intended_use": card.intended_use,
            "limits": list(card.limits),
            **self._challenge(),
        }

    def _challenge(self) -> dict[str, Any]:
        """What a gateway is to do with a challenger's answers; nothing for a champion."""
        if not self.challenges:
            return {}
        if self._leaving or not self.proved:
            return {"mode": WITHDRAWN if self._leaving else STARTING, "share": 0.0}
        return {"mode": self._recipe.served.mode, "share": self._recipe.served.share}


def _prepare(recipe: Recipe, image: bytes | str, limits: DecodeLimits) -> Ready | ImageError:
    return recipe.prepare(from_base64(image), limits)


def _all_failed(errors: Sequence[ImageError]) -> Exception:
    if len({error.code for error in errors}) == 1:
        return errors[0]
    return NoneDecodable(
        f"None of the {len(errors)} images can be decoded. The first: {errors[0]}",
    )
