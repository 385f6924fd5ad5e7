"""A strict reader from plain mappings (YAML, JSON) to frozen dataclasses.

A task file is written by hand, so a wrong key or value must be named with its place in the file and with what
was probably meant. Limits and one-line explanations stand beside each field, made by :func:`knob`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from data.errors import TaskError

T = TypeVar("T")


def knob(default: Any, doc: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with its explanation and its limits (both ends allowed)."""
    metadata = {"doc": doc, "low": low, "high": high}
    if callable(default) and not isinstance(default, (str, bytes)):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def near(word: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` when something known is close, otherwise the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "Known: " + ", ".join(names) + "."


def build(cls: type[T], value: Any, where: str) -> T:
    """Make a ``cls`` of a mapping; ``where`` is the place in the file, as in ``train.augment``.

    Raises :class:`TaskError` on an unknown or missing key, a wrong type, or a value out of its limits.
    """
    if not isinstance(value, Mapping):
        raise TaskError(f"`{where}` must be a mapping of keys to values, not {_say(value)}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise TaskError(f"`{_join(where, key)}` is not known.", hint=near(str(key), fields))
    hints = _hints(cls)  # type: ignore[arg-type]
    arguments = {}
    for name, field in fields.items():
        place = _join(where, name)
        if name in value:
            arguments[name] = coerce(hints[name], value[name], place)
            _limits(field, arguments[name], place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise TaskError(f"`{place}` is missing.", hint="Add it to the task file.")
    return cls(**arguments)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as what JSON knows; the reverse of :func:`build`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def coerce(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``kind``, or a :class:`TaskError` that names ``where``."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(inner, value, where)
    if origin is typing.Literal:
        # YAML reads a bare `none` as text but `null` as None; people write either where `none` is a choice.
        value = "none" if value is None and "none" in inner else value
        if value not in inner:
            raise TaskError(
                f"`{where}` can't be {value!r}.", hint=near(str(value), (str(choice) for choice in inner))
            )
        return value
    if origin is tuple:
        return _tuple(inner, value, where)
    if origin in (dict, typing.Mapping, Mapping) or kind is Mapping:
        return _mapping(inner, value, where)
    if dataclasses.is_dataclass(kind):
        shorthand = getattr(kind, "shorthand", None)
        if shorthand is not None and not isinstance(value, Mapping):
            value = shorthand(value, where)
        return build(kind, value, where)  # type: ignore[arg-type]
    return _scalar(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif kind is float:
        number = _number(value)
        if number is not None:
            return number
    elif kind is str and isinstance(value, str):
        return value
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    raise TaskError(f"`{where}` must be {wanted}, not {_say(value)}.")


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        # YAML 1.1 reads 3e-4 (no dot) as text; nobody who writes it means text.
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def _union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) == 1:
        return coerce(rest[0], value, where)
    errors = []
    for choice in rest:
        try:
            return coerce(choice, value, where)
        except TaskError as error:
            errors.append(error)
    # Of several failures, the one about the shape that was written says the most.
    wrote_mapping = isinstance(value, Mapping)
    for choice, failure in zip(rest, errors, strict=True):
        if wrote_mapping == (
            dataclasses.is_dataclass(choice) or typing.get_origin(choice) in (dict, Mapping)
        ):
            raise failure
    raise errors[0]


def _tuple(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise TaskError(f"`{where}` must be a list, not {_say(value)}.")
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(coerce(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(inner):
        raise TaskError(f"`{where}` must have {len(inner)} entries, not {len(value)}.")
    return tuple(
        coerce(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(inner, value, strict=True))
    )


def _mapping(inner: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TaskError(f"`{where}` must be a mapping of names to values, not {_say(value)}.")
    kind = inner[1] if inner else Any
    return {str(key): coerce(kind, item, _join(where, key)) for key, item in value.items()}


def _limits(field: dataclasses.Field[Any], value: Any, where: str) -> None:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if (low is not None and number < low) or (high is not None and number > high):
            if low is not None and high is not None:
                limits = f"from {low:g} to {high:g}"
            else:
                limits = f"at least {low:g}" if low is not None else f"at most {high:g}"
            raise TaskError(f"`{where}` is {number:g} and must be {limits}.")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _say(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return repr(value)
