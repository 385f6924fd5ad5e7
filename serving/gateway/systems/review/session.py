"""Signing in: a reviewer's token is changed for a short-lived one of the same subject, kept in a cookie.

The cookie's token is a row like any other: it ends by itself, is revoked by signing out, and shows in
``retiderm token list``. It never outlives the token that began it, and is revoked with it. Scripts on the
page can't read it, and other sites' pages don't send it.
"""

from __future__ import annotations

import datetime as dt

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data.errors import NotAllowed, TokenRefused
from serving.gateway.access import Role
from serving.gateway.access import create as make_token
from serving.gateway.access.gate import Identity
from serving.gateway.door import COOKIE, PAGE
from serving.gateway.gateway import Gateway
from serving.gateway.routing import Who, allow, public
from serving.gateway.store.repositories import tokens
from serving.gateway.systems.v1.common import In, refusals

_LIVES = dt.timedelta(hours=12)


class SignIn(In):
    """What the sign-in form sends."""

    token: str = Field(min_length=1, max_length=200)


class Session(In):
    """Who is signed in."""

    reader: str
    role: str
    expires_at: dt.datetime | None


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.post(
        "/review/api/session", response_model=Session, responses=refusals(401, 403, 429, 503), status_code=201
    )
    @public
    async def sign_in(request: Request, given: SignIn) -> Response:
        """Begin a session with a reviewer's or an admin's token. Only the page can: it sends its header."""
        if PAGE not in request.headers:
            # Another site's form could sign somebody in under a name that is not theirs.
            raise NotAllowed("This request is not of the review page.", hint=f"Send the header {PAGE}.")
        address = request.client.host if request.client is not None else "unknown"
        gateway.limiter.count(f"sign-in/{address}")
        try:
            who = await gateway.run(gateway.gate.open, given.token.strip())
        except TokenRefused:
            gateway.limiter.count_refused(address)
            raise
        who.require(Role.REVIEWER)
        text, expires = await gateway.run(_issue, gateway, who)
        shown = Session(reader=who.subject, role=str(who.role), expires_at=expires)
        response = JSONResponse(shown.model_dump(mode="json"), status_code=201)
        response.set_cookie(
            COOKIE,
            text,
            max_age=int(_LIVES.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https" or gateway.settings.public_url.startswith("https:"),
            path="/review",
        )
        return response

    @router.get("/review/api/session")
    @allow(Role.REVIEWER)
    async def session(who: Who) -> Session:
        """Who is signed in, and until when."""

        def read() -> dt.datetime | None:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return tokens.get(scope, who.actor.removeprefix("token:")).expires_at

        expires = await gateway.run(read) if who.actor.startswith("token:") else None
        return Session(reader=who.subject, role=str(who.role), expires_at=expires)

    @router.delete("/review/api/session", status_code=204)
    @allow(Role.REVIEWER)
    async def sign_out(request: Request, _: Who) -> Response:
        """End the cookie's session. A token that came in a header stays good: it is no session's."""
        text = request.cookies.get(COOKIE)
        if text is not None:
            await gateway.run(_end, gateway, text)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/review", httponly=True, samesite="strict")
        return response


def _issue(gateway: Gateway, who: Identity) -> tuple[str, dt.datetime | None]:
    with gateway.store.write(who.tenant, who.actor) as scope:
        lives = _LIVES
        if who.actor.startswith("token:"):
            until = tokens.get(scope, who.actor.removeprefix("token:")).expires_at
            lives = min(lives, until - scope.now) if until is not None else lives
        issued = make_token(
            scope,
            role=who.role,
            name=f"{tokens.SESSION}{who.subject}"[:200],
            kind="bearer",
            subject=who.subject,
            lives=lives,
        )
        return issued.text, issued.row.expires_at


def _end(gateway: Gateway, text: str) -> None:
    try:
        who = gateway.gate.open(text, "bearer")
    except TokenRefused:
        return
    with gateway.store.write(who.tenant, who.actor) as scope:
        token = tokens.get(scope, who.actor.removeprefix("token:"))
        # Somebody may have put a token of their own into the cookie.
        if token.name.startswith(tokens.SESSION):
            tokens.revoke(scope, token.id)
