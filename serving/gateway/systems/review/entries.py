"""One image before a reader: what there is to see, and what the reader says."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from data.errors import NotFound
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.gateway import Gateway
from serving.gateway.loop.answers import heads_of
from serving.gateway.loop.reading import (
    Said,
    by_reader,
    classes_of,
    is_half_read,
    labels_of,
    record,
    skip,
    undo,
)
from serving.gateway.routing import Who, allow, claim_of
from serving.gateway.store.repositories import cases, features, images, patients, predictions, queue, scans
from serving.gateway.store.repositories.queue import Place
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Image, Label, QueueEntry, Scan
from serving.gateway.systems.review.queue import State, state_word
from serving.gateway.systems.v1.common import Id, In, refusals

_MOST_WORDS = 20
_MOST_EARLIER = 20
_PIXELS = {"image/*": {"schema": {"type": "string", "format": "binary"}}}


class HeadLabel(In):
    """One head: a class, or why it can't be graded."""

    value: str | None = Field(default=None, max_length=200)
    cannot_grade: str | None = Field(default=None, max_length=2000)


class LabelIn(In):
    """What a reader says of an image: every head of the model."""

    heads: dict[str, HeadLabel]
    comment: str | None = Field(default=None, max_length=2000)


class Standing(BaseModel):
    """A label that stands."""

    head: str
    value: str | None
    cannot_grade: str | None
    comment: str | None
    reader: str
    source: str
    at: dt.datetime


class Earlier(BaseModel):
    """An earlier scan of the same patient. ``image`` is where its photograph is, null where it has none."""

    id: uuid.UUID
    at: dt.datetime
    status: str
    visit_type: str | None
    result: dict[str, Any] | None
    image: str | None


class Rejection(BaseModel):
    """An app's user who said that the answer is wrong. The words are theirs."""

    at: dt.datetime
    reason: str | None
    notes: str | None


class Entry(BaseModel):
    """Everything about one entry. With two readers ``labels`` are this reader's own until both have read."""

    id: uuid.UUID
    task: str
    state: State
    place: str
    reasons: list[str]
    rejections: list[Rejection]
    readers_needed: int
    readers_done: int
    image: str
    overlay: str
    view: str
    width: int
    height: int
    case_key: str | None
    taken_at: dt.datetime
    heads: dict[str, Any]
    classes: dict[str, list[str]]
    quality: dict[str, Any]
    unusual: float | None
    model: dict[str, Any]
    labels: list[Standing]
    earlier: list[Earlier]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.get("/review/api/entries/{entry_id}", responses=refusals(404))
    @allow(Role.REVIEWER)
    async def get_entry(who: Who, entry_id: Id) -> Entry:
        """The image's answer, its quality, the reader's labels and the patient's earlier scans."""

        def read() -> Entry:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return _entry(scope, queue.get(scope, str(entry_id)), who)

        return await gateway.run(read)

    @router.post("/review/api/entries/{entry_id}/labels", responses=refusals(400, 404, 409))
    @allow(Role.REVIEWER)
    async def label(who: Who, entry_id: Id, given: LabelIn) -> Entry:
        """Say what is seen; what the same reader said before is taken back."""
        said = {name: Said(one.value, one.cannot_grade) for name, one in given.heads.items()}
        return await _write(
            gateway,
            who,
            lambda scope: record(scope, str(entry_id), reader=who.subject, said=said, comment=given.comment),
        )

    @router.post("/review/api/entries/{entry_id}/undo", responses=refusals(404, 409))
    @allow(Role.REVIEWER)
    async def take_back(who: Who, entry_id: Id) -> Entry:
        """Take this reader's labels back, or that the entry was skipped."""
        return await _write(gateway, who, lambda scope: undo(scope, str(entry_id), reader=who.subject))

    @router.post("/review/api/entries/{entry_id}/skip", responses=refusals(404))
    @allow(Role.REVIEWER)
    async def put_aside(who: Who, entry_id: Id) -> Entry:
        """Put it aside without a label."""
        return await _write(gateway, who, lambda scope: skip(scope, str(entry_id), reader=who.subject))

    @router.get(
        "/review/api/entries/{entry_id}/image",
        response_class=Response,
        responses={200: {"content": _PIXELS}, **refusals(404)},
    )
    @allow(Role.REVIEWER)
    async def get_image(request: Request, who: Who, entry_id: Id) -> Response:
        """The photograph as it was sent."""
        image, data = await _fetched(gateway, who, request, partial(_image, entry_id=str(entry_id)))
        return Response(data, media_type=image.media_type, headers=_SAFE)

    @router.get(
        "/review/api/entries/{entry_id}/earlier/{scan_id}",
        response_class=Response,
        responses={200: {"content": _PIXELS}, **refusals(404)},
    )
    @allow(Role.REVIEWER)
    async def get_earlier(request: Request, who: Who, entry_id: Id, scan_id: Id) -> Response:
        """The photograph of an earlier scan of the same patient."""
        find = partial(_earlier_image, entry_id=str(entry_id), scan_id=str(scan_id))
        image, data = await _fetched(gateway, who, request, find)
        return Response(data, media_type=image.media_type, headers=_SAFE)

    @router.get(
        "/review/api/entries/{entry_id}/overlay",
        response_class=Response,
        responses={200: {"content": _PIXELS}, **refusals(404, 502)},
    )
    @allow(Role.REVIEWER)
    async def get_overlay(request: Request, who: Who, entry_id: Id) -> Response:
        """What the model that serves now looks at in it, as a picture of the model's input."""

        return await _drawn(gateway, who, request, str(entry_id), "overlay")

    @router.get(
        "/review/api/entries/{entry_id}/view",
        response_class=Response,
        responses={200: {"content": _PIXELS}, **refusals(404, 502)},
    )
    @allow(Role.REVIEWER)
    async def get_view(request: Request, who: Who, entry_id: Id) -> Response:
        """What that model is given of it: the overlay's geometry, without its colours."""
        return await _drawn(gateway, who, request, str(entry_id), "view")


