"""What answers beside a champion: what the ledger says of it, and the places put to that.

A ``challenge`` entry says what should answer beside, from before anything is changed; a ``withdraw`` entry,
or a ``done`` of the same bundle, says that nothing should any more. So there is nothing to finish or to undo
after a crash: whatever differs from the ledger is put to it, by ``reconcile`` or by a promotion.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import RetidermError

from .chain import Entry
from .ledger import Ledger
from .state import last_challenge, now_challenging, now_serving
from .targets import ChallengerTarget, target_from_spec
from .version import Version

if TYPE_CHECKING:
    from .client import Registry


@dataclass(frozen=True, slots=True)
class Difference:
    """A place that has another challenger than the ledger says, in a sentence, and what mends it."""

    place: str
    message: str
    mend: Callable[[], None]


def differences(registry: Registry, entries: Sequence[Entry], task: str) -> list[Difference]:
    """Where the challenger isn't the ledger's.

    Raises:
        RegistryError: a place can't be asked, or the version that should challenge is gone from MLflow.
    """
    found = (_difference(registry, entries, task, place) for place in places(registry, entries, task))
    return [difference for difference in found if difference is not None]


def settle(
    registry: Registry, ledger: Ledger, task: str, on_place: Callable[[str], None] | None = None
) -> list[str]:
    """Put every place to what the ledger says, each whatever the others do.

    Nothing is asked where the task never had a challenger. Gives a sentence for each place that couldn't be
    put right: ``verify`` tells it, and ``reconcile`` tries again.
    """
    entries = ledger.entries(task)
    if last_challenge(entries, task) is None:
        return []
    failed = []
    for place in places(registry, entries, task):
        try:
            difference = _difference(registry, entries, task, place)
            if difference is not None:
                difference.mend()
        except (RetidermError, OSError) as error:
            failed.append(f"{place.name}: {error.message if isinstance(error, RetidermError) else error}")
        if on_place is not None:
            on_place(place.name)
    return failed


def places(registry: Registry, entries: Sequence[Entry], task: str) -> list[ChallengerTarget]:
    """The places that may have a challenger: those of the last challenge, and this machine's serving root."""
    specs: list[Mapping[str, Any]] = []
    challenge, serving = last_challenge(entries, task), now_serving(entries, task)
    if challenge is not None:
        specs += challenge.data["targets"]
    if serving is not None:
        specs += [spec for spec in serving.data.get("targets", ()) if spec.get("kind") == "local"]
    found: list[ChallengerTarget] = []
    for index, spec in enumerate(specs):
        if spec in specs[:index]:
            continue
        target = target_from_spec(registry, spec)
        if isinstance(target, ChallengerTarget):
            found.append(target)
    return found


def mode_of(entry: Entry) -> tuple[str, float]:
    """The mode and the share of a ``challenge`` entry."""
    return str(entry.data["mode"]), float(entry.data["share"])


def gone_from(registry: Registry, entries: Sequence[Entry], task: str) -> str | None:
    """Why the version that should challenge can't be had, or None."""
    entry = now_challenging(entries, task)
    if entry is None:
        return None
    try:
        registry.get(task, entry.digest)
    except RetidermError as error:
        return f"The challenger, version {entry.version}, is gone: {error.message}"
    return None


def describe(mode: str, share: float) -> str:
    """How a challenger answers, in words."""
    return "in shadow" if mode == "shadow" else f"for a share of {share:g}"


def _difference(
    registry: Registry, entries: Sequence[Entry], task: str, place: ChallengerTarget
) -> Difference | None:
    entry = now_challenging(entries, task)
    if entry is None:
        there = place.challenger(task)
        if there is None:
            return None
        message = f"{place.name} has {_say(there)} as challenger, the ledger says none."
        return Difference(place.name, message, functools.partial(place.withdraw, task))
    version, (mode, share) = registry.get(task, entry.digest), mode_of(entry)
    if place.challenges(version, mode, share):
        return None
    message = f"{place.name} has not version {entry.version} as challenger {describe(mode, share)}, whole."
    return Difference(place.name, message, functools.partial(_challenge, place, version, mode, share))


def _challenge(place: ChallengerTarget, version: Version, mode: str, share: float) -> None:
    place.prepare_challenger(version)
    place.challenge(version, mode, share)


def _say(state: Mapping[str, Any]) -> str:
    if "version" not in state:
        return "something unreadable"
    return f"version {state['version']} {describe(str(state.get('mode')), float(state.get('share') or 0))}"
