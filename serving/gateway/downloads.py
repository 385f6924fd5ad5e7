"""What is made in a file and sent from it: exports, which may be larger than memory."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, TYPE_CHECKING

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from data.errors import StoreError, StoreFull

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_PIECE = 256 * 2**10


def built(fill: Callable[[IO[bytes]], None], *, hint: str) -> tuple[IO[bytes], int]:
    """A temporary file that ``fill`` has written, at its beginning, and its size. Blocks.

    Raises:
        StoreFull, StoreError: the folder for temporary files (``TMPDIR``) has no room, or can't be used.
    """
    # It has no name: closed or killed, it is gone.
    file = tempfile.TemporaryFile()  # noqa: SIM115, the response closes it
    try:
        fill(file)
        size = file.seek(0, 2)
        file.seek(0)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
            raise kind(f"The export can't be made: {error.strerror}.", hint=hint) from error
        raise
    return file, size


class Download(StreamingResponse):
    """A zip in a temporary file, sent in pieces and gone afterwards, however it ended.

    Let its route take its time (``front.take_time``): a client may be slow.
    """

    def __init__(self, gateway: Gateway, file: IO[bytes], size: int, name: str) -> None:
        self._gateway, self._file = gateway, file
        headers = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{name}"'}
        super().__init__(self._pieces(), headers=headers, media_type="application/zip")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._gateway.run(self._file.read, _PIECE):
            yield piece
