"""An image that a client sends, in whichever way: the field ``file`` of a form, or the body itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request

from data.errors import RequestError
from data.image import DecodeLimits, decode, read_header
from serving.gateway.errors import WrongType

_MOST_FIELDS = 32
_FIELD_BYTES = 64 * 2**10
#: Decoded no larger than it must be: it is only asked whether it can be decoded.
_PROOF_SIDE = 64
_RAW = ("image/", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of a file, and the other fields of its form (none of a raw body's)."""

    data: bytes = field(repr=False)
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Picture:
    """Bytes that are known to be an image: what they say of themselves, not what their sender said.

    ``width`` and ``height`` are as stored, before an EXIF orientation.
    """

    data: bytes = field(repr=False)
    format: str
    width: int
    height: int

    @property
    def media_type(self) -> str:
        """As ``image/png``."""
        return f"image/{self.format}"


async def read_upload(request: Request, name: str = "file") -> Upload:
    """The one file of a form's field ``name``, or the whole body where that is an image.

    Raises:
        RequestError: there is no such field, several, or the form is damaged.
        WrongType: the body is neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(_RAW):
        return Upload(await request.body(), {})
    if kind != "multipart/form-data":
        raise WrongType(
            f"The body is {kind or 'of no type'}; an image comes as multipart/form-data or as itself.",
            hint=f"Send a form with the file in the field {name!r}, or the image with its own Content-Type.",
        )
    async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES) as form:
        files = [item for key, item in form.multi_items() if key == name and isinstance(item, UploadFile)]
        if len(files) != 1:
            raise RequestError(
                f"The form has no file in the field {name!r}.",
                hint=f'With curl: -F "{name}=@photograph.jpg"',
            )
        data = await files[0].read()
        # The body has it a second time, which nobody reads again.
        request._body = b""
        return Upload(data, {key: item for key, item in form.multi_items() if isinstance(item, str)})


def check_picture(data: bytes, limits: DecodeLimits) -> Picture:
    """Decode once, as small as may be, to be sure of it. Takes milliseconds: call it off the event loop.

    Raises:
        ImageError: it isn't an image, is damaged, or is over the limits.
    """
    header = read_header(data, limits)
    decode(data, limits, min_side=_PROOF_SIDE)
    return Picture(data, header.format, header.width, header.height)


def upload_body(
    description: str, *, fields: dict[str, dict[str, Any]] | None = None, required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes an upload: a form with ``file``, or the image as the body."""
    binary = {"type": "string", "format": "binary"}
    properties = {"file": {**binary, "description": description}, **(fields or {})}
    form = {"type": "object", "properties": properties, "required": ["file", *required]}
    raw = {kind: {"schema": binary} for kind in ("image/jpeg", "image/png")}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, **raw},
        }
    }
