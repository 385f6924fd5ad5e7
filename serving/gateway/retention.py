"""Deleting somebody's data, whole and provably, and cleaning up after crashes.

An erasure goes in steps, each of which a crash may follow; :meth:`Eraser.resume` goes on from there:

1. One transaction removes the rows, writes down which contents they had, and says so in the audit log.
2. For each content that no other image has: one transaction notes that its bytes are being taken, then they
   go, with no transaction open, and another one notes that they are gone. Uploads that kept the same bytes
   before look for them after it, never in between; ``repositories/images.py`` says how. So what an erased
   image had is gone when its erasure is finished, and no upload brings it back that came before.
3. The audit log gets the end: what was removed, and what stayed since it is another image's too.
4. The registry is asked which model versions had learned from these contents (:meth:`Eraser.ask`), when it is
   within reach; the audit log gets them as well. ``upkeep.py`` does it, and goes on with what was cut off.

Datasets to come ask ``erasures.excluded``, which leaves out what only grew too old.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from data.errors import RetidermError, UsageError
from serving.gateway.blobs import BlobStore
from serving.gateway.store.contents import alone_with
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


#: From the SHA-256 of erased images to the model versions that had learned from each. Raises a
#: ``RetidermError`` where that can't be said of every version: it is never guessed.
LearnedFrom = Callable[[Sequence[str]], Mapping[str, Sequence[LearnedVersion]]]


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What an erasure did. ``finished`` is False where bytes could not be reached yet: it will be resumed.

    ``learned`` is None until somebody could say which models had learned from the images; never a guess.
    """

    erasure_id: str
    counts: dict[str, int]
    erased: tuple[str, ...]
    kept_for_others: tuple[str, ...]
    learned: tuple[LearnedVersion, ...] | None
    finished: bool


