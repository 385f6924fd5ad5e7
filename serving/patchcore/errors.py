"""The service's one error shape, ``{"error": message, "trace": …}``, for every error, the framework's too.

In production ``trace`` is a reference, under which the log holds where the error came from. With debugging on
it is the stack trace itself. Neither log nor answer names a path: see :func:`without_paths`.
"""

from __future__ import annotations

import errno
import logging
import re
import traceback
import uuid
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from data.errors import ImageError, ImageTooLarge, Overloaded, RequestError, RetidermError, ServingError

_LOG = logging.getLogger("retiderm.patchcore")

# Two folders or more, from the root: "/a/b" but not "/fit_ok", a fraction or a date.
_PATH = re.compile(r"(?<![\w/.])(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\",:;()\[\]]+){2,}")
# What whoever runs the server can mend, said to whoever asks: by the kind of failure, never by a path.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_WRITING = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_MAX_FRAMES = 12
_SLOW_DOWN_S = 1


class TooLarge(RequestError):
    """The request is over one of the server's limits (413)."""

    code = "too_large"


class BodyTimeout(RequestError):
    """The request's body did not arrive in time (408)."""

    code = "body_timeout"


class TooSlow(ServingError):
    """The work took longer than a request may (504)."""

    code = "too_slow"


class Busy(Overloaded):
    """More requests wait than the server agreed to hold (503): come again in ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: int = _SLOW_DOWN_S, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Reporter:
    """Turns an exception into an answer and a log line. ``debug`` puts real stack traces into answers."""

    debug: bool = False

    def response(self, error: BaseException) -> JSONResponse:
        """The answer to ``error``, logged."""
        status, message = told(error)
        reference = uuid.uuid4().hex[:16]
        if status >= 500 and not isinstance(error, Overloaded):
            _LOG.error("error ref=%s status=%d %s", reference, status, trail(error))
        else:
            _LOG.info("refused ref=%s status=%d %s", reference, status, trail(error))
        trace = "".join(traceback.format_exception(error)) if self.debug else reference
        headers = dict(getattr(error, "headers", None) or {})
        if isinstance(error, Overloaded):
            headers["Retry-After"] = str(getattr(error, "retry_after", _SLOW_DOWN_S))
        return JSONResponse({"error": message, "trace": trace}, status_code=status, headers=headers)


def told(error: BaseException) -> tuple[int, str]:
    """Status and message of an error. What nobody foresaw is a 500 that says nothing of the inside."""
    if isinstance(error, HTTPException):  # the framework's own: no such route, no such method
        detail = error.detail if isinstance(error.detail, str) and error.detail else "Not accepted."
        return (400 if error.status_code == 422 else error.status_code), detail
    if isinstance(error, RequestValidationError):
        return 400, _first_problem(error)
    if isinstance(error, ClientDisconnect):  # nobody reads this; the log has it
        return 400, "The client went away before its request had arrived."
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return 500, "The server's disk is full, its models' or its temporary folder's. Nothing was changed."
    if isinstance(error, OSError) and error.errno in _NO_WRITING:
        return 500, "The server may not read or write its own files. Nothing was changed."
    status = _status(error)
    if status == 500 and not isinstance(error, RetidermError):
        return 500, "Something went wrong in the server; its log says what, under the reference."
    return status, without_paths(str(error))


def _status(error: BaseException) -> int:
    if isinstance(error, TooLarge | ImageTooLarge):
        return 413
    if isinstance(error, BodyTimeout):
        return 408
    if isinstance(error, Overloaded):
        return 503
    if isinstance(error, TooSlow):
        return 504
    return 400 if isinstance(error, RequestError | ImageError) else 500


def _first_problem(error: RequestValidationError) -> str:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"] if part != "body")
        return f"{where or 'The request'}: {problem['msg']}."
    return "The request is malformed."


def without_paths(text: str) -> str:
    """``text`` with every path of two parts or more replaced, and nothing that could break a log line."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return _PATH.sub("<path>", printable)


def trail(error: BaseException) -> str:
    """An exception and what caused it, innermost frame last, in one line without a path.

    >>> try:
    ...     raise ValueError("no")
    ... except ValueError as error:
    ...     trail(error).endswith("ValueError: no")
    True
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = [
            f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}:{line}"
            for frame, line in traceback.walk_tb(current.__traceback__)
        ][-_MAX_FRAMES:]
        parts.append(f"[{' > '.join(frames)}] {type(current).__name__}: {_words(current)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return " caused by ".join(parts)


def _words(error: BaseException) -> str:
    # An OSError's text ends with the file's name.
    text = f"[Errno {error.errno}] {error.strerror}" if isinstance(error, OSError) else str(error)
    return without_paths(text)
