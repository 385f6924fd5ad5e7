"""Deleting somebody's data, whole and provably, and cleaning up after crashes.

An erasure goes in steps, each of which a crash may follow; :meth:`Eraser.resume` goes on from there:

1. One transaction removes the rows, writes down which contents they had, and says so in the audit log.
2. For each content, under its row's lock: where no other image has it, its bytes go, then its row.
3. It is asked which model versions had learned from these contents, and the audit log gets the end: what was
   removed, what stayed since it is another image's too, and those versions.

Datasets to come ask ``erasures.excluded``.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from data.errors import RetidermError, UsageError
from serving.gateway.blobs import BlobStore
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import erasures, idempotency, images
from serving.gateway.store.repositories.erasures import Reach
from serving.gateway.store.scope import Scope
from serving.gateway.store.types import about

_log = logging.getLogger("retiderm.gateway")
# Bytes without a row are an upload that goes on, or one that a crash cut off: after a day it is the latter.
_ORPHAN_AGE = dt.timedelta(days=1)
_BATCH = 500


@dataclass(frozen=True, slots=True)
class LearnedVersion:
    """A model version that had learned from an erased image, and the data set that held it."""

    model: str
    version: str
    dataset_digest: str


# From a tenant and the SHA-256 of erased images to the model versions that had learned from them.
LearnedFrom = Callable[[str, Sequence[str]], Sequence[LearnedVersion]]


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What an erasure did. ``finished`` is False where bytes could not be reached yet: it will be resumed.

    ``learned`` is None where nobody could say which models had learned from the images; never a guess.
    """

    erasure_id: str
    counts: dict[str, int]
    erased: tuple[str, ...]
    kept_for_others: tuple[str, ...]
    learned: tuple[LearnedVersion, ...] | None
    finished: bool


