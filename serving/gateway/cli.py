"""``retiderm token``: API keys and bearer tokens for the gateway."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import Conflict, NotFound, RetidermError, UsageError

if TYPE_CHECKING:
    from serving.gateway.access import Issued
    from serving.gateway.store import Scope, Store
    from serving.gateway.store.tables import Token

app = typer.Typer(
    no_args_is_help=True, help="API keys and bearer tokens for the gateway.", add_completion=False
)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_Tenant = Annotated[
    str | None,
    typer.Option(help="Whose token: a tenant's name or id. Default: GATEWAY_TENANT, else default."),
]
_Database = Annotated[
    str | None,
    typer.Option(help="The gateway's database. Default: DATABASE_URL, else RETIDERM_HOME/gateway."),
]
_Which = Annotated[str, typer.Argument(help="The token's id, its name, or the part between the underscores.")]
_Lives = Annotated[str | None, typer.Option(help="How long it lives, as 90d, 12h, 30m. Default: no end.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it: the app's or the reviewer's name.")],
    role: Annotated[str, typer.Option(help="app, reviewer or admin.")] = "app",
    kind: Annotated[str, typer.Option(help="api-key (x-api-key) or bearer (Authorization).")] = "api-key",
    subject: Annotated[
        str | None,
        typer.Option(
            help="Whom it speaks for: labels and decisions stand under that name. Tokens of one subject are "
            "one reader, and share face scans.",
            show_default="a reviewer's or admin's NAME; an app's own",
        ),
    ] = None,
    lives: _Lives = None,
    tenant: _Tenant = None,
    database: _Database = None,
) -> None:
    """Make a token and print it. It is shown this once: only its hash is kept.

    The tenant is made where it isn't there.
    """
    from serving.gateway.access import Role
    from serving.gateway.access import create as make

    if role not in tuple(Role):
        raise UsageError(f"There is no role {role!r}.", hint=f"Roles: {', '.join(Role)}.")
    if kind not in ("api-key", "bearer"):
        raise UsageError(f"There is no kind of token {kind!r}.", hint="Kinds: api-key, bearer.")
    if subject is None and role != Role.APP:
        subject = name  # a person: what they say is to be known as theirs
    with _scope(tenant, database, make_tenant=True) as scope:
        shared = _shared(scope, subject)
        issued = make(
            scope,
            role=Role(role),
            name=name,
            kind="bearer" if kind == "bearer" else "api_key",
            subject=subject,
            lives=_duration(lives),
        )
    if shared:
        typer.echo(f"{subject} has another token: both are one reader, unless --subject says else", err=True)
    _show(issued)


@app.command()
def first(tenant: _Tenant = None, database: _Database = None) -> None:
    """Make an admin's token where nobody has one yet, and print it; say nothing where somebody has.

    For the start of a new gateway: [bold]retiderm serve[/bold] does it.
    """
    from serving.gateway.access import Role
    from serving.gateway.access import create as make
    from serving.gateway.settings import Settings
    from serving.gateway.store import unscoped

    with _store(database) as store:
        if Settings.from_env().api_key or unscoped.has_tokens(store):
            return
    with _scope(tenant, database, make_tenant=True) as scope:
        # A bearer token is taken wherever an API key is, and by S3, which takes no other.
        issued = make(scope, role=Role.ADMIN, name="first", kind="bearer", subject="first")
    _show(issued)


@app.command(name="list")
def list_(
    tenant: _Tenant = None,
    database: _Database = None,
    all_: Annotated[bool, typer.Option("--all", help="Dead ones too.")] = False,
) -> None:
    """Every token that is good, without its secret."""
    from rich.console import Console
    from rich.table import Table

    from serving.gateway.store.repositories import tokens

    with _scope(tenant, database) as scope:
        rows, now = tokens.listed(scope), scope.now
    table = Table()
    for column in ("id", "name", "kind", "role", "state", "expires", "last used"):
        table.add_column(column, overflow="fold")
    for row in rows:
        state = _state(row, now)
        if all_ or state in ("good", "ending"):
            kind = row.kind.replace("_", "-")
            table.add_row(
                row.id, row.name, kind, row.role, state, _day(row.expires_at), _day(row.last_used_at)
            )
    Console().print(table)


@app.command()
def rotate(
    which: _Which,
    overlap: Annotated[
        str, typer.Option(help="How long the old one goes on, as 24h; 0s: not at all.")
    ] = "24h",
    lives: _Lives = None,
    tenant: _Tenant = None,
    database: _Database = None,
) -> None:
    """Make a successor with the same name, role and subject, and let the old one end after an overlap."""
    from serving.gateway.access import rotate as turn

    with _scope(tenant, database) as scope:
        old = _find(scope, which)
        issued = turn(scope, old.id, overlap=_duration(overlap) or dt.timedelta(0), lives=_duration(lives))
    _show(issued)
    typer.echo(f"the old one ends {_day(old.expires_at)}", err=True)


@app.command()
def revoke(which: _Which, tenant: _Tenant = None, database: _Database = None) -> None:
    """End a token now: the next request with it is refused."""
    from serving.gateway.access import revoke as end

    with _scope(tenant, database) as scope:
        row = end(scope, _find(scope, which).id)
    typer.echo(f"revoked {row.id} ({row.name})")


@app.command()
def tenants(database: _Database = None) -> None:
    """Every tenant."""
    from serving.gateway.store import unscoped

    with _store(database) as store:
        for row in unscoped.all_tenants(store):
            typer.echo(f"{row.id}  {row.name}")


@contextmanager
def _store(database: str | None) -> Iterator[Store]:
    from dataclasses import replace

    from serving.gateway.settings import Settings

    settings = Settings.from_env()
    store = (replace(settings, database=database) if database else settings).open_store()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _scope(tenant: str | None, database: str | None, *, make_tenant: bool = False) -> Iterator[Scope]:
    from serving.gateway.settings import Settings
    from serving.gateway.store import unscoped
    from serving.gateway.store.types import as_id

    name = tenant or Settings.from_env().tenant
    with _store(database) as store:
        # A UUID names a tenant that is there, and is never the name of a new one.
        known = not make_tenant or as_id(name) is not None
        found = unscoped.find_tenant(store, name) if known else unscoped.ensure_tenant(store, name)
        with store.write(found.id, f"command:{_user()}") as scope:
            yield scope


def _find(scope: Scope, which: str) -> Token:
    from serving.gateway.store.repositories import tokens

    rows = tokens.listed(scope)
    exact = [row for row in rows if which in (row.id, row.lookup)]
    alive = [row for row in rows if row.name == which and _state(row, scope.now) == "good"]
    found = exact or alive
    if not found:
        raise NotFound(f"There is no good token {which!r}.", hint="`retiderm token list --all` shows them.")
    if len(found) > 1:
        raise Conflict(f"There are {len(found)} good tokens named {which!r}.", hint="Say the id.")
    return found[0]


def _shared(scope: Scope, subject: str | None) -> bool:
    from serving.gateway.store.repositories import tokens

    rows = tokens.listed(scope) if subject is not None else []
    return any(row.subject == subject and _state(row, scope.now) == "good" for row in rows)


def _state(row: Token, now: dt.datetime) -> str:
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is not None and row.expires_at <= now:
        return "expired"
    return "ending" if row.replaced_by is not None else "good"


def _show(issued: Issued) -> None:
    # The secret alone on standard output, so that a script can take it.
    typer.echo(
        f"token {issued.row.id}, role {issued.row.role}, expires {_day(issued.row.expires_at)}", err=True
    )
    typer.echo("Keep it now: it is not shown again.", err=True)
    typer.echo(issued.text)


def _duration(text: str | None) -> dt.timedelta | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a duration.", hint="Say it as 90d, 12h, 30m or 45s.")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})


def _day(moment: dt.datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M") if moment is not None else "never"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def main() -> None:
    """``python -m serving.gateway.cli``: exits 0, 1 (it failed) or 2 (wrongly asked)."""
    try:
        app()
    except RetidermError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
