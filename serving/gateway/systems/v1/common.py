"""What the nouns share: ids, moments, pages, refusals."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request

from data.errors import NotAllowed, Overloaded
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.errors import Gone, own_shape
from serving.gateway.openapi import errors
from serving.gateway.store.repositories import images
from serving.gateway.store.repositories.idempotency import Answer
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Image

T = TypeVar("T")

#: ``responses`` of a route in /v1's words.
refusals = partial(errors, shape=own_shape)

#: An id in a path.
Id = Annotated[uuid.UUID, Path(description="A UUID, as the answer that made it told.")]
MOST = 200
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most.")]
After = Annotated[
    str | None,
    Query(pattern=r"^[0-9]{1,18}$", description="Where a page begins: the one before's `next`."),
]
#: The name of a task, which is also a model's.
Task = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", examples=["dr_grading"])]
#: Something that isn't a blank; what else is one, engines of patterns don't agree on.
VISIBLE = r"[^ \t\r\n]"
#: A text that an index holds.
Short = Annotated[str, Field(min_length=1, max_length=200, pattern=VISIBLE)]


class In(BaseModel):
    """What a client sends: a field that there isn't is an error, and not passed over."""

    model_config = ConfigDict(extra="forbid")


def _rfc3339(value: Any) -> Any:
    if not isinstance(value, str) or re.match(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d", value) is None:
        raise ValueError("write it as 2026-11-01T08:30:00Z")
    # A plus sign in a query is a space, unless it was encoded.
    return value.replace(" ", "+")


#: A moment in a query, with its zone; nothing else that pydantic would take for one.
Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]


async def said_once(request: Request) -> None:
    """Refuse a query that says one thing twice: nobody could tell which was meant.

    Raises:
        RequestValidationError: naming it.
    """
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if count > 1:
            said = {"type": "value_error", "loc": ("query", name), "msg": f"Said {count} times"}
            raise RequestValidationError([said])


def no_text(value: Any) -> Any:
    """A JSON's number is a number: a text that looks like one is refused, though pydantic would take it."""
    if isinstance(value, str | bool):
        raise ValueError("say a number, not a text")
    return value


def one_of(*names: str) -> Any:
    """``oneOf`` of a JSON schema: one of these text fields is said, the others are not, or are null."""
    return [
        {
            "required": [said],
            "properties": {name: {"type": "string" if name == said else "null"} for name in names},
        }
        for said in names
    ]


class Page(BaseModel, Generic[T]):
    """A part of a list, oldest first. ``next`` is null on the last page."""

    items: list[T]
    next: str | None = Field(description="Give it as `after` for what follows.")


def page_of(
    scope: Scope, rows: Sequence[Any], limit: int, show: Callable[[Any], T], number: Callable[[Any], int]
) -> Page[T]:
    """A page of ``rows``, of which one more than ``limit`` was asked for, by ``store.read(…, paged=True)``.

    Where others follow, it ends before what may be added to it still: the next page begins after its end.

    Raises:
        Overloaded: all of it may be added to still, since a transaction goes on for so long.
    """
    if len(rows) <= limit:
        return Page[Any](items=[show(row) for row in rows], next=None)
    end = limit
    if scope.horizon is not None:
        end = sum(number(row) < scope.horizon for row in rows[:limit])
    # Two processes may have drawn one number.
    while end > 1 and number(rows[end]) == number(rows[end - 1]):
        end -= 1
    if end == 0:
        raise Overloaded("Something that belongs here is being written.", hint="Ask again later.")
    return Page[Any](items=[show(row) for row in rows[:end]], next=str(number(rows[end - 1])))


def start_of(after: str | None) -> int:
    """The number after which a page begins."""
    return int(after or 0)


def made(answer: Answer) -> str:
    """The id of what a request made, this time or the first.

    Raises:
        Gone: it was erased since.
    """
    if answer.body is None:
        raise Gone("What this request made was erased since.", hint="Use another Idempotency-Key.")
    return str(answer.body["id"])


def seen_image(scope: Scope, who: Identity, image_id: str) -> Image:
    """An image that this client may see: a tenant's, but a face scan's only by whoever made it.

    Raises:
        NotFound: there is none.
        NotAllowed: it is another's face.
    """
    image = images.get(scope, image_id)
    if image.system == "s3" and who.role is Role.APP and image.owner != who.subject:
        raise NotAllowed("This image is another's.")
    return image
