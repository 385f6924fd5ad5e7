"""``/health``, ``/check-image`` and ``/upload``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from data.errors import RequestError
from data.files import sha256_bytes
from data.image import DecodeLimits
from serving.gateway.access import Role
from serving.gateway.errors import ModelAway, ModelFailed
from serving.gateway.gateway import VERSION, Gateway
from serving.gateway.loop.challenge import Kept
from serving.gateway.loop.keep import glance
from serving.gateway.models import Answer
from serving.gateway.once import Once, respond
from serving.gateway.openapi import KEYED, MODEL, ONCE, errors
from serving.gateway.pictures import add_picture, checked, keep_picture
from serving.gateway.routing import Who, allow, public
from serving.gateway.store.checks import check_text
from serving.gateway.store.repositories import cases
from serving.gateway.store.repositories.idempotency import Answer as Said
from serving.gateway.store.types import about
from serving.gateway.systems.s0 import forms
from serving.gateway.systems.s0.conclude import blur_score, conclude, unsure_of
from serving.gateway.systems.s0.doubts import record
from serving.gateway.uploads import Picture, check_picture, read_upload, upload_body

_SYSTEM = "s0"
_FILE = {**upload_body("The photograph: JPEG, PNG, BMP, WebP, TIFF or GIF."), **KEYED}
#: The measure takes four bytes of memory for each of an image's, so not all threads take it at once.
_MEASURED_AT_ONCE = 4

CaseId = Annotated[
    str | None,
    Query(max_length=forms.LONGEST, pattern=forms.NO_NUL, description="The app's own id of the case."),
]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""
    settings = gateway.settings
    measuring = asyncio.Semaphore(_MEASURED_AT_ONCE)

    @router.get("/health")
    @public
    async def health() -> forms.Health:
        """The models behind ``/check-image``, with their versions; one that is away has none."""
        names = settings.check_image_tasks
        found = await asyncio.gather(*(gateway.models.describe(task) for task in names))
        loaded = {
            task: str(told["version"]) for task, told in zip(names, found, strict=True) if told is not None
        }
        return forms.Health(
            status="ok",
            device="cpu",
            version=VERSION,
            models_loaded=list(loaded),
            model_versions=loaded,
        )

    @router.post("/upload", response_model=forms.Uploaded, responses=errors(415, *ONCE), openapi_extra=_FILE)
    @allow(Role.APP)
    async def upload(request: Request, who: Who) -> Response:
        """Keep a photograph as it is; its ``image_id`` names it in cases."""
        sent = await read_upload(request)
        picture = await checked(gateway, sent.data)
        kept = await keep_picture(gateway, who.tenant, picture)
        once = Once.of(request, who, {"sha256": kept.sha256}, hours=settings.idempotency_hours)

        def write() -> Said:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (earlier := once.claim(scope)) is not None:
                    return earlier
                image = add_picture(scope, kept, picture, system=_SYSTEM, owner=who.subject)
                body = {"status": "ok", "image_id": image.id}
                return once.answer(scope, 200, body, about=about("image", image.id))

        return respond(await gateway.run(write))

    @router.post(
        "/check-image", response_model=forms.Checked, responses=errors(*ONCE, *MODEL), openapi_extra=_FILE
    )
    @allow(Role.APP)
    async def check_image(request: Request, who: Who, case_id: CaseId = None) -> Response:
        """Is the photograph sharp, and what is on it? A blurred one gets no label.

        An answer below the threshold begins a case for ``case_id``, so that a person looks at it whether
        the app logs it or not.
        """
        sent = await read_upload(request)
        key = _case_key(case_id or sent.fields.get("case_id"))
        async with measuring:
            seen = await gateway.run(examine, sent.data, gateway.image_limits)
        picture, sha256, score = seen.picture, seen.sha256, seen.score
        asked = {"sha256": sha256, "case_id": key}
        once = Once.of(request, who, asked, hours=settings.idempotency_hours)

        def look() -> Said | None:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return once.find(scope)

        if once.key is not None and (earlier := await gateway.run(look)) is not None:
            return respond(earlier)
        blurred = score < settings.blur_threshold
        # Bytes that are kept for a model that then fails have no row: the next day's clean-up takes them.
        answers, kept = await asyncio.gather(
            _ask(gateway, picture, sha256, quality_only=blurred),
            keep_picture(gateway, who.tenant, picture),
        )
        said = conclude(score, settings.blur_threshold, settings.conf_threshold, answers)
        # Of a blurred image that a model would have labelled all the same, no answer is kept.
        heard = [a for a in answers if not blurred or a.reply.verdict != "gradable"]
        unheard = [a for a in answers if blurred and a.reply.verdict == "gradable"]
        given = [said["status"] != "fail" or a.reply.verdict != "gradable" for a in heard]

        def write() -> tuple[Said, list[Kept]]:
            with gateway.store.write(who.tenant, who.actor) as scope:
                if (before := once.claim(scope)) is not None:
                    return before, []
                image = add_picture(scope, kept, picture, system=_SYSTEM, owner=who.subject, case_key=key)
                body = {**said, "image_id": image.id, "case_id": key, "timestamp": scope.now.isoformat()}
                if said["status"] == "uncertain" and key is not None:
                    doubted = unsure_of(answers, settings.conf_threshold)[0]
                    cases.begin(scope, key, body, task=doubted, image_id=image.id)
                shadows = []
                for a, returned in zip(heard, given, strict=True):
                    row = record(scope, gateway, a, image, settings.conf_threshold, returned=returned)
                    if returned:
                        shadows.append(Kept(who.tenant, row.task, image.id, row.id, a))
                for a in unheard:
                    glance(scope, a)
                return once.answer(scope, 200, body, about=about("image", image.id)), shadows

        answer, shadows = await gateway.run(write)
        for each in shadows:
            gateway.challengers.shadow(each, picture.data)
        return respond(answer)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a photograph's bytes tell by themselves."""

    picture: Picture
    sha256: str
    score: float


def examine(data: bytes, limits: DecodeLimits) -> _Seen:
    """Prove, name and measure a photograph, on one thread in one go. ``ImageError`` where it is none."""
    return _Seen(check_picture(data, limits), sha256_bytes(data), blur_score(data))


async def _ask(gateway: Gateway, picture: Picture, key: str, *, quality_only: bool) -> list[Answer]:
    """Every model's answer. Of a blurred image only the quality is used: models may be away then."""
    tasks = gateway.settings.check_image_tasks
    asked = (gateway.challengers.ask(task, picture.data, key=key) for task in tasks)
    found = await asyncio.gather(*asked, return_exceptions=quality_only)
    answers = []
    for item in found:
        if isinstance(item, Answer):
            answers.append(item)
        elif not isinstance(item, ModelAway | ModelFailed):
            raise item
    return answers


def _case_key(text: str | None) -> str | None:
    if text and len(text) > forms.LONGEST:
        raise RequestError(f"case_id has {len(text)} characters; {forms.LONGEST} are allowed.")
    return check_text(text, "case_id") if text else None
