"""training/registry/ledger.py: the chain, what each damage shows as, and what a crash leaves."""

from __future__ import annotations

import json
import multiprocessing
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import LedgerError, RegistryError
from training.registry.ledger import Head, Ledger, whoami
from training.registry.locks import locked
from training.registry.signing import KEY_VARIABLE, load_key


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return Ledger(tmp_path / "registry")


def fill(ledger: Ledger, count: int = 4) -> None:
    for number in range(count):
        ledger.append(
            "intent", task="a" if number % 2 else "b", version=str(number), why=f"reason {number} é"
        )


def rewrite(ledger: Ledger, change: Callable[[list[str]], None]) -> None:
    lines = ledger.path.read_text().splitlines(keepends=True)
    change(lines)
    ledger.path.write_text("".join(lines))


def kinds(ledger: Ledger, heads: dict[str, str] | None = None) -> list[str]:
    return [problem.kind for problem in ledger.verify(heads)]


def test_entries_come_back_in_order_and_verify(ledger: Ledger) -> None:
    fill(ledger)
    entries = ledger.entries()
    assert [e.event for e in entries] == ["begin"] + ["intent"] * 4
    assert [e.seq for e in entries] == list(range(5))
    assert [e.version for e in ledger.entries("a")] == ["1", "3"]
    assert all(e.who == whoami() for e in entries[1:])
    assert ledger.verify() == []
    assert stat.S_IMODE(ledger.key_path.stat().st_mode) == 0o600


def test_an_empty_ledger_is_sound(ledger: Ledger) -> None:
    assert (ledger.entries(), ledger.verify(), ledger.head()) == ([], [], None)


def test_an_unknown_event_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="not an event"):
        ledger.append("party")


def test_an_edit_shows_at_its_line_only(ledger: Ledger) -> None:
    fill(ledger)
    rewrite(ledger, lambda lines: lines.__setitem__(2, lines[2].replace("reason 1", "reason X")))
    (problem,) = ledger.verify()
    assert (problem.kind, problem.line) == ("altered", 3)
    assert "altered after it was written" in problem.message


def test_an_edit_that_also_mends_the_hash_is_forged(ledger: Ledger) -> None:
    fill(ledger)

    def forge(lines: list[str]) -> None:
        from dataclasses import replace

        entry = replace(ledger.entries()[-1], why="forged")
        entry = replace(entry, hash=entry.computed_hash())
        lines[-1] = (
            json.dumps(entry.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        )

    rewrite(ledger, forge)
    assert kinds(ledger) == ["forged", "rewritten"]
    with pytest.raises(LedgerError, match="altered or signed by another key"):
        ledger.append("done")


def test_a_removed_line_shows(ledger: Ledger) -> None:
    fill(ledger)
    rewrite(ledger, lambda lines: lines.__delitem__(2))
    assert kinds(ledger) == ["order", "chain", "order", "cut"]


def test_swapped_lines_show(ledger: Ledger) -> None:
    fill(ledger)
    rewrite(ledger, lambda lines: lines.insert(1, lines.pop(2)))
    assert "chain" in kinds(ledger)


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", "\x00\x00", '{"seq": 1}'])
def test_an_unreadable_line_shows(ledger: Ledger, line: str) -> None:
    fill(ledger)
    rewrite(ledger, lambda lines: lines.__setitem__(2, line + "\n"))
    assert kinds(ledger) == ["unreadable"]
    with pytest.raises(LedgerError, match="Line 3"):
        ledger.entries()


def test_the_same_entry_in_other_bytes_shows(ledger: Ledger) -> None:
    fill(ledger)
    rewrite(ledger, lambda lines: lines.__setitem__(1, json.dumps(json.loads(lines[1])) + "\n"))
    assert kinds(ledger) == ["unreadable"]


def test_a_cut_tail_shows_and_stops_writing(ledger: Ledger) -> None:
    fill(ledger)
    rewrite(ledger, lambda lines: lines.__delitem__(slice(3, None)))
    (problem,) = ledger.verify()
    assert problem.kind == "cut"
    assert "head.json knows entry 4, the ledger ends at 2" in problem.message
    with pytest.raises(LedgerError, match="nothing was changed: the tail was cut"):
        ledger.require_sound()
    with pytest.raises(LedgerError, match="tail was cut"):
        ledger.append("done")
    assert len(ledger.entries()) == 3


def test_a_cut_tail_with_an_older_head_shows_against_the_one_kept_elsewhere(ledger: Ledger) -> None:
    fill(ledger, 2)
    old_head = ledger.head_path.read_text()
    fill(ledger, 2)
    head = ledger.head()
    assert head is not None
    elsewhere = {"MLflow": head.to_json()}
    assert ledger.verify(elsewhere) == []
    rewrite(ledger, lambda lines: lines.__delitem__(slice(3, None)))
    ledger.head_path.write_text(old_head)
    assert kinds(ledger) == []
    (problem,) = ledger.verify(elsewhere)
    assert (problem.kind, "MLflow knows entry 4" in problem.message) == ("cut", True)


def test_everything_gone_shows(ledger: Ledger) -> None:
    fill(ledger)
    ledger.path.unlink()
    assert kinds(ledger) == ["cut"]
    with pytest.raises(LedgerError, match="empty but its head"):
        ledger.append("done")
    assert not ledger.path.exists()


def test_a_ledger_begun_anew_by_another_key_shows(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger)
    head = ledger.head()
    assert head is not None
    other = Ledger(tmp_path / "other")
    fill(other, 9)
    assert kinds(other, {"MLflow": head.to_json()}) == ["head"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"seq": "1", "hash": "", "signature": "", "public_key": ""}']
)
def test_a_damaged_head_shows(ledger: Ledger, text: str) -> None:
    fill(ledger)
    ledger.head_path.write_text(text)
    assert kinds(ledger) == ["head"]
    with pytest.raises(LedgerError, match="not the head"):
        ledger.append("done")


