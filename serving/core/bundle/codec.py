"""Frozen dataclasses to plain JSON values and back, strictly.

An unknown or missing key, or a value of another type, is an error that names its place
(``card.heads[0].temperature``).
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from data.errors import BundleError

T = TypeVar("T")

_HINT = "Export the bundle again, or open it with the version of retiderm that wrote it."


def to_plain(value: Any) -> Any:
    """A dataclass as dictionaries, lists, strings and numbers: what ``from_plain`` reads back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[T], value: Any, where: str) -> T:
    """Read a dataclass from plain values.

    Raises:
        BundleError: a key is unknown or missing, or a value is of another type.
    """
    if not isinstance(value, Mapping):
        raise BundleError(f"{where} should be an object, is {_name(value)}.", hint=_HINT)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise BundleError(f"{where} has unknown entries: {', '.join(map(str, unknown))}.", hint=_HINT)
    given = {}
    for name, field in fields.items():
        if name in value:
            given[name] = _read(hints[name], value[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where} lacks {name!r}.", hint=_HINT)
    return cls(**given)


def _read(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        return _read(inner, value, where)
    if origin is tuple:
        return _read_tuple(get_args(hint), value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise BundleError(f"{where} should be an object, is {_name(value)}.", hint=_HINT)
        inner = get_args(hint)[1]
        return {key: _read(inner, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast("type[Any]", hint), value, where)
    return _read_scalar(hint, value, where)


def _read_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise BundleError(f"{where} should be a list, is {_name(value)}.", hint=_HINT)
    if len(args) == 2 and args[1] is Ellipsis:
        kinds: tuple[Any, ...] = (args[0],) * len(value)
    elif len(args) == len(value):
        kinds = args
    else:
        raise BundleError(f"{where} should have {len(args)} entries, has {len(value)}.", hint=_HINT)
    return tuple(
        _read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _read_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise BundleError(f"{where} is not a finite number.", hint=_HINT)
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise BundleError(f"{where} should be {hint.__name__}, is {_name(value)}.", hint=_HINT)


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