class Eraser:
    """Erases, resumes and sweeps. ``learned_from`` is the hook of those who know what models learned from."""

    def __init__(self, store: Store, blobs: BlobStore, learned_from: LearnedFrom | None = None) -> None:
        self._store = store
        self._blobs = blobs
        self._learned_from = learned_from

    def patient(self, tenant: str, patient_id: str, *, actor: str, reason: str) -> ErasureReport:
        """Erase a patient: scans, images, overlays, predictions, cases, labels, answers. ``NotFound``."""
        name = about("patient", patient_id.lower())
        return self._erase(tenant, actor, name, reason, lambda s: erasures.reach(s, patient_id=patient_id))

    def user(self, tenant: str, user: str, *, actor: str, reason: str) -> ErasureReport:
        """Erase a user's cases (S0's ``user_id``), and the scans and images that their tokens own (S3)."""
        return self._erase(tenant, actor, about("user", user), reason, lambda s: erasures.reach(s, user=user))

    def case(self, tenant: str, key: str, *, actor: str, reason: str) -> ErasureReport:
        """Erase one case, by the app's id, with its images. ``NotFound`` where there is none."""
        return self._erase(
            tenant, actor, about("case", key), reason, lambda s: erasures.reach(s, case_key=key)
        )

    def older(self, tenant: str, days: int, *, actor: str = "retention") -> ErasureReport | None:
        """Erase images, scans and cases that are older than so many days; None where there are none."""
        if days < 1:
            raise UsageError("Retention is at least one day.")
        before = self._store.clock() - dt.timedelta(days=days)
        name, reason = about("retention", f"{days}d"), f"older than {days} days"
        with self._store.write(tenant, actor) as scope:
            found = erasures.reach(scope, before=before)
            if found.size() == 0:
                return None
            row = erasures.remove(scope, found, name=name, reason=reason)
        return self._finish(tenant, actor, row.id)

    def resume(self, tenant: str, *, actor: str = "retention") -> list[ErasureReport]:
        """Go on with erasures that a crash or an unreachable image store cut off. For every start."""
        with self._store.read(tenant, actor) as scope:
            waiting = [row.id for row in erasures.unfinished(scope)]
        return [self._finish(tenant, actor, key) for key in waiting]

    def sweep(self, tenant: str, *, actor: str = "retention") -> int:
        """Remove bytes that no row refers to (what killed uploads left) and idempotency keys that are over.

        Only bytes that are a day old or more. Says how many contents were removed.
        """
        with self._store.write(tenant, actor) as scope:
            idempotency.clear_expired(scope)
        with self._store.read(tenant, actor) as scope:
            unreferenced = images.unreferenced(scope)
        removed = sum(not self._collect(tenant, actor, sha256) for sha256 in unreferenced)
        for old in self._old_contents(tenant):
            with self._store.read(tenant, actor) as scope:
                known = images.known(scope, old)
            removed += sum(not self._collect(tenant, actor, sha256) for sha256 in old if sha256 not in known)
        return removed

    def _erase(
        self, tenant: str, actor: str, name: str, reason: str, find: Callable[[Scope], Reach]
    ) -> ErasureReport:
        with self._store.write(tenant, actor) as scope:
            row = erasures.remove(scope, find(scope), name=name, reason=reason)
        return self._finish(tenant, actor, row.id)

    def _finish(self, tenant: str, actor: str, erasure_id: str) -> ErasureReport:
        with self._store.read(tenant, actor) as scope:
            open_ = [c.sha256 for c in erasures.contents(scope, erasure_id) if c.settled_at is None]
            every = [c.sha256 for c in erasures.contents(scope, erasure_id)]
        try:
            for sha256 in open_:
                self._collect(tenant, actor, sha256, erasure_id)
        except RetidermError as error:
            _log.warning("the erasure %s waits: %s", erasure_id, error.code)
            return self._report(tenant, erasure_id)
        learned = self._ask(tenant, every)
        with self._store.write(tenant, actor) as scope:
            erasures.finish(scope, erasure_id, learned)
        self._store.settle()
        return self._report(tenant, erasure_id)

    def _collect(self, tenant: str, actor: str, sha256: str, erasure_id: str | None = None) -> bool:
        """Remove a content that nobody refers to. Says whether somebody does."""
        with self._store.write(tenant, actor) as scope:
            kept = images.lock_content(scope, sha256) > 0
            if not kept:
                # Bytes first: a crash now leaves a content's row without image and bytes, which nobody sees
                # and the next sweep takes.
                self._blobs.delete(tenant, sha256)
                images.forget_content(scope, sha256)
            if erasure_id is not None:
                erasures.settle(scope, erasure_id, sha256, kept=kept)
        return kept

    def _ask(self, tenant: str, contents: Sequence[str]) -> dict[str, Any]:
        if not contents:
            return {"known": True, "versions": []}
        if self._learned_from is None:
            return {"known": False, "why": "nothing is set up that knows what models learned from"}
        try:
            found = self._learned_from(tenant, contents)
        except Exception as error:
            # The registry being away must not keep anybody's data here.
            _log.warning("which models had learned could not be found out: %s", type(error).__name__)
            return {"known": False, "why": f"asking failed: {type(error).__name__}"}
        return {"known": True, "versions": [asdict(version) for version in found]}

    def _report(self, tenant: str, erasure_id: str) -> ErasureReport:
        with self._store.read(tenant) as scope:
            row = erasures.get(scope, erasure_id)
            gone = erasures.contents(scope, erasure_id)
        told = row.learned or {"known": False}
        learned = tuple(LearnedVersion(**item) for item in told["versions"]) if told["known"] else None
        return ErasureReport(
            row.id,
            row.counts,
            tuple(item.sha256 for item in gone if item.settled_at is not None and not item.kept),
            tuple(item.sha256 for item in gone if item.kept),
            learned,
            row.finished_at is not None,
        )

    def _old_contents(self, tenant: str) -> Iterator[list[str]]:
        cut = self._store.clock() - _ORPHAN_AGE
        old = (item.sha256 for item in self._blobs.listed(tenant) if item.modified < cut)
        while batch := list(islice(old, _BATCH)):
            yield batch
