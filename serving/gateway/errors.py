"""What each error means over HTTP, and how each system's clients want to read it.

The systems' clients know ``{"detail": "…"}`` (S0 to S3); our own ``/v1`` says more. S4's errors are its own
service's. Nobody is told a path, a trace or a value: what we did not foresee becomes a reference to the log.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from data.errors import Overloaded, RequestError, RetidermError, ServingError, StoreFull

_LOG = logging.getLogger("retiderm.gateway")


class TooLarge(RequestError):
    """The body is over the server's limit (413)."""

    code = "too_large"


class WrongType(RequestError):
    """The body is of a type that the route does not take (415)."""

    code = "wrong_type"


class TooSlow(RequestError):
    """The body did not arrive in time (408)."""

    code = "too_slow"


class TooManyRequests(RequestError):
    """This client asks too often: again in ``retry_after`` seconds (429)."""

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Gone(RequestError):
    """The answer to this idempotency key told of something that was erased since (410)."""

    code = "gone"


class Unanswered(ServingError):
    """The work took longer than a request may (504)."""

    code = "timeout"


class ModelAway(ServingError):
    """No model answers for a task just now: again in ``retry_after`` seconds (503)."""

    code = "model_away"

    def __init__(self, message: str, *, retry_after: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class NotServed(ModelAway):
    """The models' server is there, and has none of this task (503 as well: one may be promoted)."""


class ModelFailed(ServingError):
    """A model's server answered, and not as it should (502)."""

    code = "model_failed"


@dataclass(frozen=True, slots=True)
class Wire:
    """An error on its way out. ``details`` are places in a request that is not of its route's form."""

    status: int
    code: str
    message: str
    hint: str | None = None
    details: tuple[dict[str, Any], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


Shape = Callable[[Wire, str], dict[str, Any]]

_STATUS = {
    "bad_request": 400,
    "usage": 400,
    "image": 422,
    "image_damaged": 422,
    "image_too_large": 413,
    "not_an_image": 415,
    "not_gradable": 422,
    "token_refused": 401,
    "not_allowed": 403,
    "access": 403,
    "not_found": 404,
    "too_slow": 408,
    "conflict": 409,
    "gone": 410,
    "too_large": 413,
    "wrong_type": 415,
    "too_many_requests": 429,
    "model_failed": 502,
    "serving": 502,
    "model_away": 503,
    "registry_away": 503,
    "overloaded": 503,
    "store": 503,
    "timeout": 504,
    "store_full": 507,
}
_PLAIN = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


def wire_of(error: Exception, request_id: str) -> Wire:
    """The error's status, code and message; one that nobody foresaw is logged, and told by reference only."""
    if isinstance(error, RequestValidationError):
        # Without the values, which FastAPI would repeat: they may be a patient's.
        details = tuple(
            {"loc": list(item["loc"]), "msg": str(item["msg"]), "type": str(item["type"])}
            for item in error.errors()
        )
        message = "; ".join(f"{_place(item['loc'])}: {item['msg']}" for item in details[:5])
        return Wire(422, "invalid", message or "The request is not of this route's form.", details=details)
    if isinstance(error, HTTPException):
        code = _PLAIN.get(error.status_code, "http")
        headers = {str(k): str(v) for k, v in (error.headers or {}).items()}
        return Wire(error.status_code, code, str(error.detail), headers=headers)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        # A form's file and an export lie in a temporary folder for a while.
        error = StoreFull("No room is left on the server.", hint="Nothing was kept; ask again later.")
    status = _STATUS.get(error.code) if isinstance(error, RetidermError) else None
    if isinstance(error, RetidermError) and status is not None:
        if status >= 502:
            _LOG.warning("%s: %s", error.code, error.message, extra={"request_id": request_id})
        return Wire(status, error.code, error.message, error.hint, headers=_headers(error, status))
    _LOG.error("an error that nobody foresaw", exc_info=error, extra={"request_id": request_id})
    return Wire(500, "internal", f"Internal error; the log has it under {request_id}.")


def detail_shape(wire: Wire, request_id: str) -> dict[str, Any]:
    """``{"detail": …}``: a sentence, or FastAPI's list of places."""
    return {"detail": list(wire.details) or wire.message}


def own_shape(wire: Wire, request_id: str) -> dict[str, Any]:
    """``{"error": {code, message, hint?, details?, request_id}}``: ours, for ``/v1``."""
    error: dict[str, Any] = {"code": wire.code, "message": wire.message}
    if wire.hint:
        error["hint"] = wire.hint
    if wire.details:
        error["details"] = list(wire.details)
    return {"error": {**error, "request_id": request_id}}


def trace_shape(wire: Wire, request_id: str) -> dict[str, Any]:
    """``{"error": …, "trace": …}``: S4's; the trace is the request's id, under which the log has more."""
    return {"error": f"{wire.message} {wire.hint}" if wire.hint else wire.message, "trace": request_id}


def respond(wire: Wire, shape: Shape, request_id: str) -> JSONResponse:
    """The response."""
    return JSONResponse(shape(wire, request_id), status_code=wire.status, headers=wire.headers)


def _headers(error: RetidermError, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if status in (429, 503) or isinstance(error, Overloaded):
        return {"Retry-After": str(max(1, math.ceil(getattr(error, "retry_after", 1))))}
    return {}


def _place(loc: Sequence[Any]) -> str:
    return ".".join(str(part) for part in loc if part != "body") or "body"
