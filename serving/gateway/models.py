"""Asking models: KServe's V2 with binary tensors, the same to loopback and to a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from data.errors import ImageDamaged, ImageError, ImageTooLarge, NotAnImage, RequestError
from serving.client import decode, encode
from serving.core.challenger import challenger_name
from serving.features.columns import Features
from serving.gateway.errors import ModelAway, ModelFailed, NotServed
from serving.gateway.store.repositories.predictions import Origin
from serving.replies import ModelReply

_CONNECT_S = 2.0
_READY = aiohttp.ClientTimeout(total=2.0)
_KEPT_S = 30.0
_UNREACHED = (aiohttp.ClientError, TimeoutError, OSError)
_CONNECTIONS = 64
#: In an address: the task's name, as Kubernetes writes it.
PLACE = "{task}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said of one image.

    - ``document``: contract S5's, without the quality's scores; ``reply``: the same, read.
    - ``overlay``: a PNG, empty where none was asked for or there is none; for ``explain="view"`` the model's
      input without colours.
    - ``origin``: which files answered, and what they learned from.
    - ``runtime``: what ran them, with its version; empty where the server doesn't say.
    - ``features``: what the image looks like to the model; None where that wasn't asked for.
    """

    document: dict[str, Any]
    reply: ModelReply
    overlay: bytes = field(repr=False)
    origin: Origin
    runtime: str = ""
    features: Features | None = None


class Models:
    """The models behind one address, or one each. Opened and closed on the event loop that uses it.

    In ``url``, ``{task}`` stands for a model's name with ``-`` for ``_``, where every model has a server of
    its own, as on a cluster. Nobody can be asked there what is served: ``tasks`` says what may be, each with
    its challenger, and no other name becomes part of an address.
    """

    def __init__(self, url: str, timeout_s: float, tasks: Sequence[str] = ()) -> None:
        self.url = url.rstrip("/")
        self._known: tuple[str, ...] | None = None
        if PLACE in self.url:
            self._known = tuple(sorted({name for task in tasks for name in (task, challenger_name(task))}))
        # Neither cookies nor a proxy that the environment names have any business between the gateway and
        # its models.
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEPT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S),
        )

    async def ask(self, task: str, image: bytes, *, explain: str = "", features: bool = True) -> Answer:
        """Have one image file answered. ``explain`` is ``overlay`` for a picture of the reasons, ``view`` for
        one of what the model is given.

        ``features`` come along by default: they are kept with the answer, for the queue and for drift.

        Raises:
            ImageError: the image can't be decoded.
            ModelAway: nothing serves the task now, or its queue is full; ``NotServed`` of the first kind.
            ModelFailed: the server's answer is not one.
        """
        at = self._at(task)
        if at is None:
            raise _not_served(task)
        body, length = encode([image], explain=explain, features=features)
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(length),
        }
        try:
            async with self._client.post(
                f"{at}/v2/models/{task}/infer", data=body, headers=headers
            ) as response:
                said = Said(response.status, dict(response.headers), await response.read())
        except _UNREACHED as error:
            raise ModelAway(
                f"The model {task!r} can't be reached ({type(error).__name__}).",
                hint="Ask again; if it stays away, look at the predictor.",
            ) from error
        if said.status != 200:
            raise _refused(task, said)
        return _read(task, said)

    async def ready(self, task: str) -> bool:
        """Whether a task is served now."""
        return bool(await self._found(task))

    async def describe(self, task: str) -> dict[str, Any] | None:
        """The metadata's parameters: version, digest, classes; None where the task isn't served."""
        at = self._at(task)
        if at is None:
            return None
        try:
            async with self._client.get(f"{at}/v2/models/{task}", timeout=_READY) as response:
                found = await response.json(content_type=None) if response.status == 200 else None
        except (*_UNREACHED, ValueError):
            return None
        return dict(found["parameters"]) if isinstance(found, dict) and "parameters" in found else None

    async def names(self) -> list[str]:
        """Every model that the server knows, in order; of servers of their own, those that are ready.

        Raises:
            ModelAway: nobody answers.
            ModelFailed: the answer is no list.
        """
        if self._known is not None:
            found = await asyncio.gather(*map(self._found, self._known))
            if self._known and all(ready is None for ready in found):
                raise ModelAway("No model can be reached.", hint="Look at the models' services and pods.")
            return [name for name, ready in zip(self._known, found, strict=True) if ready]
        try:
            async with self._client.get(f"{self.url}/v2/models", timeout=_READY) as response:
                return sorted(map(str, (await response.json(content_type=None))["models"]))
        except _UNREACHED as error:
            raise ModelAway(
                f"The models can't be reached ({type(error).__name__}).", hint="Look at the transformer."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFailed("The models' server does not say what it serves.") from error

    async def _found(self, name: str) -> bool | None:
        """Whether a model is ready; None where nobody answers."""
        at = self._at(name)
        if at is None:
            return False
        try:
            async with self._client.get(f"{at}/v2/models/{name}/ready", timeout=_READY) as response:
                return response.status == 200
        except _UNREACHED:
            return None

    def _at(self, name: str) -> str | None:
        """Where a model is asked; None for one that there can't be."""
        if self._known is None:
            return self.url
        return self.url.replace(PLACE, name.replace("_", "-")) if name in self._known else None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def titles_of(said: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    """What people read for a class, by head, of a model's metadata: only where that is more than its name."""
    found = (said or {}).get("titles")
    if not isinstance(found, dict):
        return {}  # a server of an older release doesn't say
    return {
        str(head): {str(name): str(title) for name, title in named.items()}
        for head, named in found.items()
        if isinstance(named, dict)
    }


@dataclass(frozen=True, slots=True)
class Said:
    """A server's response, read."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def header(self, name: str, default: str = "") -> str:
        """A header, however it is spelled."""
        return next((value for key, value in self.headers.items() if key.lower() == name), default)


def _read(task: str, said: Said) -> Answer:
    try:
        reply = decode(said.body, int(said.header("inference-header-content-length", "none")))
        document = reply.documents()[0]
        origin = Origin(**reply.origin)
        overlay = reply.overlay() or reply.view()
        runtime = str(reply.parameters.get("runtime", ""))
        features = reply.features()
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise ModelFailed(
            f"The model {task!r} gave an answer that can't be read ({type(error).__name__}).",
            hint="Gateway and predictor are of different versions: deploy them together.",
        ) from error
    return Answer(document, ModelReply.read(document), overlay, origin, runtime, features)


def _not_served(task: str) -> NotServed:
    return NotServed(f"No model of the task {task!r} is served.", hint="Promote one: retiderm models.")


def _refused(task: str, said: Said) -> Exception:
    try:
        told = json.loads(said.body)
        message, code = str(told["error"]), str(told.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = "", ""
    status = said.status
    if status == 404:
        return _not_served(task)
    if status == 503:
        wait = said.header("retry-after", "1")
        return ModelAway(
            f"The model {task!r} has no time now.", retry_after=int(wait) if wait.isdigit() else 1
        )
    if status in (413, 415, 422):
        return _IMAGES.get(code, ImageError)(message or "The image can't be used.")
    if status == 400:
        return RequestError(message or f"The model {task!r} refused the request.")
    return ModelFailed(f"The model {task!r} failed ({status}).", hint="The predictor's log says why.")


_IMAGES = {kind.code: kind for kind in (ImageDamaged, ImageTooLarge, NotAnImage)}
