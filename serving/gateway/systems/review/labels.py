"""Labels on their way out and in: the export that datasets are made of, and Label Studio's files."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import tempfile
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from data.errors import Conflict, IntegrityError, NotFound, Overloaded, RequestError, RetidermError
from data.files import sha256_bytes
from serving.core import label_studio
from serving.core.label_studio import Choice, Question
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.downloads import Download, built
from serving.gateway.front import take_time
from serving.gateway.gateway import Gateway
from serving.gateway.loop.answers import heads_of
from serving.gateway.loop.reading import Said, bring_in, classes_of, is_half_read, labels_of
from serving.gateway.models import titles_of
from serving.gateway.routing import Who, allow
from serving.gateway.store import unscoped
from serving.gateway.store.repositories import cases, erasures, images, labels, predictions, queue
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Case, Image, Label, Prediction, QueueEntry
from serving.gateway.store.types import about
from serving.gateway.systems.v1.common import Task, refusals

FORMAT = 1
_PAGE = 500
_PIECE = 2**20
_MOST_TASKS = 1000
#: Of images inside Label Studio's tasks: they are all in memory at once.
_MOST_INSIDE = 64 * 2**20
_AT_ONCE = 2
_SHOWN = 10
# The same labels give the same bytes, whenever they are exported.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SUFFIX = {"jpeg": "jpg", "tiff": "tif"}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}
_EXPORTED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}},
    }
}

TaskQuery = Annotated[Task, Query()]


class Imported(BaseModel):
    """What an import did. ``skipped`` says in words which annotations held no label."""

    entries: int
    skipped: list[str]


class Exchange(BaseModel):
    """A project for Label Studio: its labelling interface, and its tasks."""

    config: str
    tasks: list[dict[str, Any]]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    places = asyncio.Semaphore(_AT_ONCE)

    # Each has an address under the page's path too, where its session's cookie is sent.
    @router.get(
        "/review/api/labels/export",
        response_class=Response,
        responses={**_ZIP, **refusals(422, 507)},
    )
    @router.get(
        "/v1/review/labels/export",
        response_class=Response,
        responses={**_ZIP, **refusals(422, 507)},
    )
    @allow(Role.REVIEWER)
    async def export(
        request: Request,
        who: Who,
        task: TaskQuery,
        images: Annotated[Literal["yes", "no"], Query(description="no: the labels alone.")] = "yes",
    ) -> Response:
        """Every label that stands, with its image: what the next dataset is made of (docs/loop.md).

        Of an image that waits for its second reader there is none yet.
        """
        if places.locked():
            raise Overloaded("Other exports are being made.", hint="Ask again when they are done.")
        take_time(request.scope)
        async with places:
            file, size = await gateway.run_images(_export, gateway, who, task, images == "yes")
        return Download(gateway, file, size, f"labels-{task}.zip")

    @router.get("/review/api/label-studio", responses=refusals(404, 422))
    @router.get("/v1/review/label-studio", responses=refusals(404, 422))
    @allow(Role.REVIEWER)
    async def to_label_studio(
        who: Who,
        task: TaskQuery,
        batch_id: Annotated[uuid.UUID | None, Query()] = None,
        images: Annotated[
            Literal["data", "page"],
            Query(description="data: inside the tasks; page: this gateway's address."),
        ] = "data",
    ) -> Exchange:
        """What waits (or a batch) as Label Studio's tasks with the model's predictions."""
        titles = titles_of(await gateway.models.describe(task))
        return await gateway.run_images(_exchange, gateway, who, task, batch_id, images == "data", titles)

    @router.post("/review/api/label-studio", responses=refusals(400, 404, 409, 422), openapi_extra=_EXPORTED)
    @router.post("/v1/review/label-studio", responses=refusals(400, 404, 409, 422), openapi_extra=_EXPORTED)
    @allow(Role.REVIEWER)
    async def from_label_studio(request: Request, who: Who, task: TaskQuery) -> Imported:
        """Take Label Studio's export (JSON) of such tasks: all of its labels, or none and why."""
        return await gateway.run(_import, gateway, who, task, await request.body())


def _export(gateway: Gateway, who: Identity, task: str, with_images: bool) -> tuple[IO[bytes], int]:
    counts: Counter[str] = Counter()

    def fill(file: IO[bytes]) -> None:
        _fill(gateway, who, task, with_images, file, counts)

    file, size = built(fill, hint="TMPDIR needs room for it; images=no leaves the images out.")
    with gateway.store.write(who.tenant, who.actor) as scope:
        scope.audit("labels.export", about("task", task), **counts, bytes=size)
    return file, size


