"""From a fit's embeddings to a memory: a first one, or one that joins the memory that there is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.patchcore.coreset import Coreset, coreset_size, select
from serving.core.patchcore.extractor import ExtractorCard
from serving.core.patchcore.incremental import extend
from serving.core.patchcore.memory import DISTANCE, Memory, MemoryInfo, unit
from serving.patchcore.desk import Deadline

_SEED = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A new memory and what ``/fit_ok`` says of it.

    ``bound``, of an incremental fit: no patch that the region was ever fitted with is farther than this from
    the memory (squared L2); None where the older memory doesn't tell how far its own were.
    """

    memory: Memory
    requested: float
    n_embeddings: int
    incremental: bool = False
    bound: float | None = None

    def answer(self) -> dict[str, Any]:
        """The answer to ``/fit_ok``."""
        size = len(self.memory.emb)
        plain: dict[str, Any] = {
            "n_embeddings": self.n_embeddings,
            "coreset_size": size,
            "token_shape": list(self.memory.grid),
            "coreset_rate_requested": self.requested,
            "coreset_rate_applied": size / self.n_embeddings,
        }
        if self.incremental:
            plain["cover_radius_bound"] = self.bound
        return plain


@dataclass(frozen=True, slots=True)
class Fitter:
    """How memories are made: by which extractor, at which rate, within how much memory."""

    card: ExtractorCard
    memory_bytes: int

    def first(self, embeddings: NDArray[np.float32], rate: float, images: int, deadline: Deadline) -> Fitted:
        """A memory of nothing but these embeddings [n, D]."""
        count = coreset_size(len(embeddings), rate)
        if count == len(embeddings):  # nothing to choose: to rank n rows by n rows would take hours
            chosen = Coreset(np.arange(count), 0.0, 0)
        else:
            chosen = select(
                embeddings,
                count,
                seed=_SEED,
                progress=lambda _done, _all: deadline.check(),
                memory_bytes=self.memory_bytes,
            )
        memory = Memory(
            unit(embeddings[chosen.indices]),
            *self.card.grid,
            MemoryInfo(
                extractor=self.card.backbone,
                extractor_digest=self.card.digest,
                input_size=self.card.input_size,
                coreset_rate=rate,
                coreset_rate_applied=count / len(embeddings),
                count_images=images,
                n_embeddings=len(embeddings),
                radius=chosen.radius,
                seed=_SEED,
                distance=DISTANCE,
            ),
        )
        return Fitted(memory, rate, len(embeddings))

    def joined(
        self,
        before: Memory,
        pool: NDArray[np.float32],
        rate: float,
        images: int,
        deadline: Deadline,
    ) -> Fitted:
        """A memory of an older one's vectors and new embeddings, at ``rate`` of all there ever were.

        ``pool`` [M + n, D] holds the older one's M vectors and then the n new embeddings.
        The older memory's own embeddings are gone; ``serving.core.patchcore.incremental`` states what that
        costs. An older version's memory that doesn't tell how many they were counts as made at the rate that
        it tells, or at this one: counted by its own vectors alone it would shrink to a fiftieth.
        """
        info = before.info or MemoryInfo()
        was = info.coreset_rate_applied or info.coreset_rate or rate
        ever = info.n_embeddings or round(len(before.emb) / min(max(was, 1e-6), 1.0))
        before = replace(before, info=replace(info, n_embeddings=ever))
        embeddings = pool[len(before.emb) :]
        memory, bound = extend(
            before,
            embeddings,
            coreset_size(ever + len(embeddings), rate),
            new_images=images,
            seed=_SEED,
            progress=lambda _done, _all: deadline.check(),
            memory_bytes=self.memory_bytes,
            pool=pool,
            extractor=self.card.backbone,
            extractor_digest=self.card.digest,
            input_size=self.card.input_size,
            coreset_rate=rate,
            distance=DISTANCE,
        )
        return Fitted(memory, rate, ever + len(embeddings), incremental=True, bound=bound)
