"""The history of what served: JSON Lines that only grow, each chained to the one before and signed.

::

    <home>/registry/ledger.jsonl    one entry a line, all tasks in one chain
    <home>/registry/head.json       the last entry's place: {seq, hash, signature, public_key}
    <home>/registry/ledger.key      the private key, 0600 (or where RETIDERM_LEDGER_KEY says)

An entry's ``hash`` covers everything in it, the hash before included; its ``signature`` covers the hash. So
an edit, a removal, an insertion and a forged entry each show at their line. A cut tail leaves a chain that
is sound but too short: it shows against the head, which is kept here and, by promotions, in MLflow too.

The first entry carries the public key. A line is added under a lock, flushed to disk, and only then the head.
A crash can leave two things: a torn last line, which the next writer sets aside and tells; and a head that is
one entry behind, which is no damage, since that entry is signed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data.errors import LedgerError
from data.files import canonical_json, fsync_dir, sha256_bytes, sha256_file, write_bytes, write_json
from data.paths import home

from .chain import EVENTS, NO_HASH, Entry, Head, Problem, check_entry, check_head, head_of, parse
from .locks import locked
from .signing import Key, key_path, load_key, verify_signature

__all__ = ["Entry", "Head", "Ledger", "Problem", "whoami"]


def whoami() -> str:
    """Who acts: ``RETIDERM_WHO`` (a pipeline sets it to its run), else the user's name."""
    named = os.environ.get("RETIDERM_WHO")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without an entry
        return f"uid {os.getuid()}"