def _fill(
    gateway: Gateway, who: Identity, task: str, with_images: bool, file: IO[bytes], counts: Counter[str]
) -> None:
    tenant = next(row.name for row in unscoped.all_tenants(gateway.store) if row.id == who.tenant)
    told: dict[str, Any] = {
        "format": FORMAT,
        "task": task,
        "made_at": gateway.store.clock().isoformat(),
        "tenant": tenant,
    }
    written: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, tempfile.TemporaryFile() as lines:
        # Labels, and what was erased, are of one moment. Images come after: no image store in a transaction.
        with tempfile.TemporaryFile() as gathered:
            with gateway.store.read(who.tenant, who.actor) as scope:
                for page in _pages(scope, task):
                    texts = (json.dumps(line, ensure_ascii=False) for line in page)
                    gathered.writelines(text.encode() + b"\n" for text in texts)
                excluded = erasures.excluded(scope)
                told["withdrawn"] = [
                    {"sha256": one.sha256, "head": one.head, "at": one.at.isoformat()}
                    for one in labels.taken_back(scope, task)
                ]
            gathered.seek(0)
            for written_line in gathered:
                line = json.loads(written_line)
                name, sha256 = line["file"], line["sha256"]
                if with_images and name not in written:
                    try:
                        data = gateway.blobs.get(who.tenant, sha256)
                    except (NotFound, IntegrityError):
                        # Erased in this moment: a label without its image is no label.
                        continue
                    archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
                    written.add(name)
                    counts["images"] += 1
                counts["labels"] += 1
                lines.write(written_line)
        lines.seek(0)
        with archive.open(zipfile.ZipInfo("labels.jsonl", _EPOCH), "w", force_zip64=True) as entry:
            while piece := lines.read(_PIECE):
                entry.write(piece)
        archive.writestr(zipfile.ZipInfo("excluded.txt", _EPOCH), "".join(f"{one}\n" for one in excluded))
        archive.writestr(zipfile.ZipInfo("export.json", _EPOCH), json.dumps(told))


def _pages(scope: Scope, task: str) -> Iterator[list[dict[str, Any]]]:
    half = _half_read(scope, task)
    after = 0
    while rows := labels.listed(scope, task=task, after=after, limit=_PAGE):
        after = rows[-1].number
        yield _lines(scope, [row for row in rows if row.image_id not in half])


def _half_read(scope: Scope, task: str) -> set[str]:
    """Images that want a further reader: what one alone says of them is nothing to learn from yet."""
    found: set[str] = set()
    after = 0
    # In any state: a reader's label that was taken back over REST leaves one half-read as ``done``.
    while rows := queue.listed(scope, task=task, state=None, after=after, limit=_PAGE):
        after = rows[-1].number
        found |= {
            row.image_id
            for row in rows
            if row.readers_needed > 1 and is_half_read(labels_of(scope, row), row.readers_needed)
        }
    return found


def _lines(scope: Scope, rows: Sequence[Label]) -> list[dict[str, Any]]:
    told = predictions.by_ids(scope, [row.prediction_id for row in rows if row.prediction_id is not None])
    shown = images.by_id(scope, {row.image_id for row in rows})
    named = cases.by_ids(scope, [row.case_id for row in rows if row.case_id is not None])
    theirs = cases.of_images(scope, list(shown.values()))
    lines = []
    for row in rows:
        image = shown[row.image_id]
        case = named.get(row.case_id or "") or theirs.get(image.id)
        key = case.key if case is not None else image.case_key
        kind = image.media_type.partition("/")[2]
        lines.append(
            {
                "case_id": key,
                "image_id": image.id,
                "sha256": image.sha256,
                "file": f"images/{image.sha256}.{_SUFFIX.get(kind, kind)}",
                "task": row.task,
                "head": row.head,
                "value": row.value,
                "cannot_grade": row.cannot_grade,
                "reader": row.reader,
                "at": row.created_at.isoformat(),
                "adjudicated": row.source == "adjudication",
                "group": _group(image, case, key),
                "source": row.source,
                "comment": row.comment,
                "prediction": _said(told.get(row.prediction_id or ""), row.head),
            }
        )
    return lines


def _group(image: Image, case: Case | None, key: str | None) -> str | None:
    """What must not be spread over a dataset's splits: a patient's photographs, a case's, an owner's.

    S0's user is no group of their own, since whoever has one has a case: one user may photograph many people.
    """
    patient = image.patient_id or (case.patient_id if case is not None else None)
    if patient is not None:
        return patient
    if key is not None:
        return f"case:{key}"
    if image.system == "s3":
        # Whose scan it is, without the name: datasets go further than the gateway does.
        return f"owner:{sha256_bytes(f'{image.tenant_id} {image.owner}'.encode())[:32]}"
    return None


def _said(row: Prediction | None, head: str) -> dict[str, Any] | None:
    found = heads_of(row.answer).get(head) if row is not None else None
    if row is None or found is None:
        return None
    return {
        "model_name": row.model_name,
        "model_version": row.model_version,
        "bundle_digest": row.bundle_digest,
        "label": found["label"],
        "probabilities": found["probabilities"],
    }


