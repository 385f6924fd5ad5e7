"""``retiderm token``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.errors import Conflict, NotFound, RetidermError, UsageError
from serving.gateway.access import Gate, Role
from serving.gateway.cli import app
from serving.gateway.store import open_store

runner = CliRunner()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("GATEWAY_TENANT", "API_KEY", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return f"sqlite:///{tmp_path / 'gateway.db'}"


def ask(database: str, *words: str) -> tuple[str, str]:
    result = runner.invoke(app, [*words, "--database", database])
    if result.exception is not None:
        raise result.exception
    return result.stdout.strip(), result.stderr


def open_(database: str, text: str) -> Role:
    store = open_store(database)
    try:
        return Gate(store).open(text).role
    finally:
        store.close()


def test_a_tokens_life(database: str) -> None:
    text, said = ask(
        database, "create", "tablet 1", "--role", "reviewer", "--kind", "bearer", "--lives", "90d"
    )
    assert text.startswith("rtb_")
    assert "not shown again" in said
    assert open_(database, text) is Role.REVIEWER
    listed, _ = ask(database, "list")
    assert "tablet 1" in listed
    assert text.split("_", 2)[2] not in listed
    newer, said = ask(database, "rotate", "tablet 1", "--overlap", "0s")
    assert "the old one ends" in said
    assert open_(database, newer) is Role.REVIEWER
    with pytest.raises(RetidermError):
        open_(database, text)
    out, _ = ask(database, "revoke", newer.split("_")[1])
    assert out.startswith("revoked")
    with pytest.raises(RetidermError):
        open_(database, newer)
    assert "tablet 1" not in ask(database, "list")[0]
    assert ask(database, "list", "--all")[0].count("tablet 1") == 2


def test_tenants(database: str) -> None:
    ask(database, "create", "a", "--tenant", "clinic")
    ask(database, "create", "b")
    listed, _ = ask(database, "tenants")
    assert [line.split("  ")[1] for line in listed.splitlines()] == ["clinic", "default"]
    assert "b" not in ask(database, "list", "--tenant", "clinic")[0].split()
    by_id = listed.split("  ")[0]
    assert " a " in ask(database, "list", "--tenant", by_id)[0]


def subject_of(database: str, text: str) -> str:
    store = open_store(database)
    try:
        return Gate(store).open(text).subject
    finally:
        store.close()


def test_a_person_is_called_by_name_and_an_app_by_a_number(database: str) -> None:
    eve, said = ask(database, "create", "Dr. Eve", "--role", "reviewer")
    assert subject_of(database, eve) == "Dr. Eve"
    assert "one reader" not in said
    again, said = ask(database, "create", "Dr. Eve", "--role", "reviewer")
    assert subject_of(database, again) == "Dr. Eve"
    assert "Dr. Eve has another token: both are one reader" in said
    other, said = ask(database, "create", "Dr. Eve", "--role", "admin", "--subject", "eve@example.org")
    assert subject_of(database, other) == "eve@example.org"
    assert "one reader" not in said
    apps = [subject_of(database, ask(database, "create", "camera")[0]) for _ in range(2)]
    assert len({*apps, "camera"}) == 3


def test_wrong_words(database: str) -> None:
    ask(database, "create", "twice")
    ask(database, "create", "twice")
    wrong = [
        (("create", "x", "--role", "root"), UsageError),
        (("create", "x", "--kind", "cookie"), UsageError),
        (("create", "x", "--lives", "soon"), UsageError),
        (("create", "x", "--tenant", "6f9619ff-8b86-4011-b42d-00c04fc964ff"), NotFound),
        (("revoke", "twice"), Conflict),
        (("revoke", "nobody"), NotFound),
        (("list", "--tenant", "nobody"), NotFound),
    ]
    for words, error in wrong:
        with pytest.raises(error) as found:
            ask(database, *words)
        assert found.value.hint
