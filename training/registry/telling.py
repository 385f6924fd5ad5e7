"""What is told of a change to what serves, while it happens: its steps, and what went wrong in one."""

from __future__ import annotations

from collections.abc import Callable

from data.errors import RetidermError

#: Is told each step's name when it was done.
OnStep = Callable[[str], None]


def tell(on_step: OnStep | None, name: str) -> None:
    """Say that a step was done, where somebody listens."""
    if on_step is not None:
        on_step(name)


def words(error: Exception) -> str:
    """What went wrong, in a sentence: our own errors' words, the kind and the words of others."""
    return error.message if isinstance(error, RetidermError) else f"{type(error).__name__}: {error}"


def hint_of(error: Exception) -> str | None:
    """What an error of ours says to do next; None of others."""
    return error.hint if isinstance(error, RetidermError) else None