class Ledger:
    """The ledger of one folder. Cheap to make; several processes may hold one each."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else home().registry

    @property
    def path(self) -> Path:
        """The chain."""
        return self.folder / "ledger.jsonl"

    @property
    def head_path(self) -> Path:
        """The head kept beside it."""
        return self.folder / "head.json"

    @property
    def key_path(self) -> Path:
        """The private key."""
        return key_path(self.folder)

    def append(
        self,
        event: str,
        *,
        task: str = "",
        version: str = "",
        digest: str = "",
        who: str | None = None,
        why: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Add an entry; it is on disk when this returns.

        Raises:
            LedgerError: the end of the history is damaged or cut, or the key is gone: nothing is added then.
        """
        if event not in EVENTS:
            raise LedgerError(f"{event!r} is not an event of the ledger.")
        with locked(self.folder / "ledger.lock", "Writing the ledger"):
            torn = self._set_torn_line_aside()
            last = self._last()
            key = load_key(self.key_path, create=last is None and self._head_or_none() is None)
            self._check_end(last, key)
            if last is None:
                last = self._write(key, None, Entry(0, "", "", "begin", data={"public_key": key.public}))
            if torn is not None:
                last = self._write(key, last, Entry(0, "", "", "repair", who=whoami(), data=torn))
            entry = Entry(
                0, "", "", event, task, version, digest, who if who is not None else whoami(), why, data or {}
            )
            return self._write(key, last, entry)

    def entries(self, task: str | None = None) -> list[Entry]:
        """Every entry, oldest first, or those of a task. A torn last line is left out.

        Raises:
            LedgerError: a line can't be read; `verify` says which.
        """
        found = []
        for number, line in enumerate(self._lines(), 1):
            try:
                entry = parse(line)
            except ValueError as error:
                raise LedgerError(
                    f"Line {number} of the ledger can't be read: {error}.",
                    hint="See `retiderm models verify`.",
                ) from None
            if task is None or entry.task == task:
                found.append(entry)
        return found

    def known(self) -> tuple[set[str], str]:
        """The tasks that readable lines name, and the public key: the first line's, else the key file's."""
        tasks, public = set(), ""
        for number, line in enumerate(self._lines()):
            try:
                entry = parse(line)
            except ValueError:
                continue
            tasks.add(entry.task)
            if number == 0:
                public = str(entry.data.get("public_key", ""))
        if not public:
            with contextlib.suppress(LedgerError):
                public = load_key(self.key_path).public
        return tasks - {""}, public

    def head(self) -> Head | None:
        """Where the chain stands now, from its last line; None for an empty ledger."""
        entries = self.entries()
        if not entries:
            return None
        return head_of(entries[-1], str(entries[0].data.get("public_key", "")))

    def verify(self, heads: Mapping[str, str] | None = None) -> list[Problem]:
        """Everything that is wrong with the chain, in the order of its lines.

        ``heads`` are heads kept elsewhere, by a name for the place: each must be a place on this chain.
        """
        problems: list[Problem] = []
        lines = self._lines()
        hashes: list[str] = []
        public = ""
        previous = NO_HASH
        for number, line in enumerate(lines, 1):
            try:
                entry = parse(line)
            except ValueError as error:
                problems.append(Problem("unreadable", number, f"line {number} can't be read: {error}"))
                hashes.append("")
                previous = ""
                continue
            if number == 1:
                public = str(entry.data.get("public_key", ""))
            problems += check_entry(entry, number, previous, public)
            hashes.append(entry.hash)
            previous = entry.hash
        if self._tail():
            problems.append(
                Problem(
                    "torn",
                    len(lines) + 1,
                    f"the last line is torn after {len(self._tail())} bytes: a write was cut off; "
                    "the next write sets it aside",
                )
            )
        places = {"head.json": self._head_text(), **(heads or {})}
        for place, text in places.items():
            problems += check_head(place, text, hashes, public)
        problems += self._check_key(public, empty=not lines)
        return problems

    def require_sound(self, heads: Mapping[str, str] | None = None) -> None:
        """Refuse to build on a damaged history. What a crash leaves (a torn line, no head yet) is no damage.

        Raises:
            LedgerError: with the first thing that is wrong.
        """
        for problem in self.verify(heads):
            if problem.kind not in ("torn", "headless"):
                raise LedgerError(
                    f"The ledger is damaged, so nothing was changed: {problem.message}.",
                    hint="`retiderm models verify` tells all; restore it from a backup, or set it aside: "
                    "`retiderm models reconcile --new-ledger --why …`.",
                )

    def retire(self, why: str, who: str | None = None) -> Path:
        """Set a damaged history aside and begin a new one, whose first entries name the old and its damage.

        Returns:
            The folder with the old ledger, its head and its key.
        """
        problems = self.verify()
        stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
        aside = self.folder / f"retired-{stamp}"
        with locked(self.folder / "ledger.lock", "Writing the ledger"):
            aside.mkdir(parents=True)
            old = sha256_file(self.path) if self.path.is_file() else ""
            for path in (self.path, self.head_path, self.folder / "ledger.key"):
                if path.is_file():
                    path.replace(aside / path.name)
            fsync_dir(self.folder)
        data = {"retired": aside.name, "sha256": old, "problems": [p.message for p in problems][:50]}
        self.append("repair", who=who, why=why, data=data)
        return aside

    # the file

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _lines(self) -> list[bytes]:
        return self._bytes().split(b"\n")[:-1]

    def _tail(self) -> bytes:
        """What follows the last newline: nothing, or a torn line."""
        return self._bytes().rpartition(b"\n")[2]

    def _last(self) -> Entry | None:
        lines = self._lines()
        if not lines:
            return None
        try:
            return parse(lines[-1])
        except ValueError as error:
            raise LedgerError(
                f"The ledger's last line can't be read: {error}.", hint="See `retiderm models verify`."
            ) from None

    def _set_torn_line_aside(self) -> dict[str, Any] | None:
        tail = self._tail()
        if not tail:
            return None
        digest = sha256_bytes(tail)
        name = f"torn-{digest[:12]}.txt"
        write_bytes(self.folder / name, tail)
        with self.path.open("r+b") as stream:
            stream.truncate(stream.seek(0, os.SEEK_END) - len(tail))
            stream.flush()
            os.fsync(stream.fileno())
        return {"file": name, "bytes": len(tail), "sha256": digest}

    def _write(self, key: Key, last: Entry | None, entry: Entry) -> Entry:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        entry = replace(
            entry,
            seq=last.seq + 1 if last else 0,
            prev=last.hash if last else NO_HASH,
            # A clock that was set back must not turn the history round.
            time=max(now, last.time) if last else now,
        )
        entry = replace(entry, hash=entry.computed_hash())
        entry = replace(entry, signature=key.sign(entry.hash))
        line = canonical_json(entry.to_dict()).encode() + b"\n"
        new = not self.path.exists()
        with self.path.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        if new:
            fsync_dir(self.folder)
        write_json(self.head_path, asdict(head_of(entry, key.public)))
        return entry

    # the checks

    def _head_text(self) -> str | None:
        try:
            return self.head_path.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def _head_or_none(self) -> Head | None:
        text = self._head_text()
        return Head.from_json(text) if text is not None else None

    def _check_end(self, last: Entry | None, key: Key) -> None:
        """What can be told cheaply before adding to a chain: its last entry is ours and nothing was cut."""
        hint = "`retiderm models verify` says what is wrong; restore the ledger from a backup or retire it."
        head = self._head_or_none()
        if last is None:
            if head is not None:
                raise LedgerError(f"The ledger is empty but its head knows entry {head.seq}.", hint=hint)
            return
        if last.hash != last.computed_hash() or not verify_signature(key.public, last.hash, last.signature):
            raise LedgerError("The ledger's last entry was altered or signed by another key.", hint=hint)
        if head is not None and head.seq > last.seq:
            raise LedgerError(
                f"The ledger's tail was cut: it ends at entry {last.seq}, its head knows {head.seq}.",
                hint=hint,
            )
        if head is not None and head.seq == last.seq and head.hash != last.hash:
            raise LedgerError("The ledger's last entry is not the one that its head names.", hint=hint)

    def _check_key(self, public: str, *, empty: bool) -> list[Problem]:
        if empty:
            return []
        try:
            key = load_key(self.key_path)
        except LedgerError as error:
            return [Problem("key", 0, f"the key can't be used: {error.message}")]
        if key.public != public:
            return [Problem("key", 0, "the key file holds another key than the one that began this ledger")]
        return []
