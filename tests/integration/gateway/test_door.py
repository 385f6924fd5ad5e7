"""Every route against everybody who may not come in, from the application itself: none can be forgotten.

What came of it is written down in docs/access.md.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from serving.gateway.access import Role, create, revoke
from serving.gateway.app import create_app
from serving.gateway.gateway import Gateway
from serving.gateway.routing import OwnedRoute
from serving.gateway.settings import Settings
from serving.gateway.store import Store, open_store, unscoped
from serving.gateway.systems import all_systems
from tests.gateway_rows import World, fill, folder_blobs

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "access.md"
#: Public by their nature: who they are is public, or the address itself is the secret.
PUBLIC = {
    "/livez", "/readyz", "/readyz/{system}", "/metrics", "/files/{tenant}/{sha256}", "/docs", "/openapi.json",
    "/docs/{name}", "/health", "/api/v1/analyze/health", "/review", "/review/", "/review/static/{name}",
    "/review/api/session",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    found = open_store(f"sqlite:///{tmp_path_factory.mktemp('door') / 'gateway.db'}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def app(store: Store, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("images")
    settings = Settings(models_url="http://127.0.0.1:9", requests_per_minute=10**6)
    return create_app(
        gateway=Gateway(settings, store=store, blobs=folder_blobs(folder)), systems=all_systems()
    )


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


@pytest.fixture(scope="module")
def ours(app: FastAPI, store: Store) -> World:
    """A tenant with something of every kind."""
    gateway: Gateway = app.state.gateway
    return fill(store, gateway.blobs, unscoped.create_tenant(store, "ours").id, "ours")


@pytest.fixture(scope="module")
def erasure(app: FastAPI, store: Store, ours: World) -> str:
    gateway: Gateway = app.state.gateway
    gateway.eraser.user(ours.tenant, "somebody", actor="test", reason="asked")
    with store.read(ours.tenant) as scope:
        from sqlalchemy import select

        from serving.gateway.store.tables import Erasure

        return str(scope.session.scalars(select(Erasure.id)).first())


@pytest.fixture(scope="module")
def tokens(store: Store, ours: World) -> dict[str, dict[str, str]]:
    """For each kind of token those that are refused, and good ones by role, ours and another tenant's."""
    return {"api_key": some_tokens(store, ours, "api_key"), "bearer": some_tokens(store, ours, "bearer")}


def some_tokens(store: Store, ours: World, kind: Literal["api_key", "bearer"]) -> dict[str, str]:
    theirs = unscoped.ensure_tenant(store, "theirs").id
    hour = dt.timedelta(hours=1)
    with store.write(ours.tenant, "test") as scope:
        made = {str(role): create(scope, role=role, name=str(role), kind=kind).text for role in Role}
        gone = create(scope, role=Role.ADMIN, name="gone", kind=kind)
        revoke(scope, gone.row.id)
        old = create(scope, role=Role.ADMIN, name="old", lives=hour, kind=kind)
        old.row.expires_at = scope.now - hour
    with store.write(theirs, "test") as scope:
        their = {f"their {r}": create(scope, role=r, name=f"their {r}", kind=kind).text for r in Role}
    unknown = {"api_key": "rtk", "bearer": "rtb"}[kind] + "_0123456789abcdef_" + "A" * 43
    return {**made, **their, "revoked": gone.text, "expired": old.text, "unknown": unknown}


@dataclass(frozen=True)
class Entry:
    """A route of the application, with the prefix under which it was included."""

    path: str
    route: OwnedRoute

    @property
    def method(self) -> str:
        """One that it answers."""
        return min(set(self.route.methods or {"GET"}) - {"HEAD"}, default="HEAD")

    @property
    def names(self) -> list[str]:
        """What the path names."""
        return re.findall(r"{(\w+)", self.path)


