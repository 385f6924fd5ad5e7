"""What the OpenAPI document says of errors: every status that a route can answer with, and its body's form.

:class:`~serving.gateway.routing.OwnedRoute` adds what its door, limits and store can answer; a route names
the others by :func:`errors`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from serving.gateway.errors import detail_shape, own_shape, trace_shape

if TYPE_CHECKING:
    from serving.gateway.routing import Owner


class Place(BaseModel):
    """Where a request is not of its route's form."""

    loc: list[str | int]
    msg: str
    type: str


class Detail(BaseModel):
    """An error as S0 to S3 say it: a sentence, or the places that are not as they should be."""

    detail: str | list[Place]


class OwnError(BaseModel):
    """What went wrong. ``code`` is stable and for programs, ``hint`` says what to do next."""

    code: str
    message: str
    request_id: str
    hint: str | None = None
    details: list[Place] = Field(default_factory=list)


class Own(BaseModel):
    """An error as ``/v1`` says it."""

    error: OwnError


class TraceError(BaseModel):
    """An error as S4 says it: a message, and a reference to the log."""

    error: str
    trace: str


_MODELS: dict[Any, type[BaseModel]] = {detail_shape: Detail, own_shape: Own, trace_shape: TraceError}
_WORDS = {
    400: "The request, or its image, can't be used.",
    401: "No token, or none that is good.",
    403: "The token is good, but not for this.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "What is there forbids it, or the idempotency key was used for another request.",
    410: "What the first request with this idempotency key made was erased since.",
    413: "Body or image over the limit.",
    415: "Not a type that this route takes.",
    422: "A value is missing or not of its form.",
    429: "Too many requests: again after Retry-After seconds.",
    502: "A model's server gave no good answer.",
    503: "A model, the store or this gateway has no time now: again after Retry-After seconds.",
    504: "The work took too long.",
    507: "No room is left.",
}
_BODY = (400, 408, 413, 507)
#: Statuses of a route that takes an Idempotency-Key.
ONCE = (409, 410)
#: Statuses of a route that takes an image and asks a model about it.
MODEL = (415, 502)


def errors(*statuses: int, shape: Callable[..., Any] = detail_shape) -> dict[int | str, dict[str, Any]]:
    """A route's ``responses`` for these statuses. ``shape`` is the system's."""
    model = _MODELS.get(shape)
    body = {} if model is None else {"model": model}
    return {status: {"description": _WORDS[status], **body} for status in statuses}


def usual(shape: Callable[..., Any], *, public: bool, body: bool) -> dict[int | str, dict[str, Any]]:
    """What every route can answer with: its place, its door, its body's limits."""
    door = () if public else (400, 401, 403, 422, 429)
    return errors(*dict.fromkeys((503, 504, *door, *(_BODY if body else ()))), shape=shape)


#: ``openapi_extra`` of a route that may be repeated with a key.
KEYED: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Repeated with the same key, the request is done once and answered the same.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$"},
        }
    ]
}


_SCHEMES = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "session": {"type": "apiKey", "in": "cookie", "name": "retiderm_session"},
}
_ID = {
    "description": "The request's id, given by the client or made here; the log has it.",
    "schema": {"type": "string"},
}
_AGAIN = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
_METHODS = ("get", "post", "put", "patch", "delete", "head")


_REF = "#/components/schemas/"
_MODULE = re.compile(r"serving__gateway__(?:systems__)?([a-z0-9]+)__(?:\w+__)?(\w+)")


def finish(document: dict[str, Any], owners: Mapping[str, Owner]) -> dict[str, Any]:
    """What no route says by itself: how to carry a token, headers of every answer, whose the routes are."""
    document = _renamed(document)
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for operations in document.get("paths", {}).values():
        for operation in (operations[method] for method in _METHODS if method in operations):
            for status, said in operation["responses"].items():
                headers = said.setdefault("headers", {})
                headers.setdefault("X-Request-ID", _ID)
                if status in ("429", "503"):
                    headers.setdefault("Retry-After", _AGAIN)
    used = {
        tag
        for operations in document.get("paths", {}).values()
        for operation in operations.values()
        if isinstance(operation, dict)
        for tag in operation.get("tags", ())
    }
    document["tags"] = [
        {"name": name, "description": owner.title} for name, owner in owners.items() if name in used
    ]
    return document


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """Forms of one name in several systems are told apart by the system, and not by our modules."""
    schemas: dict[str, Any] = document.get("components", {}).get("schemas", {})
    names = {name: f"{found[1].capitalize()}{found[2]}" for name in schemas if (found := _MODULE.match(name))}
    # A name that two would get, or that is there already, stays as it is.
    taken = Counter([*names.values(), *(name for name in schemas if name not in names)])
    names = {name: new for name, new in names.items() if taken[new] == 1}
    for schema in schemas.values():
        _complete(schema)
    renamed: dict[str, Any] = _with_names(document, names)
    return renamed


def _complete(schema: dict[str, Any]) -> None:
    """FastAPI drops nulls from a document, and with them from examples what has to be said there."""
    example = schema.get("example")
    if isinstance(example, dict):
        for name in schema.get("required", ()):
            example.setdefault(name, None)


def _with_names(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            names.get(key, key): _REF + names.get(value.removeprefix(_REF), value.removeprefix(_REF))
            if key == "$ref" and isinstance(value, str)
            else _with_names(value, names)
            for key, value in node.items()
        }
    return [_with_names(item, names) for item in node] if isinstance(node, list) else node
