"""Asking models: KServe's V2 with binary tensors, the same to loopback and to a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from data.errors import ImageDamaged, ImageError, ImageTooLarge, NotAnImage, RequestError
from serving.client import decode, encode
from serving.features.columns import Features
from serving.gateway.errors import ModelAway, ModelFailed, NotServed
from serving.gateway.store.repositories.predictions import Origin
from serving.replies import ModelReply

_CONNECT_S = 2.0
_READY_S = 2.0
_CONNECTIONS = 64


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
    """The models behind one address. Opened and closed on the event loop that uses it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        self._client = httpx.AsyncClient(
            limits=limits,
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            # A proxy named in the environment has no business between the gateway and its models.
            trust_env=False,
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
        body, length = encode([image], explain=explain, features=features)
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(length),
        }
        try:
            response = await self._client.post(
                f"{self.url}/v2/models/{task}/infer", content=body, headers=headers
            )
        except httpx.HTTPError as error:
            raise ModelAway(
                f"The model {task!r} can't be reached ({type(error).__name__}).",
                hint="Ask again; if it stays away, look at the predictor.",
            ) from error
        if response.status_code != 200:
            raise _refused(task, response)
        return _read(task, response)

    async def ready(self, task: str) -> bool:
        """Whether a task is served now."""
        try:
            response = await self._client.get(f"{self.url}/v2/models/{task}/ready", timeout=_READY_S)
        except httpx.HTTPError:
            return False
        return response.status_code == 200

    async def describe(self, task: str) -> dict[str, Any] | None:
        """The metadata's parameters: version, digest, classes; None where the task isn't served."""
        try:
            response = await self._client.get(f"{self.url}/v2/models/{task}", timeout=_READY_S)
            found = response.json() if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None
        return dict(found["parameters"]) if isinstance(found, dict) and "parameters" in found else None

    async def names(self) -> list[str]:
        """Every model that the server knows, in order.

        Raises:
            ModelAway: nobody answers.
            ModelFailed: the answer is no list.
        """
        try:
            response = await self._client.get(f"{self.url}/v2/models", timeout=_READY_S)
            return sorted(map(str, response.json()["models"]))
        except httpx.HTTPError as error:
            raise ModelAway(
                f"The models can't be reached ({type(error).__name__}).", hint="Look at the transformer."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFailed("The models' server does not say what it serves.") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _read(task: str, response: httpx.Response) -> Answer:
    try:
        reply = decode(response.content, int(response.headers["inference-header-content-length"]))
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


def _refused(task: str, response: httpx.Response) -> Exception:
    try:
        said = response.json()
        message, code = str(said["error"]), str(said.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = "", ""
    status = response.status_code
    if status == 404:
        return NotServed(f"No model of the task {task!r} is served.", hint="Promote one: retiderm models.")
    if status == 503:
        wait = response.headers.get("retry-after", "1")
        return ModelAway(
            f"The model {task!r} has no time now.", retry_after=int(wait) if wait.isdigit() else 1
        )
    if status in (413, 415, 422):
        return _IMAGES.get(code, ImageError)(message or "The image can't be used.")
    if status == 400:
        return RequestError(message or f"The model {task!r} refused the request.")
    return ModelFailed(f"The model {task!r} failed ({status}).", hint="The predictor's log says why.")


_IMAGES = {kind.code: kind for kind in (ImageDamaged, ImageTooLarge, NotAnImage)}
