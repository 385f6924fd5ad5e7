"""Multipart forms of up to gigabytes in bounded memory.

The framework's own parser opens a temporary file for each part, which for a thousand images is a thousand
buffers of a megabyte, and knows no limit on a file or on all of them. Here every file of a form lies in one
spool, in memory while small, and is read back a part at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from data.errors import RequestError
from serving.patchcore.errors import TooLarge
from serving.patchcore.settings import Limits

_IN_MEMORY = 32 * 2**20
_FLUSH = 2**20
_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 256 * 2**10

#: Runs a blocking call off the event loop.
Offload = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the form: the content type that it was sent with ("" for none) and where its bytes are."""

    content_type: str
    start: int
    size: int


class Form:
    """The fields and files of one request. Close it, or use it as a context."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self.files: dict[str, list[Part]] = {}
        self.spool: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115, closed by close()

    def read(self, part: Part) -> bytes:
        """A file's bytes. For one thread at a time."""
        self.spool.seek(part.start)
        data: bytes = self.spool.read(part.size)
        return data

    def close(self) -> None:
        """Let the spool go."""
        self.spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


async def read_form(content_type: str, body: AsyncIterator[bytes], limits: Limits, offload: Offload) -> Form:
    """Read a ``multipart/form-data`` body. ``offload`` runs the writes that reach the disk.

    A part with a file name, or of an image type, is a file; every other one is a text field.

    Raises:
        RequestError: the body isn't such a form, or ends inside it.
        TooLarge: a file, a field or their number is over its limit.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestError(
            f"The request is {kind.decode('latin-1') or 'of no content type'}, not a form.",
            hint="Send multipart/form-data, as curl -F does.",
        )
    form = Form()
    try:
        reader = _Reader(form, limits)
        parser = MultipartParser(boundary, reader.callbacks(), max_header_size=8192)
        async for piece in body:
            parser.write(piece)
            if len(reader.pending) >= _FLUSH:
                await reader.flush(offload)
        parser.finalize()
        if not reader.ended:
            raise RequestError("The form ends before its last boundary.", hint="Send the request again.")
        await reader.flush(offload)
    except FormParserError as error:
        form.close()
        raise RequestError(f"The form can't be read ({error}).", hint="Send multipart/form-data.") from error
    except BaseException:
        form.close()
        raise
    return form


class _Reader:
    """The parser's callbacks, which can't wait: bytes of files are kept until the next flush."""

    def __init__(self, form: Form, limits: Limits) -> None:
        self.pending = bytearray()
        self.ended = False
        self._form, self._limits = form, limits
        self._written = 0
        self._headers: dict[bytes, bytes] = {}
        self._header = (bytearray(), bytearray())
        self._name, self._type, self._is_file = "", "", False
        self._value = bytearray()
        self._size = 0

    def callbacks(self) -> Any:
        """By the parser's names for them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    async def flush(self, offload: Offload) -> None:
        """Write what is pending; on the disk's side of the spool, off the event loop."""
        data, spool = self.pending, self._form.spool
        self.pending = bytearray()
        self._written += len(data)
        if self._written <= _IN_MEMORY:
            spool.write(data)
        else:
            await offload(spool.write, data)

    def _all(self) -> None:
        self.ended = True

    def _begin(self) -> None:
        self._headers = {}
        self._value = bytearray()
        self._size = 0

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"name" not in options:
            raise RequestError(
                "A part of the form has no name.", hint='Content-Disposition: form-data; name="…"'
            )
        self._name = _text(options[b"name"])
        self._type = self._headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        self._is_file = b"filename" in options or self._type.startswith("image/")
        limits = self._limits
        if self._is_file:
            count = 1 + sum(len(parts) for parts in self._form.files.values())
            if count > limits.max_images:
                raise TooLarge(
                    f"The form has more than {limits.max_images:,} files.",
                    hint="Fit with fewer images, and add the others by an incremental fit.",
                )
        elif sum(len(values) for values in self._form.fields.values()) >= _MAX_FIELDS:
            raise TooLarge(f"The form has more than {_MAX_FIELDS} fields.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._is_file:
            if self._size > self._limits.max_image_bytes:
                raise TooLarge(
                    f"An image is over the limit of {self._limits.max_image_bytes:,} bytes.",
                    hint="Send a smaller or more strongly compressed image.",
                )
            self.pending += memoryview(data)[start:end]
        else:
            if self._size > _MAX_FIELD_BYTES:
                raise TooLarge(f"A field of the form is over the limit of {_MAX_FIELD_BYTES:,} bytes.")
            self._value += memoryview(data)[start:end]

    def _end(self) -> None:
        if self._is_file:
            start = self._written + len(self.pending) - self._size
            self._form.files.setdefault(self._name, []).append(Part(self._type, start, self._size))
        else:
            self._form.fields.setdefault(self._name, []).append(_text(bytes(self._value)))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise RequestError(
            "A field of the form is not UTF-8 text.", hint="Send text fields in UTF-8."
        ) from None