def _exchange(
    gateway: Gateway,
    who: Identity,
    task: str,
    batch_id: uuid.UUID | None,
    inside: bool,
    titles: Mapping[str, Mapping[str, str]],
) -> Exchange:
    with gateway.store.read(who.tenant, who.actor) as scope:
        rows = queue.urgent(
            scope, task=task, batch_id=str(batch_id) if batch_id is not None else None, limit=_MOST_TASKS
        )
        told = predictions.by_ids(scope, [row.prediction_id for row in rows])
        shown = images.by_id(scope, {row.image_id for row in rows})
    if not rows:
        raise NotFound(f"Nothing of {task!r} waits there.")
    if inside and sum(image.bytes for image in shown.values()) > _MOST_INSIDE:
        raise RequestError(
            f"These images have more than {_MOST_INSIDE // 2**20} MiB together.",
            hint="Draw a batch, or have images=page.",
        )
    choices = _choices(rows, told, titles)
    questions = []
    for row in rows:
        said, image = told[row.prediction_id], shown[row.image_id]
        address = f"{gateway.settings.public_url}/review/api/entries/{row.id}/image"
        if inside:
            address = label_studio.data_url(gateway.blobs.get(who.tenant, image.sha256), image.media_type)
        heads = said.answer.get("heads", {})
        questions.append(
            Question(
                row.id,
                address,
                {name: head["probabilities"] for name, head in heads.items()},
                f"{said.model_name} {said.model_version}",
                {"reasons": ", ".join(row.reasons)},
            )
        )
    return Exchange(config=label_studio.config(choices), tasks=label_studio.tasks(questions, choices, task))


def _import(gateway: Gateway, who: Identity, task: str, body: bytes) -> Imported:
    exported = label_studio.read(body)
    named = (
        entry["data"].get(label_studio.CASE)
        for entry in exported
        if isinstance(entry, dict) and isinstance(entry.get("data"), dict)
    )
    keys = sorted({key for key in named if isinstance(key, str)})
    with gateway.store.write(who.tenant, who.actor) as scope:
        rows = [row for row in (_found(scope, key) for key in keys) if row is not None]
        rows = [row for row in rows if row.task == task]
        told = predictions.by_ids(scope, [row.prediction_id for row in rows])
        if not rows:
            told_of = ", ".join(keys[:_SHOWN]) or "no case"
            raise RequestError(
                f"Nothing was imported: none of these tasks names an entry of this queue ({told_of}).",
                hint="Import where the tasks were exported; a deleted case takes no label.",
            )
        given = label_studio.answers(exported, _all_choices(rows, told), {row.id for row in rows}, task=task)
        skipped = list(given.skipped)
        by_entry: dict[tuple[str, str], dict[str, Said]] = {}
        more: dict[tuple[str, str], tuple[dt.datetime, str | None]] = {}
        for one in given.answers:
            key = (one.case, one.reader)
            by_entry.setdefault(key, {})[one.head] = Said(one.value, one.cannot_grade)
            more[key] = dt.datetime.fromisoformat(one.at), one.comment
        refused: list[RetidermError] = []
        why: list[str] = []
        for (entry_id, reader), said in by_entry.items():
            try:
                at, comment = more[entry_id, reader]
                aside = bring_in(scope, entry_id, reader=reader, said=said, at=at, comment=comment)
                if aside is not None:
                    skipped.append(f"{entry_id}: {aside}")
            except (Conflict, RequestError) as error:
                refused.append(error)
                why.append(f"{entry_id}, {reader}: {error.message}")
        if refused:
            raise _none_of(refused, why)
        taken = len(by_entry) + len(given.skipped) - len(skipped)
        scope.audit("labels.import", f"task:{task}", entries=taken, at=_now(scope))
    return Imported(entries=taken, skipped=skipped)


def _none_of(refused: Sequence[RetidermError], told: Sequence[str]) -> RetidermError:
    """All that stood in an import's way at once. It ends the transaction, so that nothing of it is kept."""
    more = f" And {len(told) - _SHOWN} more." if len(told) > _SHOWN else ""
    kind = RequestError if any(isinstance(error, RequestError) for error in refused) else Conflict
    return kind(
        f"Nothing was imported: {len(told)} of its readings can't be taken. {' '.join(told[:_SHOWN])}{more}",
        hint="Take these tasks out of the file and import the others.",
    )


def _found(scope: Scope, key: str) -> QueueEntry | None:
    try:
        return queue.get(scope, key)
    except NotFound:
        return None


def _choices(
    rows: Sequence[QueueEntry], told: dict[str, Prediction], titles: Mapping[str, Mapping[str, str]]
) -> list[Choice]:
    """The heads and classes of the model that answered; where there were several, the most urgent entry's.

    Titles are the serving model's, for the classes that it shares.
    """
    classes = classes_of(told[rows[0].prediction_id])
    return [
        Choice(head, names, tuple(titles.get(head, {}).get(name, name) for name in names))
        for head, names in classes.items()
    ]


def _all_choices(rows: Sequence[QueueEntry], told: dict[str, Prediction]) -> list[Choice]:
    """Every head and class of the models that answered: an entry's own are looked at when it is kept."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, classes in classes_of(told[row.prediction_id]).items():
            found.setdefault(name, {}).update(dict.fromkeys(classes))
    return [Choice(name, tuple(classes)) for name, classes in found.items()]


def _now(scope: Scope) -> str:
    return scope.now.astimezone(dt.UTC).isoformat()
