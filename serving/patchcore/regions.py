"""The regions that this server answers for: on disk by the store, the recent ones in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.errors import RequestError
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.extractor import ExtractorCard
from serving.core.patchcore.memory import Memory
from serving.core.patchcore.search import Index
from serving.core.patchcore.store import RoiStore, StoredRoi
from serving.patchcore.asked import Named
from serving.patchcore.cache import Recent
from serving.patchcore.settings import Limits


@dataclass(frozen=True, slots=True)
class Served:
    """A region that this server's extractor may be compared with."""

    stored: StoredRoi

    @property
    def index(self) -> Index:
        """What finds the nearest embedding."""
        return self.stored.index


class Regions:
    """Memories by their names. Every call looks at the disk first, so that another process's fit counts."""

    def __init__(self, models_dir: Path, card: ExtractorCard, limits: Limits) -> None:
        """``card``: the extractor whose patches the memories are to be compared with."""
        self._store = RoiStore(models_dir)
        self._card = card
        self._recent: Recent[Served] = Recent(limits.max_rois, limits.cache_bytes)

    def serving(self, named: Named) -> Served:
        """The region as it is on the disk now.

        Raises:
            RequestError: there is no memory for it, or another extractor made it.
            IntegrityError: its files are damaged.
        """
        return self._recent.get(named, self._store.stamp(named.role, named.roi), lambda: self._load(named))

    def publish(self, named: Named, memory: Memory, after: StoredRoi | None) -> str:
        """Put a new generation in place; ``after``: the one that it was made from, which must still be there.

        Raises:
            RequestError: another process has fitted the region meanwhile.
        """
        if after is not None and self._store.load(named.role, named.roi).generation != after.generation:
            raise RequestError(
                f"ROI {named.roi!r} of role {named.role!r} was fitted by another process meanwhile.",
                hint="Send the images again, to join the new memory.",
            )
        generation = self._store.publish(named.role, named.roi, memory)
        self._recent.drop(named)
        return generation

    def calibrate(self, named: Named, calibration: Calibration) -> None:
        """Store a calibration of the memory that is there.

        Raises:
            RequestError: there is none, another extractor's, or one that was fitted meanwhile.
        """
        generation = self.serving(named).stored.generation
        self._store.save_calibration(named.role, named.roi, calibration, generation=generation)
        self._recent.drop(named)

    def _load(self, named: Named) -> tuple[Served, int]:
        stored = self._store.load(named.role, named.roi)
        stored.memory.require(self._card)
        # The vectors lie in memory twice, once in the index.
        return Served(stored), 2 * stored.memory.emb.nbytes
