"""Every error this project raises on purpose, at a glance.

::

    RetidermError
    ├── UsageError                 a command, option or task file is wrong
    │   └── TaskError
    ├── DataError                  a data set is wrong
    │   ├── SourceError            a source can't be read as the kind that it was named
    │   ├── DatasetError           a canonical dataset is missing, damaged or of another format
    │   └── CheckFailed            a data check failed; carries the rows
    ├── ImageError                 an image can't be used; ``code`` says why
    │   ├── ImageTooLarge          bytes or pixels over the limit
    │   ├── NotAnImage             not an image type that we read
    │   ├── ImageDamaged           an image type, but it can't be decoded
    │   └── NotGradable            it was decoded, and isn't good enough for an answer
    ├── IntegrityError             stored bytes aren't the bytes that were recorded
    │   └── BundleError            a bundle is incomplete, altered or of an unknown format
    ├── ParityError                two ways to the same answer disagree
    ├── RegistryError              the registry refused, or an entry is missing
    │   └── LedgerError            the history is broken or was cut
    ├── ServingError               a server can't be started or reached
    │   ├── RequestError           the request is malformed (400)
    │   ├── Overloaded             the queue is full (503)
    │   ├── StoreError             the gateway's database or image store can't be reached, or refused (503)
    │   │   └── StoreFull          no room is left for it (507)
    │   ├── NotFound               there is no such row, or it is another tenant's (404)
    │   ├── Conflict               what is there forbids it (409)
    │   └── AccessError
    │       ├── TokenRefused       no token, or an unknown, expired or revoked one (401)
    │       └── NotAllowed         the token is good but not for this (403)
    └── StepFailed                 a pipeline's step failed; carries the step and the real error
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class RetidermError(Exception):
    """The base of them all.

    ``code`` is stable and for machines, ``str(error)`` says what happened, ``hint`` what to do next.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments would otherwise be lost when an error crosses a process boundary.
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(cls: type[RetidermError], message: str, state: dict[str, Any]) -> RetidermError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(RetidermError):
    """A command, an option or a configuration is wrong."""

    code = "usage"


class TaskError(UsageError):
    """A task file is missing or doesn't say what a task must say."""

    code = "task"


class DataError(RetidermError):
    """A data set is wrong."""

    code = "data"


class SourceError(DataError):
    """A source can't be read as the kind that it was named."""

    code = "source"


class DatasetError(DataError):
    """A canonical dataset is missing, damaged or of another format."""

    code = "dataset"


class CheckFailed(DataError):
    """A data check failed. ``rows`` names what failed, one line each."""

    code = "check_failed"

    def __init__(self, message: str, *, rows: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.rows = tuple(rows)


class ImageError(RetidermError):
    """An image can't be used."""

    code = "image"


class ImageTooLarge(ImageError):
    """An image is over the limit on bytes or pixels, judged from its header before decoding."""

    code = "image_too_large"


class NotAnImage(ImageError):
    """The bytes are not of an image type that we read."""

    code = "not_an_image"


class ImageDamaged(ImageError):
    """The bytes begin as an image but can't be decoded whole."""

    code = "image_damaged"


class IntegrityError(RetidermError):
    """Stored bytes are not the bytes that were recorded."""

    code = "integrity"


class BundleError(IntegrityError):
    """A bundle is incomplete, altered, or of a format that this version does not know."""

    code = "bundle"


class ParityError(RetidermError):
    """Two ways to the same answer (torch and ONNX, offline and served) disagree."""

    code = "parity"


class RegistryError(RetidermError):
    """The registry refused, or has no such entry."""

    code = "registry"


class LedgerError(RegistryError):
    """The history of promotions is broken or was cut."""

    code = "ledger"


class ServingError(RetidermError):
    """A server can't be started or reached."""

    code = "serving"


class RequestError(ServingError):
    """A request is malformed."""

    code = "bad_request"


class Overloaded(ServingError):
    """More requests are waiting than the server agreed to hold."""

    code = "overloaded"


class StepFailed(RetidermError):
    """A pipeline's step failed. ``step`` names it; the message is the step's own."""

    code = "step_failed"

    def __init__(self, message: str, *, step: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step


class StoreError(ServingError):
    """The gateway's database or image store can't be reached, or refused. Asking again may help."""

    code = "store"


class StoreFull(StoreError):
    """No room is left where rows or images are kept."""

    code = "store_full"


class NotFound(ServingError):
    """There is no such thing, or it is another tenant's: the two look the same."""

    code = "not_found"


class Conflict(ServingError):
    """What is already there forbids it."""

    code = "conflict"


class AccessError(ServingError):
    """Who asks may not have this."""

    code = "access"


class TokenRefused(AccessError):
    """There is no token, or it is unknown, expired or revoked; which of these is not told."""

    code = "token_refused"


class NotAllowed(AccessError):
    """The token is good, but not for this."""

    code = "not_allowed"


class NotGradable(ImageError):
    """An image isn't good enough for an answer. ``verdict`` and ``reasons`` are the quality gate's codes."""

    code = "not_gradable"

    def __init__(self, verdict: str, reasons: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(
            f"The image can't be judged ({verdict}): {', '.join(reasons) or 'no reason given'}.",
            hint=hint or "Photograph it again, sharp and in even light, or send it at its full size.",
        )
        self.verdict = verdict
        self.reasons = tuple(reasons)
