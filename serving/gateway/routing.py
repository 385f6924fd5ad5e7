"""A system's routes: who may ask, how much, and how an error reads, decided before a handler runs.

Every route says who may use it (:func:`allow`, :func:`public`); one that does not can't be made, so that
none is forgotten. The order is: token, rate, body, handler; a body is read only for those who may send.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from data.errors import Overloaded
from serving.gateway.access.gate import Identity
from serving.gateway.access.roles import Role
from serving.gateway.body import read_body
from serving.gateway.door import Door
from serving.gateway.errors import Shape, Wire, detail_shape, respond, wire_of
from serving.gateway.front import CLAIM, take_time
from serving.gateway.held import Claim
from serving.gateway.openapi import usual
from serving.gateway.rates import Places
from serving.patchcore.body import drain

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_F = TypeVar("_F", bound=Callable[..., Any])
_NOTE = "__retiderm_access__"
_WITH_BODY = ("POST", "PUT", "PATCH")
#: Who has shown no token sends little, quickly, and few at once.
_STRANGER = "nobody"
_STRANGERS, _STRANGERS_BYTES, _STRANGERS_S = 16, 16 * 2**10, 5.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a route: these roles (and an admin), or everybody where there are none."""

    roles: tuple[Role, ...] = ()

    @property
    def public(self) -> bool:
        """Whether no token is asked for."""
        return not self.roles


def allow(*roles: Role) -> Callable[[_F], _F]:
    """Open a route to these roles; an admin may use every route."""
    if not roles:
        raise ValueError("name a role, or say @public")

    def note(handler: _F) -> _F:
        setattr(handler, _NOTE, Access(roles))
        return handler

    return note


def public(handler: _F) -> _F:
    """Open a route to everybody."""
    setattr(handler, _NOTE, Access())
    return handler


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom routes belong to: its name, and how its clients know themselves and read errors.

    - ``headers``: where a token may stand, in this order (``x-api-key``, ``authorization``).
    - ``token_kind``: ``bearer`` or ``api_key`` where only such tokens are taken.
    - ``refusal``: the words of a 401, where old clients know some; None for our own.
    - ``translate``: its own words or status for an error; None keeps the usual ones.
    - ``limits_itself``: the routes read their own bodies, and have times of their own (S4's, which are
      streamed to files and worked on for an hour).
    """

    name: str
    title: str
    _: KW_ONLY
    headers: tuple[str, ...] = ("x-api-key", "authorization")
    token_kind: str | None = None
    refusal: str | None = None
    shape: Shape = detail_shape
    translate: Callable[[Exception, Wire], Wire | None] | None = None
    limits_itself: bool = False

    def answer(self, error: Exception, request: Request) -> Response:
        """The error as its clients read it."""
        request_id = id_of(request)
        wire = wire_of(error, request_id)
        changed = self.translate(error, wire) if self.translate is not None else None
        return respond(changed or wire, self.shape, request_id)


@dataclass(frozen=True, slots=True)
class System(Owner):
    """One of the services, which are switched on and off by name.

    - ``build``: makes its routes, with paths as its contract has them.
    - ``tasks``: the models that it needs, for its readiness.
    - ``ready``: whether it answers, where that isn't about ``tasks``.
    """

    build: Callable[[Gateway], APIRouter]
    tasks: Callable[[Gateway], tuple[str, ...]]
    _: KW_ONLY
    ready: Callable[[Gateway], Awaitable[bool]] | None = None


class OwnedRoute(APIRoute):
    """A route of an owner. See the module's docstring. Made by :func:`new_router`'s routers only."""

    gateway: Gateway
    owner: Owner

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        access = getattr(endpoint, _NOTE, None)
        if not isinstance(access, Access):
            raise TypeError(f"{path}: say who may use it, by @allow(…) or @public")
        self.access = access
        extra = dict(options.pop("openapi_extra", None) or {})
        if not access.public:
            extra.setdefault("security", [{_SCHEMES[name]: []} for name in self.owner.headers])
        with_body = any(method in _WITH_BODY for method in options.get("methods") or ())
        told = usual(self.owner.shape, public=access.public, body=with_body)
        options["responses"] = {**told, **(options.get("responses") or {})}
        super().__init__(path, endpoint, openapi_extra=extra, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the door."""
        inner = super().get_route_handler()
        gateway, owner, access = self.gateway, self.owner, self.access
        door = Door(gateway, owner)
        path = self.path_format
        strangers = Places(_STRANGERS)

        async def read(request: Request, most: int, seconds: float) -> None:
            await read_body(request, most, seconds, claim_of(request), gateway.bodies)

        async def known(request: Request) -> Response:
            identity = await door.open(request, access.roles)
            request.state.identity = identity
            request.scope[CLAIM] = gateway.held.claim(f"{identity.tenant}/{identity.subject}")
            with gateway.places.hold(f"{identity.tenant}/{identity.subject}"):
                if owner.limits_itself:
                    take_time(request.scope)
                elif request.method in _WITH_BODY:
                    await read(request, gateway.settings.max_body_bytes, gateway.settings.request_s)
                return await inner(request)

        async def unknown(request: Request) -> Response:
            request.scope[CLAIM] = gateway.held.claim(_STRANGER)
            if request.method in _WITH_BODY:
                with strangers.hold(path):
                    await read(request, _STRANGERS_BYTES, _STRANGERS_S)
            return await inner(request)

        async def handle(request: Request) -> Response:
            request.scope["retiderm.route"] = (owner.name, path)
            try:
                return await (unknown(request) if access.public else known(request))
            except Exception as error:
                if owner.limits_itself:
                    # What is sent still would be cut off, and the answer with it.
                    with contextlib.suppress(Overloaded), strangers.hold(path):
                        await drain(request)
                return owner.answer(error, request)

        return handle


def new_router(gateway: Gateway, owner: Owner, **options: Any) -> APIRouter:
    """A router whose routes are the owner's."""
    route = type("Route", (OwnedRoute,), {"gateway": gateway, "owner": owner})
    return APIRouter(route_class=route, tags=[owner.name], **options)


def claim_of(request: Request) -> Claim:
    """What the request holds, until its answer is sent."""
    found = request.scope[CLAIM]
    assert isinstance(found, Claim)
    return found


def id_of(request: Request) -> str:
    """The request's id, as its answer's ``X-Request-ID`` and the log have it."""
    return str(request.scope.get("retiderm.request_id", ""))


async def _identity(request: Request) -> Identity:
    # Asynchronous, or it would be run on a thread.
    found = request.state.identity
    assert isinstance(found, Identity)
    return found


#: A handler's parameter of this type gets who asks.
Who = Annotated[Identity, Depends(_identity)]

_SCHEMES = {"x-api-key": "apiKey", "authorization": "bearer", "cookie": "session"}