_SAFE = {"Content-Security-Policy": "sandbox", "Cache-Control": "private, max-age=300"}


async def _drawn(gateway: Gateway, who: Identity, request: Request, entry_id: str, what: str) -> Response:
    def read() -> str:
        with gateway.store.read(who.tenant, who.actor) as scope:
            return queue.get(scope, entry_id).task

    task = await gateway.run(read)
    _, data = await _fetched(gateway, who, request, partial(_image, entry_id=entry_id))
    said = await gateway.models.ask(task, data, explain=what, features=False)
    if not said.overlay:
        raise NotFound("This model can't show what it looks at.")
    version = said.reply.model.version
    return Response(said.overlay, media_type="image/png", headers={**_SAFE, "x-model-version": version})


async def _write(gateway: Gateway, who: Identity, work: Callable[[Scope], QueueEntry]) -> Entry:
    def write() -> Entry:
        with gateway.store.write(who.tenant, who.actor) as scope:
            return _entry(scope, work(scope), who)

    return await gateway.run(write)


async def _fetched(
    gateway: Gateway, who: Identity, request: Request, find: Callable[[Scope], Image]
) -> tuple[Image, bytes]:
    """An image's row and its bytes, of which the gateway holds so many at once only."""

    def look() -> Image:
        with gateway.store.read(who.tenant, who.actor) as scope:
            return find(scope)

    image = await gateway.run(look)
    await claim_of(request).take(image.bytes)
    return image, await gateway.run_images(gateway.blobs.get, who.tenant, image.sha256)


def _image(scope: Scope, entry_id: str) -> Image:
    return images.get(scope, queue.get(scope, entry_id).image_id)


def _earlier_image(scope: Scope, entry_id: str, scan_id: str) -> Image:
    found = next((row for row in _scans_before(scope, _image(scope, entry_id)) if row.id == scan_id), None)
    if found is None or found.image_id is None:
        raise NotFound("There is no such earlier scan of this patient.")
    return images.get(scope, found.image_id)


def _entry(scope: Scope, row: QueueEntry, who: Identity) -> Entry:
    image, said = images.get(scope, row.image_id), predictions.get(scope, row.prediction_id)
    standing = labels_of(scope, row)
    readers = by_reader(standing)
    # A second reader is not to know what the first one saw.
    blind = is_half_read(standing, row.readers_needed)
    seen = [one for one in standing if not blind or one.reader == who.subject]
    looks = features.of(scope, [said.id]).get(said.id)
    return Entry(
        id=uuid.UUID(row.id),
        task=row.task,
        state=state_word(row.state),
        place=str(Place.of(row)),
        reasons=row.reasons,
        rejections=_rejections(scope, image),
        readers_needed=row.readers_needed,
        readers_done=len(readers),
        image=f"/review/api/entries/{row.id}/image",
        overlay=f"/review/api/entries/{row.id}/overlay",
        view=f"/review/api/entries/{row.id}/view",
        width=image.width,
        height=image.height,
        case_key=image.case_key,
        taken_at=image.created_at,
        heads=heads_of(said.answer),
        classes={name: list(classes) for name, classes in classes_of(said).items()},
        quality={"verdict": said.verdict, "reasons": said.reasons},
        unusual=looks.features.unusual if looks is not None else None,
        model={"name": said.model_name, "version": said.model_version, "digest": said.bundle_digest},
        labels=[_standing(one) for one in seen],
        earlier=_earlier(scope, row, image),
    )


def _standing(row: Label) -> Standing:
    return Standing(
        head=row.head,
        value=row.value,
        cannot_grade=row.cannot_grade,
        comment=row.comment,
        reader=row.reader,
        source=row.source,
        at=row.created_at,
    )


def _earlier(scope: Scope, row: QueueEntry, image: Image) -> list[Earlier]:
    where = f"/review/api/entries/{row.id}/earlier"
    return [
        Earlier(
            id=uuid.UUID(scan.id),
            at=scan.created_at,
            status=scan.status,
            visit_type=scan.visit_type,
            result=scan.result,
            image=f"{where}/{scan.id}" if scan.image_id is not None else None,
        )
        for scan in _scans_before(scope, image)
    ]


def _scans_before(scope: Scope, image: Image) -> list[Scan]:
    """The patient's scans before this image, newest first; their names stay where they are."""
    if image.patient_id is None:
        return []
    patient = patients.get(scope, image.patient_id).id
    return scans.history(
        scope, patient_id=patient, until=image.created_at, without_image=image.id, limit=_MOST_EARLIER
    )


def _rejections(scope: Scope, image: Image) -> list[Rejection]:
    """What users say against an answer about this photograph, of whichever copy."""
    said = cases.rejections_of(scope, images.with_content(scope, image.sha256), limit=_MOST_WORDS)
    return [Rejection(at=one.created_at, reason=one.reason, notes=one.notes) for one in said]
