"""Where S4's requests are answered: in this process, or by a service of its own at another address."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from data.errors import NotAllowed
from serving.gateway.errors import ModelAway
from serving.patchcore.settings import Limits

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_LOG = logging.getLogger("retiderm.gateway")
_CONNECT_S = 2.0
_READY_S = 2.0
_CONNECTIONS = 64
# What of a request the service is told: never a token.
_ASKED = ("content-type", "content-length")
_ANSWERED = ("content-type", "content-length", "retry-after")


@runtime_checkable
class Place(Protocol):
    """Answers requests whose sender may make them. A part of the gateway: opened and closed with it."""

    async def start(self) -> None:
        """Begin. Never fails: what can't be opened makes S4 unready."""
        ...

    async def stop(self) -> None:
        """Finish what runs."""
        ...

    async def ready(self) -> bool:
        """Whether requests are answered."""
        ...

    async def answer(self, request: Request, path: str, tenant: str | None) -> Response:
        """The service's answer to a request whose body nobody has read, of a tenant (None: of nobody).

        Raises:
            ModelAway: there is no service now.
        """
        ...


class Remote:
    """A service at another address (``GATEWAY_ANOMALY_URL``): bodies are passed on as they come.

    It knows no tenants, so that it is one's: the gateway's own (``GATEWAY_TENANT``).
    """

    def __init__(self, url: str, gateway: Gateway) -> None:
        self._url = url.rstrip("/")
        self._tenant = gateway.tenant
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Open the connections."""
        limits = Limits()
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            # The service ends what takes too long; this is for one that was cut off meanwhile.
            timeout=httpx.Timeout(limits.upload_s, connect=_CONNECT_S, read=limits.fit_s + limits.upload_s),
            trust_env=False,
        )

    async def stop(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def ready(self) -> bool:
        """Whether it answers."""
        assert self._client is not None
        try:
            response = await self._client.get(f"{self._url}/health", timeout=_READY_S)
        except httpx.HTTPError:
            return False
        return response.status_code == 200

    async def answer(self, request: Request, path: str, tenant: str | None) -> Response:
        """Its answer, errors included, as it comes.

        Raises:
            NotAllowed: it is another tenant's.
            ModelAway: it can't be reached, or left in the middle.
        """
        assert self._client is not None
        if tenant not in (None, self._tenant):
            raise NotAllowed("The anomaly service behind this gateway is another tenant's.")
        headers = {name: value for name in _ASKED if (value := request.headers.get(name)) is not None}
        body = _body(request) if request.method == "POST" else None
        asked = self._client.build_request(
            request.method, f"{self._url}{path}", content=body, headers=headers
        )
        try:
            response = await self._client.send(asked, stream=True)
        except httpx.HTTPError as error:
            _LOG.warning("the anomaly service can't be reached: %s", type(error).__name__)
            raise ModelAway(
                f"The anomaly service can't be reached ({type(error).__name__}).",
                hint="Ask again; if it stays away, look at its log.",
            ) from error
        told = {name: value for name in _ANSWERED if (value := response.headers.get(name)) is not None}
        return StreamingResponse(_passed(response), status_code=response.status_code, headers=told)


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        # Ends the connection to the service too, which then knows that nobody waits.
        raise httpx.WriteError("the client went away") from None


async def _passed(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    finally:
        await response.aclose()
