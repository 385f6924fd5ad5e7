"""A request that may be repeated: with an ``Idempotency-Key`` it is done once and answered the same."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from data.errors import RequestError
from data.files import canonical_json, sha256_bytes
from serving.gateway.access.gate import Identity
from serving.gateway.errors import Gone
from serving.gateway.store.repositories import idempotency
from serving.gateway.store.repositories.idempotency import Answer
from serving.gateway.store.scope import Scope

HEADER = "idempotency-key"
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Once:
    """A request's key, if it has one. Use it inside the transaction that does the work::

    if (earlier := once.claim(scope)) is not None:
        return earlier
    ...
    return once.answer(scope, 200, body, about="case:7")
    """

    key: str | None
    route: str
    owner: str
    digest: str
    keep: dt.timedelta

    @classmethod
    def of(cls, request: Request, who: Identity, said: Any, *, hours: int) -> Once:
        """``said`` is what the request asks, as JSON values; an image by its SHA-256.

        Raises:
            RequestError: the key is empty, too long or not printable ASCII.
        """
        key = request.headers.get(HEADER)
        if key is not None and not (0 < len(key) <= _LONGEST and key.isascii() and key.isprintable()):
            raise RequestError(f"Idempotency-Key has 1 to {_LONGEST} printable ASCII characters.")
        system, path = request.scope["retiderm.route"]
        # What the path names is a part of what is asked: one key must not answer for two scans.
        asked = canonical_json({"path": dict(request.path_params), "said": said})
        digest = sha256_bytes(asked.encode()) if key is not None else ""
        return cls(key, f"{system} {request.method} {path}", who.subject, digest, dt.timedelta(hours=hours))

    def find(self, scope: Scope) -> Answer | None:
        """The earlier answer, to spare slow work; :meth:`claim` decides. ``Conflict`` for another request."""
        if self.key is None:
            return None
        return idempotency.find(scope, self.key, route=self.route, owner=self.owner, digest=self.digest)

    def claim(self, scope: Scope) -> Answer | None:
        """The earlier answer, or None for the first request, whose work may begin."""
        if self.key is None:
            return None
        return idempotency.claim(
            scope, self.key, route=self.route, owner=self.owner, digest=self.digest, keep=self.keep
        )

    def answer(self, scope: Scope, status: int, body: dict[str, Any], *, about: str | None = None) -> Answer:
        """Keep the answer with the work, in its transaction."""
        if self.key is not None:
            idempotency.answer(
                scope, self.key, route=self.route, owner=self.owner, status=status, body=body, about=about
            )
        return Answer(status, body)


def respond(answer: Answer) -> JSONResponse:
    """The response of an answer, the first time and every other.

    Raises:
        Gone: what it told of was erased.
    """
    if answer.body is None:
        raise Gone("What this request made was erased since.", hint="Use another Idempotency-Key.")
    return JSONResponse(answer.body, status_code=answer.status)