def entries_of(app: FastAPI) -> list[Entry]:
    """Every route. Anything else (a mounted application, a plain route) would come in past the door."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        assert isinstance(route, OwnedRoute), f"{route!r} is no route of an owner"
        found.append(Entry(str(context.path), route))
    return found


def test_every_route_says_who_may_use_it(app: FastAPI) -> None:
    entries = entries_of(app)
    assert len(entries) > 30
    for entry in entries:
        assert entry.route.access.public or entry.route.access.roles


def test_only_these_are_public(app: FastAPI) -> None:
    found = {entry.path for entry in entries_of(app) if entry.route.access.public}
    assert {path for path in found if not any(path.endswith(known) for known in PUBLIC)} == set()


def filled(entry: Entry, world: World, erasure: str) -> str:
    """The route's path with ids of the tenant that owns everything."""
    ids = {
        "patient_id": world.patient, "image_id": world.image, "scan_id": world.scan, "case_id": world.case,
        "prediction_id": world.prediction, "label_id": world.label, "job_id": world.job,
        "erasure_id": erasure, "entry_id": world.entry, "batch_id": world.batch,
        "task": "dr_grading", "name": "dr_grading",
    }  # fmt: skip
    if "/v1/" in entry.path:
        ids["case_id"] = world.case_row  # where S0 names a case by its app's own id
    unknown = set(entry.names) - set(ids)
    assert not unknown, f"{entry.path}: give an id of {unknown} here, so that another tenant is tried with it"
    return entry.path.format(**{name: ids[name] for name in entry.names})


def ask(client: TestClient, entry: Entry, path: str, token: str | None) -> Any:
    headers = {}
    if token is not None:
        name = entry.route.owner.headers[0]
        headers[name] = f"Bearer {token}" if name == "authorization" else token
    body = {"json": {}} if entry.method in ("POST", "PUT", "PATCH") else {}
    return client.request(entry.method, path, headers=headers, **body)


def test_nobody_comes_in_who_may_not(
    app: FastAPI, client: TestClient, ours: World, erasure: str, tokens: dict[str, dict[str, str]]
) -> None:
    rows: list[tuple[str, ...]] = []
    secrets = {ours.patient, ours.image, ours.scan, ours.prediction, ours.label, ours.job, "ada@example.org"}
    for entry in entries_of(app):
        access, named = entry.route.access, f"{entry.method} {entry.path}"
        if access.public:
            rows.append((entry.route.owner.name, named, "everybody", *[""] * 7))
            continue
        path = filled(entry, ours, erasure)
        known = tokens[entry.route.owner.token_kind or "api_key"]
        seen: dict[str, str] = {}
        for name, token in (("none", None), *((k, known[k]) for k in ("unknown", "expired", "revoked"))):
            response = ask(client, entry, path, token)
            assert response.status_code == 401, (named, name, response.status_code, response.text)
            seen[name] = "401"
        for role in (Role.APP, Role.REVIEWER):
            seen[role] = "in" if role.may(*access.roles) else "403"
            if seen[role] == "403":
                response = ask(client, entry, path, known[role])
                assert response.status_code == 403, (named, role, response.status_code, response.text)
        asked = ask(client, entry, path, known["their admin"])
        assert not (secrets & _words(asked.text)), (named, asked.text)
        assert asked.status_code != 500, (named, asked.text)
        seen["other"] = "their own only"
        if any(name.endswith("_id") for name in entry.names):
            assert asked.status_code >= 400, (named, asked.status_code, asked.text)
            seen["other"] = str(asked.status_code)
        answers = (seen[key] for key in ("none", "unknown", "expired", "revoked", "app", "reviewer", "other"))
        rows.append((entry.route.owner.name, named, ", ".join(access.roles), *answers))
    _write(rows)


def _words(text: str) -> set[str]:
    return set(text.replace('"', " ").replace("/", " ").replace(",", " ").split())


def _write(rows: list[tuple[str, ...]]) -> None:
    """docs/access.md, by the answers just seen."""
    head = (
        "system", "route", "for", "no token", "unknown", "expired", "revoked", "as app", "as reviewer",
        "another tenant's admin",
    )  # fmt: skip
    lines = [
        "# Who may use which route",
        "",
        "Written by `pytest tests/integration/gateway/test_door.py` from what the application answered. An",
        "admin may use every route of its own tenant. A path that several systems have is reached by their",
        "prefixes only; every other one has the address with its prefix too, and the same door there.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    shown = [
        row for row in rows if not (row[1].split(" ")[1].startswith(f"/{row[0]}/") and _short(row, rows))
    ]
    lines += ["| " + " | ".join(row) + " |" for row in sorted(shown)]
    text = "\n".join(lines) + "\n"
    if not DOCUMENT.exists() or DOCUMENT.read_text() != text:
        DOCUMENT.write_text(text)


def _short(row: tuple[str, ...], rows: list[tuple[str, ...]]) -> bool:
    method, path = row[1].split(" ")
    return any(other[1] == f"{method} {path.removeprefix('/' + row[0])}" for other in rows)
