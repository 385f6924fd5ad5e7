"""Who is let in: a token from the header where a system's clients carry it, then how often they may ask.

Without a token a system answers only where that was switched on (``GATEWAY_OPEN_ACCESS``), and only a client
on this machine, unless that was switched on as well. A browser's page from elsewhere can reach this machine
too: its ``Origin`` and ``Host`` give it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request

from data.errors import NotAllowed, TokenRefused
from serving.gateway.access.gate import Identity
from serving.gateway.access.roles import Role

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway
    from serving.gateway.routing import Owner

#: A session's cookie, and the header that the page sends with whatever changes something.
COOKIE = "retiderm_session"
PAGE = "x-retiderm-page"

_HERE = ("127.0.0.1", "::1", "localhost")


class Door:
    """The door of one owner of routes."""

    def __init__(self, gateway: Gateway, owner: Owner) -> None:
        self._gateway = gateway
        self._owner = owner
        settings = gateway.settings
        self._open = owner.name in settings.open_access
        self._anywhere = settings.open_access_anywhere
        self._origins = settings.allowed_origins

    async def open(self, request: Request, roles: tuple[Role, ...]) -> Identity:
        """Who asks.

        Raises:
            TokenRefused: no token, or none that is good.
            NotAllowed: the role may not do this; or a page from elsewhere asks without a token.
            TooManyRequests: this client asks too often.
        """
        gateway = self._gateway
        limiter = gateway.limiter
        token = self._token(request)
        if token is None and self._open:
            identity = self._nobody(request)
        else:
            try:
                identity = await gateway.run(gateway.gate.open, token, self._owner.token_kind)
            except TokenRefused as error:
                limiter.count_refused(_address(request))
                raise TokenRefused(self._owner.refusal or error.message, hint=None) from None
        limiter.count(f"{identity.tenant}/{identity.subject}")
        identity.require(*roles)
        return identity

    def _token(self, request: Request) -> str | None:
        for name in self._owner.headers:
            text = _from_cookie(request) if name == "cookie" else request.headers.get(name)
            if text is None:
                continue
            if name != "authorization":
                return text
            scheme, _, rest = text.partition(" ")
            if scheme.lower() == "bearer":
                return rest.strip()
            # Another scheme is a token that we don't know, and not the absence of one.
            return text
        return None

    def _nobody(self, request: Request) -> Identity:
        if not self._anywhere:
            if _address(request) not in _HERE:
                raise TokenRefused("Without a token only this machine itself is answered.")
            if _host(request.headers.get("host", "")) not in _HERE:
                raise NotAllowed("Without a token this machine is asked by its loopback name only.")
        origin = request.headers.get("origin")
        if origin is not None and origin not in self._origins and not _same(origin, request):
            raise NotAllowed(
                "A page from elsewhere may not ask without a token.",
                hint="Name its origin in ALLOWED_ORIGINS.",
            )
        return Identity(
            self._gateway.tenant, Role.APP, f"open:{self._owner.name}", f"open:{self._owner.name}"
        )


def _from_cookie(request: Request) -> str | None:
    """A session's token. What would change something has to carry a header that no other page can set."""
    text = request.cookies.get(COOKIE)
    if text is not None and request.method not in ("GET", "HEAD") and PAGE not in request.headers:
        raise NotAllowed("This request is not of the review page.", hint=f"Send the header {PAGE}.")
    return text


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


def _host(text: str) -> str:
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""


def _same(origin: str, request: Request) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc == request.headers.get("host", "")