def test_a_forged_head_shows(ledger: Ledger) -> None:
    fill(ledger)
    head = ledger.head()
    assert head is not None
    forged = Head(99, "f" * 64, head.signature, head.public_key)
    assert kinds(ledger, {"MLflow": forged.to_json()}) == ["head"]


def test_a_missing_head_shows_and_comes_back_with_the_next_entry(ledger: Ledger) -> None:
    fill(ledger)
    ledger.head_path.unlink()
    assert kinds(ledger) == ["headless"]
    ledger.require_sound()
    ledger.append("done", task="a")
    assert ledger.verify() == []


def test_a_crash_before_the_head_is_no_damage(ledger: Ledger) -> None:
    fill(ledger, 3)
    behind = ledger.head_path.read_text()
    fill(ledger, 1)
    ledger.head_path.write_text(behind)
    assert ledger.verify() == []
    fill(ledger, 1)
    assert ledger.verify() == []


@pytest.mark.parametrize("cut", [1, 7, 100, -1])
def test_a_torn_last_line_is_told_and_set_aside_by_the_next_write(ledger: Ledger, cut: int) -> None:
    fill(ledger, 3)
    head = ledger.head_path.read_text()
    whole = ledger.path.read_bytes()
    fill(ledger, 1)
    line = ledger.path.read_bytes()[len(whole) :]
    ledger.path.write_bytes(whole + line[:cut])  # as a crash leaves it: the head was not yet written
    ledger.head_path.write_text(head)
    assert kinds(ledger) == ["torn"]
    assert len(ledger.entries()) == 4
    ledger.append("done", task="a")
    entries = ledger.entries()
    assert [e.event for e in entries[-2:]] == ["repair", "done"]
    assert entries[-2].data["bytes"] == len(line[:cut])
    assert (ledger.folder / entries[-2].data["file"]).read_bytes() == line[:cut]
    assert ledger.verify() == []


def test_torn_in_the_very_first_line(ledger: Ledger) -> None:
    ledger.folder.mkdir()
    load_key(ledger.key_path, create=True)
    ledger.path.write_bytes(b'{"data":')
    ledger.append("done")
    assert [e.event for e in ledger.entries()] == ["begin", "repair", "done"]
    assert ledger.verify() == []


def test_a_lost_key_stops_writing_and_is_never_silently_replaced(ledger: Ledger) -> None:
    fill(ledger)
    ledger.key_path.unlink()
    assert kinds(ledger) == ["key"]
    with pytest.raises(LedgerError, match="is missing, so nothing"):
        ledger.append("done")
    assert not ledger.key_path.exists()


def test_a_swapped_key_shows(ledger: Ledger) -> None:
    fill(ledger)
    ledger.key_path.unlink()
    load_key(ledger.key_path, create=True)
    assert kinds(ledger) == ["key"]
    with pytest.raises(LedgerError, match="another key"):
        ledger.append("done")


def test_the_key_can_live_elsewhere(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "secret" / "key.pem"))
    fill(ledger)
    assert ledger.verify() == []
    assert not (ledger.folder / "ledger.key").exists()


def test_a_damaged_ledger_can_be_set_aside_by_name(ledger: Ledger) -> None:
    fill(ledger)
    rewrite(ledger, lambda lines: lines.__delitem__(2))
    aside = ledger.retire("the disk failed", who="alice")
    assert {p.name for p in aside.iterdir()} == {"ledger.jsonl", "head.json", "ledger.key"}
    assert ledger.verify() == []
    begin, repair = ledger.entries()
    assert (begin.event, repair.event, repair.who, repair.why) == (
        "begin",
        "repair",
        "alice",
        "the disk failed",
    )
    assert repair.data["problems"]


def _write_many(folder: Path, name: str) -> None:
    ledger = Ledger(folder)
    for number in range(15):
        ledger.append("step", task=name, version=str(number), who=name)


def test_concurrent_writers_make_one_chain(ledger: Ledger) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(ledger.folder, f"w{n}")) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert ledger.verify() == []
    assert len(ledger.entries()) == 46
    for n in range(3):
        assert [e.version for e in ledger.entries(f"w{n}")] == [str(i) for i in range(15)]


def test_a_clock_set_back_does_not_turn_the_history_round(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ledger, 1)
    import datetime as dt

    from training.registry import ledger as module

    class Yesterday(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr(module.dt, "datetime", Yesterday)
    fill(ledger, 1)
    times = [e.time for e in ledger.entries()]
    assert times == sorted(times)


def test_a_lock_that_is_held_names_its_holder(tmp_path: Path) -> None:
    import os

    with locked(tmp_path / "x.lock", "Promoting a"):
        result: list[BaseException] = []

        def other() -> None:
            try:
                with locked(tmp_path / "x.lock", "Promoting a", timeout=0.1):
                    pass
            except RegistryError as error:
                result.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"({os.getpid()})" in str(result[0])
    with locked(tmp_path / "x.lock", "Promoting a", timeout=0.1):
        pass


def test_who_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETIDERM_WHO", "pipeline run 7")
    assert whoami() == "pipeline run 7"
