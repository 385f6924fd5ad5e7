"""The database's errors, in this project's words.

None of them carries the database's own: it may quote a whole row, a patient's for instance, and errors are
logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from sqlalchemy import exc

from data.errors import Conflict, Overloaded, RequestError, StoreError, StoreFull

_log = logging.getLogger("retiderm.gateway")
_FULL = ("database or disk is full", "no space left", "could not extend file", "disk full")
_TRY_AGAIN = "Nothing was written; ask again later."


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what SQLAlchemy raises as an error of ours."""
    try:
        yield
    except exc.IntegrityError as error:
        _tell(error)
        raise Conflict("The database refused a row that contradicts another.") from None
    except exc.DataError as error:
        _tell(error)
        raise RequestError("A value is of a kind or size that the database does not hold.") from None
    except exc.TimeoutError:
        raise Overloaded("All connections to the database are in use.", hint=_TRY_AGAIN) from None
    except exc.DBAPIError as error:
        said = str(error.orig)
        if any(sign in said.lower() for sign in _FULL):
            raise StoreFull("No room is left for the database.", hint=_TRY_AGAIN) from None
        if "locked" in said.lower() or "busy" in said.lower():
            raise Overloaded("The database is busy: other writes did not end.", hint=_TRY_AGAIN) from None
        _tell(error)
        if isinstance(error, exc.OperationalError):
            # The first line is about the connection; rows come in the later ones, if at all.
            _log.warning("the database: %s", said.partition("\n")[0][:200])
        raise StoreError("The database can't be reached, or gave up.", hint=_TRY_AGAIN) from None


def _tell(error: exc.DBAPIError) -> None:
    """The kind of an error and the constraint, which are names of ours."""
    found = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    _log.info("the database: %s %s", type(error.orig).__name__, found or "")
