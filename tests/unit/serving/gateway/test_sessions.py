"""A page's session ends with the token that began it; other tokens that somebody made do not."""

from __future__ import annotations

import datetime as dt

from serving.gateway.access import Role, create, revoke
from serving.gateway.store import Store
from serving.gateway.store.repositories import tokens


def test_revoking_a_token_ends_its_sessions_and_nothing_else(store: Store, tenant: str) -> None:
    with store.write(tenant, "command:root") as scope:
        parent = create(scope, role=Role.ADMIN, name="anna").row.id
        other = create(scope, role=Role.REVIEWER, name="ben").row.id
    made = {}
    for actor, kind, name in (
        (parent, "bearer", tokens.SESSION + "anna"),
        (parent, "api_key", tokens.SESSION + "anna"),
        (parent, "bearer", "an app's"),
        (other, "bearer", tokens.SESSION + "ben"),
    ):
        with store.write(tenant, f"token:{actor}") as scope:
            issued = create(
                scope,
                role=Role.REVIEWER,
                name=name,
                kind=kind,
                lives=dt.timedelta(hours=1),  # type: ignore[arg-type]
            )
            made[actor, kind, name] = issued.row.id
    with store.write(tenant, "command:root") as scope:
        revoke(scope, parent)
    with store.read(tenant) as scope:
        ended = {key for key, row in made.items() if tokens.get(scope, row).revoked_at is not None}
        assert tokens.get(scope, parent).revoked_at is not None
        assert tokens.get(scope, other).revoked_at is None
    assert ended == {(parent, "bearer", tokens.SESSION + "anna")}
