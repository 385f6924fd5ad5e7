"""What a ledger's line is, and everything that can be wrong with one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from data.errors import LedgerError
from data.files import canonical_json, sha256_bytes

from .signing import verify_signature

NO_HASH = "0" * 64
EVENTS = (
    "begin",  # the first entry: names the public key
    "repair",  # a torn line was set aside
    "intent",  # a promotion or rollback is about to start; `data` says from where to where
    "step",  # one step of it is done
    "done",  # it serves
    "undone",  # what was done of it was taken back
    "reconcile",  # the registry, the pointer or the cluster was put back to what the ledger says
    "approval",  # a person approved a version
    "import",  # a model that was trained elsewhere came in
    "gate",  # a decision
    "challenge",  # a version is to answer beside the champion; `data` says how
    "withdraw",  # and no longer
)

_FIELDS = frozenset(
    ("seq", "prev", "time", "event", "task", "version", "digest", "who", "why", "data", "hash", "signature")
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history."""

    seq: int
    prev: str
    time: str  # UTC, ISO 8601
    event: str
    task: str = ""
    version: str = ""
    digest: str = ""  # of the version's bundle
    who: str = ""
    why: str = ""
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    hash: str = ""
    signature: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {name: getattr(self, name) for name in sorted(_FIELDS)} | {"data": dict(self.data)}

    def computed_hash(self) -> str:
        """What ``hash`` must be."""
        content = self.to_dict()
        del content["hash"], content["signature"]
        return sha256_bytes(canonical_json(content).encode())


@dataclass(frozen=True, slots=True)
class Head:
    """How far the chain had come: enough to show a cut tail."""

    seq: int
    hash: str
    signature: str
    public_key: str

    def to_json(self) -> str:
        """One line, as an MLflow tag holds it."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Head:
        """Read it back.

        Raises:
            LedgerError: it is not a head.
        """
        try:
            raw = json.loads(text)
            head = cls(**raw)
        except (ValueError, TypeError):
            raise LedgerError("This is not the head of a ledger.") from None
        if not (isinstance(head.seq, int) and all(isinstance(v, str) for k, v in raw.items() if k != "seq")):
            raise LedgerError("This is not the head of a ledger.")
        return head


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of damage, in one line. ``line`` counts from 1; 0 means the ledger as a whole."""

    kind: str
    line: int
    message: str


def parse(line: bytes) -> Entry:
    """Read a line.

    Raises:
        ValueError: it is not an entry, or not in the bytes that this ledger writes.
    """
    raw = json.loads(line)
    if not isinstance(raw, dict) or set(raw) != _FIELDS:
        raise ValueError("it is not an entry")
    entry = Entry(**raw)
    texts = (
        entry.prev,
        entry.time,
        entry.event,
        entry.task,
        entry.version,
        entry.digest,
        entry.who,
        entry.why,
    )
    if not (
        isinstance(entry.seq, int)
        and isinstance(entry.data, dict)
        and all(isinstance(text, str) for text in (*texts, entry.hash, entry.signature))
    ):
        raise ValueError("it is not an entry")
    if canonical_json(entry.to_dict()).encode() != line:
        raise ValueError("it is not written as this ledger writes")
    return entry


def head_of(entry: Entry, public: str) -> Head:
    """The head that ends at an entry."""
    return Head(entry.seq, entry.hash, entry.signature, public)


def check_entry(entry: Entry, number: int, previous: str, public: str) -> list[Problem]:
    """What is wrong with a line, ``number`` from 1; ``previous`` is empty where it was unreadable."""
    found = []
    what = f"line {number} ({entry.event} {entry.task} {entry.version}".rstrip() + ")"
    if entry.seq != number - 1:
        found.append(Problem("order", number, f"{what} has number {entry.seq}, {number - 1} was due"))
    if entry.hash != entry.computed_hash():
        found.append(Problem("altered", number, f"{what} was altered after it was written"))
    elif not verify_signature(public, entry.hash, entry.signature):
        found.append(Problem("forged", number, f"{what} was not signed by the ledger's key"))
    if previous and entry.prev != previous:
        found.append(Problem("chain", number, f"before {what} an entry was removed, inserted or altered"))
    return found


def check_head(place: str, text: str | None, hashes: list[str], public: str) -> list[Problem]:
    """What a head that was kept at ``place`` says about a chain of these hashes."""
    if text is None:
        # Only head.json can be None: the others are passed because they are there.
        message = f"{place} is missing, so that a cut tail would not show"
        return [Problem("headless", 0, message)] if hashes else []
    try:
        head = Head.from_json(text)
    except LedgerError:
        return [Problem("head", 0, f"{place} can't be read as a head")]
    if hashes and head.public_key != public:
        return [Problem("head", 0, f"{place} belongs to another ledger: it was signed by another key")]
    if not verify_signature(head.public_key, head.hash, head.signature):
        return [Problem("head", 0, f"{place} was not signed by its key")]
    if not hashes:
        message = f"the ledger is empty, but {place} knows entry {head.seq}: it was lost, or was never here"
        return [Problem("cut", 0, message)]
    if head.seq >= len(hashes):
        return [
            Problem(
                "cut",
                len(hashes),
                f"the tail was cut: {place} knows entry {head.seq}, the ledger ends at {len(hashes) - 1}",
            )
        ]
    if hashes[head.seq] != head.hash:
        return [
            Problem("rewritten", head.seq + 1, f"line {head.seq + 1} is not the entry that {place} names")
        ]
    return []
