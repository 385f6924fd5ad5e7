"""Why a reader should look at an image. Pure: what was said goes in, reasons come out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from data.errors import UsageError
from serving.replies import AnomalyReply, ModelReply

#: The reasons, each with what it adds to an entry's priority: what a user or a second model says weighs most.
WEIGHTS = {
    "rejected": 3.0,
    "disagreement": 2.0,
    "unusual": 1.5,
    "uncertain": 1.0,
    "several": 0.5,
    "audit": 0.25,
}

#: The priority of every image of the audit, whatever else is said of it, unless its user rejected the answer:
#: were doubtful ones of the audit read first, what readers have found so far in it would make the model look
#: worse than it is. Images outside the audit that are doubted for several reasons may come before all of it.
AUDITED = 2.95


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """When an image enters the queue.

    - ``unusual``: the share of usual images that have to be less unusual, 0 to 1; above 1 none enters.
    - ``audit``: the share of all answered images that enters whatever was said of them, 0 to 1.
    - ``readers``: how many readers an entry needs, one or two.
    - ``near``: an anomaly score is uncertain from threshold / (1 + near) to threshold · (1 + near); 0 for
      none but the threshold itself.
    """

    unusual: float = 0.99
    audit: float = 0.02
    readers: int = 1
    near: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.audit <= 1 or self.unusual < 0:
            raise UsageError("The audit rate is from 0 to 1, and the share of the unusual at least 0.")
        if not 0 <= self.near < math.inf:
            raise UsageError("How near to its threshold a score is uncertain is a number of at least 0.")
        if self.readers not in (1, 2):
            raise UsageError("An entry needs one reader or two.")

    def doubts(self, reply: ModelReply, *, unusual: float | None, key: str) -> tuple[str, ...]:
        """The reasons that an answer itself gives; none for an image that the quality gate refused.

        ``key`` names the image (its content's SHA-256): whether it is audited depends on nothing else, so
        that nobody can tell which images will be, and a repetition changes nothing.
        """
        if reply.verdict != "gradable":
            return ()
        found = []
        if any(head.uncertain for head in reply.heads.values()) or self._on_the_edge(reply.anomaly):
            found.append("uncertain")
        if any(len(head.members) > 1 for head in reply.heads.values()):
            found.append("several")
        if unusual is not None and unusual >= self.unusual:
            found.append("unusual")
        if _draw(f"{reply.model.name}:{key}") < self.audit:
            found.append("audit")
        return tuple(found)

    def _on_the_edge(self, said: AnomalyReply | None) -> bool:
        if said is None or not said.threshold or said.threshold <= 0:
            return False
        return 1 / (1 + self.near) <= said.score / said.threshold <= 1 + self.near


def priority(reasons: Iterable[str], reply: ModelReply | None = None) -> float:
    """The larger, the sooner: the reasons' weights, and within them the less confident answer first.

    Images of the audit are read in the order of their arrival, whatever else is said of them; rejected ones,
    and those outside the audit with doubts of more weight together than :data:`AUDITED`, come before them.
    """
    named = frozenset(reasons)
    if "audit" in named and "rejected" not in named:
        return AUDITED
    least = _least_sure(reply) if reply is not None else 1.0
    # Few digits: a page of the queue ends at a number that is written out.
    return round(sum(WEIGHTS[reason] for reason in named) + (1.0 - least) / 4, 6)


def _least_sure(reply: ModelReply) -> float:
    """The least confidence of a head; of an anomaly score its larger side (``selection.sides``)."""
    said = reply.anomaly
    if said is not None and said.threshold and said.threshold > 0:
        return max(said.score, said.threshold) / (said.score + said.threshold)
    return min((head.confidence for head in reply.heads.values()), default=1.0)


def disagree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two models give any head another label. A head that only one has is no disagreement."""
    return any(label != other[head] for head, label in one.items() if head in other)


def _draw(text: str) -> float:
    """A number from 0 to 1 that belongs to the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
