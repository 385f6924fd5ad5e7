"""``/health``, ``/check-image`` and ``/upload``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import cv2
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from data.image import DecodeLimits, decode
from serving.gateway.access import Role
from serving.gateway.gateway import VERSION, Gateway
from serving.gateway.models import Answer
from serving.gateway.once import Once, respond
from serving.gateway.pictures import add_picture, checked, keep_picture
from serving.gateway.routing import Who, allow, public
from serving.gateway.store.repositories import predictions
from serving.gateway.store.types import about
from serving.gateway.uploads import Picture, read_upload, upload_body

_FILE = upload_body("The photograph: JPEG, PNG, BMP, WebP, TIFF or GIF.")
CaseId = Annotated[str | None, Query(max_length=200, description="The app's own id of the case.")]


def blur_score(data: bytes, limits: DecodeLimits) -> float:
    """Variance of the Laplacian of the grey image as it was sent, whatever its size.

    Thresholds in the field were set on this number, so it is neither resized nor turned upright.
    """
    grey = cv2.cvtColor(decode(data, limits, upright=False), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""
    settings = gateway.settings

    @router.get("/health")
    @public
    async def health() -> dict[str, Any]:
        """The models behind ``/check-image``, with their versions; one that is away has none."""
        names = settings.check_image_tasks
        found = await asyncio.gather(*(gateway.models.describe(task) for task in names))
        loaded = {
            task: about["version"] for task, about in zip(names, found, strict=True) if about is not None
        }
        return {
            "status": "ok",
            "device": "cpu",
            "version": VERSION,
            "models_loaded": list(loaded),
            "model_versions": loaded,
        }

    @router.post("/upload", openapi_extra=_FILE)
    @allow(Role.APP)
    async def upload(request: Request, who: Who) -> Response:
        """Keep a photograph as it is; its ``image_id`` names it in cases."""
        sent = await read_upload(request)
        picture = await checked(gateway, sent.data)
        kept = await keep_picture(gateway, who.tenant, picture)
        once = Once.of(request, who, {"sha256": kept.sha256}, hours=settings.idempotency_hours)

        def write() -> Any:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                image = add_picture(scope, kept, picture, system="s0", owner=who.subject)
                body = {"status": "ok", "image_id": image.id}
                return once.answer(scope, 200, body, about=about("image", image.id))

        return respond(await gateway.run(write))

    @router.post("/check-image", openapi_extra=_FILE)
    @allow(Role.APP)
    async def check_image(request: Request, who: Who, case_id: CaseId = None) -> Response:
        """Is the photograph sharp, and what is on it? A blurred one gets no label."""
        sent = await read_upload(request)
        picture = await checked(gateway, sent.data)
        said = {"sha256": None, "case_id": case_id}
        score = await gateway.run(blur_score, picture.data, gateway.image_limits)
        blurred = score < settings.blur_threshold
        kept, answers = await asyncio.gather(
            keep_picture(gateway, who.tenant, picture),
            _ask(gateway, () if blurred else settings.check_image_tasks, picture),
        )
        said["sha256"] = kept.sha256
        once = Once.of(request, who, said, hours=settings.idempotency_hours)
        verdict = conclude(score, settings.blur_threshold, settings.conf_threshold, answers)

        def write() -> Any:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                image = add_picture(scope, kept, picture, system="s0", owner=who.subject, case_key=case_id)
                for answer in answers:
                    predictions.add(
                        scope,
                        answer.origin,
                        image_id=image.id,
                        verdict=answer.reply.verdict,
                        reasons=answer.reply.reasons,
                        answer=answer.document,
                        uncertain=any(head.uncertain for head in answer.reply.heads.values()),
                    )
                now = scope.now.isoformat()
                body = {**verdict, "image_id": image.id, "case_id": case_id, "timestamp": now}
                return once.answer(scope, 200, body, about=about("image", image.id))

        return respond(await gateway.run(write))


async def _ask(gateway: Gateway, tasks: tuple[str, ...], picture: Picture) -> list[Answer]:
    return list(await asyncio.gather(*(gateway.models.ask(task, picture.data) for task in tasks)))


def conclude(score: float, sharp: float, sure: float, answers: list[Answer]) -> dict[str, Any]:
    """``status, message, blur_score, predictions, quality``: a pure function of what was measured and said.

    ``answers`` is empty for a blurred image. Predictions are in the order of the models, each model's most
    probable class first.
    """
    base: dict[str, Any] = {"blur_score": score, "predictions": []}
    if score < sharp:
        message = f"Image is blurred: score {score:.1f} is below the threshold {sharp:.1f}. Take it again."
        return {"status": "fail", "message": message, **base, "quality": None}
    refused = next((a.reply for a in answers if a.reply.verdict != "gradable"), None)
    if refused is not None:
        reasons = ", ".join(refused.reasons) or refused.verdict
        quality = {"verdict": refused.verdict, "reasons": list(refused.reasons)}
        message = f"Image can't be judged ({reasons}). Take it again."
        return {"status": "fail", "message": message, **base, "quality": quality}
    heads = [(a.reply.model.name, head) for a in answers for head in a.reply.heads.values()]
    found = [
        {"label": label, "confidence": value, "task": task}
        for task, head in heads
        for label, value in sorted(head.probabilities.items(), key=lambda item: -item[1])
    ]
    unsure = [task for task, head in heads if head.confidence < sure]
    status = "uncertain" if unsure else "success"
    message = (
        f"No confident answer ({', '.join(unsure)} below {sure:.2f}). Ask a clinician."
        if unsure
        else "Image is sharp and was classified."
    )
    quality = {"verdict": "gradable", "reasons": []}
    return {"status": status, "message": message, **base, "predictions": found, "quality": quality}
