"""One table of what each error means on the wire, over REST and over gRPC.

KServe knows 400, 404, 500, 501 and 503 only, answers a validation error with FastAPI's 422 that repeats the
whole request, and its gRPC interceptor fails on ``ModelNotReady`` (it reads an attribute that isn't there).
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc_interceptor import AsyncServerInterceptor
from kserve.errors import (
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ServerNotLive,
    ServerNotReady,
    UnsupportedProtocol,
)
from starlette.exceptions import HTTPException

from data.errors import Overloaded, RequestError, RetidermError, ServingError

_LOG = logging.getLogger("retiderm.serving")
_G = grpc.StatusCode


class Unavailable(ServingError):
    """The predictor is away, or serves nothing yet: ask again in ``retry_after`` seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class QueueFull(Overloaded):
    """More requests wait than the server agreed to hold: ask again in ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(RequestError):
    """The body, or the number of images in it, is over the server's limit."""

    code = "too_large"


class NoneDecodable(RequestError):
    """None of the request's images can be decoded."""

    code = "none_decodable"


class PreprocessingMismatch(RequestError):
    """The tensor was preprocessed in another way than this model's."""

    code = "preprocessing_digest"


class Forbidden(RequestError):
    """This server doesn't let clients do that."""

    code = "forbidden"


@dataclass(frozen=True, slots=True)
class Wire:
    """How an error looks to a client."""

    http: int
    grpc: grpc.StatusCode
    code: str
    message: str
    retry_after: int | None = None

    @property
    def body(self) -> dict[str, str]:
        """The JSON document of a REST error."""
        return {"error": self.message, "code": self.code}


# 413 is what gRPC itself calls RESOURCE_EXHAUSTED (a message over its limit). Everything else that the client
# must change is INVALID_ARGUMENT there; the trailing metadata `error-code` tells the kinds apart.
_STATUS: dict[str, tuple[int, grpc.StatusCode]] = {
    "bad_request": (400, _G.INVALID_ARGUMENT),
    "preprocessing_digest": (400, _G.INVALID_ARGUMENT),
    "forbidden": (403, _G.PERMISSION_DENIED),
    "too_large": (413, _G.RESOURCE_EXHAUSTED),
    "image_too_large": (413, _G.RESOURCE_EXHAUSTED),
    "not_an_image": (415, _G.INVALID_ARGUMENT),
    "image_damaged": (422, _G.INVALID_ARGUMENT),
    "none_decodable": (422, _G.INVALID_ARGUMENT),
    "overloaded": (503, _G.UNAVAILABLE),
    "unavailable": (503, _G.UNAVAILABLE),
}

_UNAVAILABLE = {_G.UNAVAILABLE, _G.DEADLINE_EXCEEDED, _G.CANCELLED}


def status_of(code: str) -> tuple[int, grpc.StatusCode]:
    """The HTTP and gRPC status of one of our error codes; 500 and INTERNAL for what is our own fault."""
    return _STATUS.get(code, (500, _G.INTERNAL))


def to_wire(error: BaseException) -> Wire:
    """What a client is told about an error. Nothing unexpected leaks: it is logged under a reference."""
    if isinstance(error, RetidermError):
        http, status = status_of(error.code)
        if http != 500:
            return Wire(http, status, error.code, str(error), getattr(error, "retry_after", None))
    elif isinstance(error, RequestValidationError):
        return Wire(400, _G.INVALID_ARGUMENT, "bad_request", _first_problem(error))
    elif isinstance(error, InvalidInput):
        return Wire(400, _G.INVALID_ARGUMENT, "bad_request", str(error))
    elif isinstance(error, ModelNotFound):
        return Wire(404, _G.NOT_FOUND, "model_not_found", str(error))
    elif isinstance(error, ModelNotReady | ServerNotReady | ServerNotLive):
        return Wire(503, _G.UNAVAILABLE, "unavailable", str(error), 1)
    elif isinstance(error, NotImplementedError | UnsupportedProtocol):
        return Wire(501, _G.UNIMPLEMENTED, "not_implemented", str(error) or "Not implemented.")
    elif isinstance(error, HTTPException):
        message = error.detail if isinstance(error.detail, str) else "Not accepted."
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return Wire(error.status_code, _G.INVALID_ARGUMENT, code, message)
    elif isinstance(error, grpc.RpcError) and error.code() in _UNAVAILABLE:
        return Wire(503, _G.UNAVAILABLE, "unavailable", "The predictor is away.", 1)
    reference = uuid.uuid4().hex[:12]
    _LOG.error("unexpected error, reference %s", reference, exc_info=error)
    return Wire(500, _G.INTERNAL, "internal", f"Something went wrong on the server. Reference: {reference}.")


def _first_problem(error: RequestValidationError) -> str:
    problems: list[dict[str, Any]] = list(error.errors())
    for problem in problems:
        # Of a union's two branches, the one that says "not bytes" is noise to someone who sent JSON.
        if "bytes" in problem["loc"] and len(problems) > 1:
            continue
        where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "InferenceRequest"))
        if problem["type"] == "json_invalid":
            return f"The body is not JSON (at character {where}: {problem['ctx']['error']})."
        return f"The body is not a V2 inference request: {where or 'body'}: {problem['msg']}."
    return "The body is not a V2 inference request."


def response_of(error: BaseException) -> JSONResponse:
    """An error as the REST answer."""
    wire = to_wire(error)
    headers = {"Retry-After": str(wire.retry_after)} if wire.retry_after is not None else {}
    return JSONResponse(wire.body, status_code=wire.http, headers=headers)


def install_handlers(app: FastAPI) -> None:
    """Answer every kind of error by this table. Call after KServe has put in its own handlers."""

    async def handle(_: Request, error: Exception) -> JSONResponse:
        return response_of(error)

    kinds: tuple[Any, ...] = (
        RetidermError,
        InvalidInput,
        InferenceError,
        ModelNotFound,
        ModelNotReady,
        ServerNotReady,
        ServerNotLive,
        NotImplementedError,
        UnsupportedProtocol,
        RequestValidationError,
        HTTPException,
        grpc.RpcError,
        Exception,
    )
    for kind in kinds:
        app.add_exception_handler(kind, handle)


class StatusInterceptor(AsyncServerInterceptor):
    """The same table for gRPC: status, message, and `error-code` and `retry-after` as trailing metadata."""

    async def intercept(self, method: Any, request: Any, context: Any, method_name: str) -> Any:
        """Run a call and turn what it raises into a status."""
        try:
            answer = method(request, context)
            return await answer if hasattr(answer, "__await__") else answer
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            wire = to_wire(error)
            trailing = [("error-code", wire.code)]
            if wire.retry_after is not None:
                trailing.append(("retry-after", str(wire.retry_after)))
            await context.abort(wire.grpc, wire.message, tuple(trailing))
