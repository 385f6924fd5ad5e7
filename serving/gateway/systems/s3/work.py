"""A face scan's analysis: find the face, have both models answer, conclude, write it down once.

Whatever it comes to is typed: a result, or a failure that says what to do. A model or an image store that is
away is waited for, for ``GATEWAY_SCAN_WAIT_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from data.errors import ImageError, NotFound, Overloaded, RetidermError, StoreError
from serving.gateway.errors import ModelAway, ModelFailed, NotServed
from serving.gateway.jobs import Interrupted, Superseded
from serving.gateway.loop.challenge import Kept
from serving.gateway.loop.keep import keep_answer
from serving.gateway.models import Answer
from serving.gateway.store.repositories import images, scans
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Image, Job
from serving.scan import ACNE, CONDITION, FaceScan, ScanFailure, conclude, encode_face, see_face

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_LOG = logging.getLogger("retiderm.gateway")
_ACTOR = "jobs"
_TASKS = (ACNE.task, CONDITION.task)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
#: So often is a model asked for that the server doesn't have, while the other one answers.
_TRIES_UNSERVED = 3
_FAILED = {
    "gave_up": "The analysis was begun several times and never ended. Take another photograph.",
    "internal": "The analysis failed in a way that nobody foresaw; the log says more. Try again.",
}
_AGAIN = "Upload the photograph again later."
_T = TypeVar("_T")


class FaceScans:
    """The jobs of S3. Stateless: called by several threads at once."""

    kind = "face-scan"

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def analyse(self, tenant: str, job: Job) -> None:
        """Analyse the photograph that a scan is about, and end the scan."""
        image = self._image(tenant, job)
        limit = time.monotonic() + self._gateway.settings.scan_wait_s
        answers: Sequence[Answer | None] = ()
        face = b""
        found: FaceScan | ScanFailure
        try:
            data = self._fetch(tenant, image.sha256, limit)
            seen = see_face(data, limits=self._gateway.image_limits)
            if isinstance(seen, ScanFailure):
                found = seen
            else:
                face = encode_face(seen.pixels)
                answers = self._ask(face, image.owner, limit)
                found = conclude(seen, *(None if answer is None else answer.reply for answer in answers))
        except (ModelAway, ModelFailed, ImageError, NotFound) as error:
            found = ScanFailure(_code(error), f"{error.message} {_AGAIN}")
        kept = self._end(tenant, job, found, [answer for answer in answers if answer is not None])
        # The scan has ended: a gateway that stops now needs no shadows.
        with contextlib.suppress(Interrupted):
            self._gateway.jobs.on_loop(self._shadow(kept, face))

    def give_up(self, tenant: str, job: Job, code: str) -> None:
        """End a scan whose analysis comes to nothing."""
        try:
            self._end(tenant, job, ScanFailure(code, _FAILED.get(code, _FAILED["internal"])), [])
        except Superseded:
            _LOG.info("the scan of the job %s is another's now", job.id)

    def _image(self, tenant: str, job: Job) -> Image:
        with self._gateway.store.read(tenant, _ACTOR) as scope:
            return _still_asked(scope, job)

    def _fetch(self, tenant: str, sha256: str, limit: float) -> bytes:
        def get() -> bytes:
            return self._gateway.blobs.get(tenant, sha256)

        try:
            return self._patiently(get, (StoreError,), limit)
        except StoreError as error:
            raise ModelAway("The image store is away.") from error

    def _ask(self, face: bytes, person: str, limit: float) -> tuple[Answer | None, ...]:
        """Both models' answers, in order; None where there is no such model."""
        got: dict[str, Answer] = {}
        tries = 0

        def ask() -> tuple[Answer | None, ...]:
            nonlocal tries
            tries += 1
            left = [task for task in _TASKS if task not in got]
            said = self._gateway.jobs.on_loop(self._gather(left, face, person))
            failed = []
            for task, answer in zip(left, said, strict=True):
                if isinstance(answer, Answer):
                    got[task] = answer
                else:
                    failed.append(answer)
            unserved = all(isinstance(error, NotServed) for error in failed)
            if failed and not (unserved and got and tries >= _TRIES_UNSERVED):
                # The one that says most first: a refusal won't change, a model that is away may come back.
                raise min(failed, key=lambda error: isinstance(error, ModelAway | ModelFailed | Overloaded))
            return tuple(got.get(task) for task in _TASKS)

        return self._patiently(ask, (ModelAway, ModelFailed, Overloaded), limit)

    async def _gather(self, tasks: Sequence[str], face: bytes, person: str) -> list[Answer | BaseException]:
        ask = self._gateway.challengers.ask
        asked = (ask(task, face, key=person) for task in tasks)
        return await asyncio.gather(*asked, return_exceptions=True)

    async def _shadow(self, kept: Sequence[Kept], face: bytes) -> None:
        for each in kept:
            self._gateway.challengers.shadow(each, face)

    def _patiently(self, work: Callable[[], _T], away: tuple[type[RetidermError], ...], limit: float) -> _T:
        """Try again, after longer and longer pauses, until ``limit``. The last error is raised."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return work()
            except away as error:
                wait = max(pause * random.uniform(0.75, 1.25), float(getattr(error, "retry_after", 0)) / 2)
                if time.monotonic() + wait > limit:
                    raise
                self._gateway.jobs.pause(wait)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _end(
        self, tenant: str, job: Job, found: FaceScan | ScanFailure, answers: Sequence[Answer]
    ) -> list[Kept]:
        """Write down what it came to, with what the models said, where the job is still ours."""
        gateway, kept = self._gateway, []
        with gateway.store.write(tenant, _ACTOR) as scope:
            gateway.jobs.still_ours(scope, job)
            image = _still_asked(scope, job)
            scan_id = str(job.payload["scan_id"])
            for answer in answers:
                # Of a scan that failed nobody is told what a model saw, only that it would not look.
                given = isinstance(found, FaceScan) or answer.reply.verdict != "gradable"
                row = keep_answer(
                    scope, gateway.policy, answer, image_id=image.id, scan_id=scan_id, returned=given
                )
                if given:
                    kept.append(Kept(tenant, row.task, image.id, row.id, answer))
            if isinstance(found, ScanFailure):
                scans.fail(scope, scan_id, found.code, found.message, found.reasons)
            else:
                scans.complete(scope, scan_id, found.to_dict(scan_id, scope.now))
        return kept


def _still_asked(scope: Scope, job: Job) -> Image:
    """The photograph, where the scan still waits for what this job is about."""
    image_id = str(job.payload["image_id"])
    try:
        scan = scans.get(scope, str(job.payload["scan_id"]))
        if scan.status != "processing" or scan.image_id != image_id:
            raise Superseded
        return images.get(scope, image_id)
    except NotFound:
        raise Superseded from None


def _code(error: RetidermError) -> str:
    return ModelAway.code if isinstance(error, ModelAway) else error.code