class Eraser:
    """Erases, resumes and sweeps."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the long ones (:meth:`older`, :meth:`sweep`) end after what they are at."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

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

    def older(self, tenant: str, days: int, *, actor: str = "retention") -> list[ErasureReport]:
        """Erase images, scans and cases that are older than so many days, with what belongs to them.

        What belongs together goes when the youngest of it is old. A hundred at a time, each an erasure of its
        own, so that nobody who writes has to wait for all of them. Where another process of the store is at
        it, nothing is done here.
        """
        if days < 1:
            raise UsageError("Retention is at least one day.")
        before = self._store.clock() - dt.timedelta(days=days)
        name, reason = about(erasures.RETENTION, f"{days}d"), f"older than {days} days"
        with self._store.alone(f"older-{tenant}") as alone:
            return self._older(tenant, actor, before, name, reason) if alone else []

    def _older(
        self, tenant: str, actor: str, before: dt.datetime, name: str, reason: str
    ) -> list[ErasureReport]:
        reports = []
        for kind in erasures.AGEING:
            after = ""
            while not self.stopped:
                with self._store.read(tenant, actor) as scope:
                    ids = erasures.aged(scope, kind, before, after=after)
                if not ids:
                    break
                after = ids[-1]
                if (begun := self._begin_older(tenant, actor, kind, ids, before, name, reason)) is not None:
                    reports.append(self._finish(tenant, actor, begun))
        return reports

    def _begin_older(
        self,
        tenant: str,
        actor: str,
        kind: str,
        ids: Sequence[str],
        before: dt.datetime,
        name: str,
        reason: str,
    ) -> str | None:
        with self._store.write(tenant, actor) as scope:
            found = erasures.reach_aged(scope, kind, ids, before)
            return erasures.remove(scope, found, name=name, reason=reason).id if found.size() else None

    def resume(self, tenant: str, *, actor: str = "retention") -> list[ErasureReport]:
        """Go on with erasures that a crash or an unreachable image store cut off; to the first that can't."""
        with self._store.read(tenant, actor) as scope:
            waiting = [row.id for row in erasures.unfinished(scope)]
        reports = []
        for key in waiting:
            if self.stopped:
                break
            reports.append(self._finish(tenant, actor, key))
            if not reports[-1].finished:
                break
        return reports

    def sweep(self, tenant: str, *, actor: str = "retention") -> int:
        """Remove bytes that no row refers to (what killed uploads left) and idempotency keys that are over.

        Only bytes that are a day old or more. Says how many contents were removed. Notes of what was removed
        more than a day ago go too.
        """
        with self._store.write(tenant, actor) as scope:
            idempotency.clear_expired(scope)
            images.clear_notes(scope)
        with self._store.read(tenant, actor) as scope:
            unreferenced = images.unreferenced(scope)
        removed = 0
        for sha256 in unreferenced:
            if self.stopped:
                return removed
            removed += not self._collect(tenant, actor, sha256)
        for old in self._old_contents(tenant):
            with self._store.read(tenant, actor) as scope:
                known = images.known(scope, old)
            for sha256 in old:
                if self.stopped:
                    return removed
                removed += sha256 not in known and not self._collect(tenant, actor, sha256)
        return removed

    def ask(self, tenant: str, learned_from: LearnedFrom, *, actor: str = "retention") -> int:
        """Find out which model versions had learned from what was erased, where that isn't known yet.

        Returns:
            Of how many erasures it is known now.

        Raises:
            RetidermError: ``learned_from`` can't say. It is asked again another time.
        """
        with self._store.read(tenant, actor) as scope:
            waiting = {
                row.id: [item.sha256 for item in erasures.contents(scope, row.id)]
                for row in erasures.unasked(scope)
            }
        if not waiting:
            return 0
        told = learned_from(sorted({sha256 for contents in waiting.values() for sha256 in contents}))
        for erasure_id, contents in waiting.items():
            found = dict.fromkeys(version for sha256 in contents for version in told.get(sha256, ()))
            with self._store.write(tenant, actor) as scope:
                erasures.learn(scope, erasure_id, [asdict(version) for version in found])
        return len(waiting)

    def _erase(
        self, tenant: str, actor: str, name: str, reason: str, find: Callable[[Scope], Reach]
    ) -> ErasureReport:
        with self._store.write(tenant, actor) as scope:
            row = erasures.remove(scope, find(scope), name=name, reason=reason)
        return self._finish(tenant, actor, row.id)

    def _finish(self, tenant: str, actor: str, erasure_id: str) -> ErasureReport:
        with self._store.read(tenant, actor) as scope:
            open_ = [c.sha256 for c in erasures.contents(scope, erasure_id) if c.settled_at is None]
        try:
            for sha256 in open_:
                self._collect(tenant, actor, sha256, erasure_id)
        except RetidermError as error:
            _log.warning("the erasure %s waits: %s", erasure_id, error.code)
            return self._report(tenant, erasure_id)
        with self._store.write(tenant, actor) as scope:
            erasures.finish(scope, erasure_id)
        self._store.settle()
        return self._report(tenant, erasure_id)

    def _collect(self, tenant: str, actor: str, sha256: str, erasure_id: str | None = None) -> bool:
        """Remove a content that nobody refers to. Says whether somebody does.

        A crash between any two steps leaves a note that says more than is so: that bytes are gone which are
        still there. Uploads then look for them in vain, and the erasure's resumption, or the next sweep,
        begins here again.
        """
        with alone_with(self._store, tenant, sha256):
            with self._store.write(tenant, actor) as scope:
                kept = images.lock_content(scope, sha256) > 0
                if kept and erasure_id is not None:
                    erasures.settle(scope, erasure_id, sha256, kept=True)
                elif not kept:
                    images.let_go(scope, sha256)
            if kept:
                return True
            self._blobs.delete(tenant, sha256)
            with self._store.write(tenant, actor) as scope:
                images.forget_content(scope, sha256)
                if erasure_id is not None:
                    erasures.settle(scope, erasure_id, sha256, kept=False)
        return False

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
