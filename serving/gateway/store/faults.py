"""The database's errors, in this project's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import exc

from data.errors import Conflict, Overloaded, RequestError, StoreError, StoreFull

_FULL = ("database or disk is full", "no space left", "could not extend file", "disk full")
_TRY_AGAIN = "Nothing was written; ask again later."


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what SQLAlchemy raises as an error of ours. Messages never hold a statement or its values."""
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict("The database refused a row that contradicts another.") from error
    except exc.DataError as error:
        raise RequestError("A value is of a kind or size that the database does not hold.") from error
    except exc.TimeoutError as error:
        raise Overloaded("All connections to the database are in use.", hint=_TRY_AGAIN) from error
    except (exc.OperationalError, exc.InternalError, exc.InterfaceError, exc.DatabaseError) as error:
        said = str(error.orig).lower()
        if any(sign in said for sign in _FULL):
            raise StoreFull("No room is left for the database.", hint=_TRY_AGAIN) from error
        if "locked" in said or "busy" in said:
            raise Overloaded("The database is busy: other writes did not end.", hint=_TRY_AGAIN) from error
        raise StoreError("The database can't be reached, or gave up.", hint=_TRY_AGAIN) from error
