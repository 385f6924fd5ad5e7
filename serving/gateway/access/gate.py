"""The check at the door: from what a request carries to who it is."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass

from data.errors import NotAllowed, RetidermError, TokenRefused
from serving.gateway.store import unscoped
from serving.gateway.store.engine import Store
from serving.gateway.store.tables import Token
from serving.gateway.store.types import as_id

from . import secret
from .roles import Role

_log = logging.getLogger("retiderm.gateway")
_REFUSED = "The token is missing, unknown, expired or revoked."
# What an unknown token is compared with, so that it takes the same steps as a known one.
_NOBODY = secret.digest("nobody")
_USE_NOTED = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: of which tenant, in which role, and for whom."""

    tenant: str
    role: Role
    subject: str
    actor: str

    def require(self, *allowed: Role) -> None:
        """Refuse a role that a route is not for.

        Raises:
            NotAllowed: it is another one, and not an admin's.
        """
        if not self.role.may(*allowed):
            raise NotAllowed("This token's role may not do this.")


class Gate:
    """Checks tokens against the store: nothing is remembered, so a revocation holds from the next request on.

    ``static_key`` is the one key that S0's environment names (``API_KEY``): it is an app of the tenant
    ``static_tenant`` (an id), though no row knows it.
    """

    def __init__(self, store: Store, *, static_key: str | None = None, static_tenant: str | None = None):
        self._store = store
        self._static = secret.digest(static_key) if static_key else None
        self._static_tenant = as_id(static_tenant)
        if self._static is not None and self._static_tenant is None:
            raise ValueError("a static key needs a tenant's id")

    def open(self, text: str | None, kind: str | None = None) -> Identity:
        """Who a token says it is. ``kind`` is asked for where only API keys or only bearer tokens are taken.

        Raises:
            TokenRefused: missing, malformed, unknown, expired or revoked; which of these is not said.
            StoreError: the database can't be asked. Nobody comes in then.
        """
        # The old key first, and whole: it may look like anything.
        old = self._static if kind != "bearer" else None
        if text is not None and old is not None and secret.same(secret.digest(text), old):
            assert self._static_tenant is not None
            return Identity(self._static_tenant, Role.APP, "api-key", "token:environment")
        given = secret.parse(text) if text is not None else None
        row = unscoped.find_token(self._store, given.lookup) if given is not None else None
        good = secret.same(given.hash if given else _NOBODY[::-1], row.secret_hash if row else _NOBODY)
        now = self._store.clock()
        if not good or row is None or given is None:
            raise TokenRefused(_REFUSED)
        over = row.expires_at is not None and row.expires_at <= now
        if row.revoked_at is not None or over or row.kind != given.kind or kind not in (None, row.kind):
            raise TokenRefused(_REFUSED)
        self._note_use(row, now)
        return Identity(row.tenant_id, Role(row.role), row.subject, f"token:{row.id}")

    def _note_use(self, row: Token, now: dt.datetime) -> None:
        if row.last_used_at is not None and now - row.last_used_at < _USE_NOTED:
            return
        try:
            unscoped.mark_used(self._store, row, now)
        except RetidermError:
            # Somebody with a good token is not kept out because this can't be noted.
            _log.warning("the use of a token could not be noted")
