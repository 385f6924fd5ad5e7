"""Names of roles and ROIs that are safe as parts of a path."""

from __future__ import annotations

import re

from data.errors import RequestError

MAX_LENGTH = 64
_TOKEN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)


def check_token(name: object, what: str = "the id") -> str:
    """``name``, if it is a path-safe token: 1 to 64 of A–Z, a–z, 0–9, ``.``, ``_`` and ``-``, no dot first,
    no two dots in a row.

    Everything else is refused, not mended: mended names of two ROIs could be one.

    Raises:
        RequestError: slashes, backslashes, NUL, spaces, letters that only look like A–Z, …
    """
    if not isinstance(name, str) or len(name) > MAX_LENGTH or _TOKEN.fullmatch(name) is None or ".." in name:
        shown = repr(name[:MAX_LENGTH]) if isinstance(name, str) else type(name).__name__
        raise RequestError(
            f"{what[0].upper()}{what[1:]} {shown} is no path-safe token.",
            hint=f"Use A–Z, a–z, 0–9, '.', '_' and '-', at most {MAX_LENGTH}, no '.' first, no two in a row.",
        )
    return name
