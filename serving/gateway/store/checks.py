"""What no database takes, found before it is asked, so that it is the client's error and never a 500."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import BigInteger, Integer, String
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import object_mapper as mapper_of

from data.errors import RequestError

_INT, _BIGINT, _DEPTH = 2**31, 2**63, 64


def check_row(row: DeclarativeBase) -> None:
    """Refuse a row with a text, number or document that PostgreSQL or SQLite would choke on.

    Raises:
        RequestError: naming the column.
    """
    for column in mapper_of(row).columns:
        value = getattr(row, column.key, None)
        if value is None:
            continue
        check_value(value, column.key)
        if isinstance(value, str) and isinstance(column.type, String):
            length = column.type.length
            if length is not None and len(value) > length:
                raise RequestError(f"{column.key} has {len(value)} characters; {length} are allowed.")
        if isinstance(value, int) and isinstance(column.type, Integer):
            bound = _BIGINT if isinstance(column.type, BigInteger) else _INT
            if not -bound <= value < bound:
                raise RequestError(f"{column.key} is out of range.")


def check_value(value: Any, name: str, depth: int = 0) -> None:
    """Refuse NUL characters, lone surrogates, NaN, infinities and depths that JSON columns don't take.

    Raises:
        RequestError: naming ``name``.
    """
    if isinstance(value, str):
        check_text(value, name)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError(f"{name} is not a finite number.")
    elif isinstance(value, dict | list | tuple):
        if depth >= _DEPTH:
            raise RequestError(f"{name} is nested more than {_DEPTH} deep.")
        for item in value.items() if isinstance(value, dict) else value:
            check_value(item, name, depth + (not isinstance(value, dict)))


def check_text(text: str, name: str, longest: int | None = None) -> str:
    """``text``, where a database can hold it.

    Raises:
        RequestError: it has a NUL character or half a character, or is longer than ``longest``.
    """
    if "\0" in text:
        raise RequestError(f"{name} has a NUL character.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(f"{name} has half of a character.") from None
    if longest is not None and len(text) > longest:
        raise RequestError(f"{name} has {len(text)} characters; {longest} are allowed.")
    return text
