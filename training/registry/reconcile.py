"""After a crash or a change by hand: finish or undo what is unfinished, and put back what the ledger says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from data.errors import RetidermError

from .aftercare import catch_up, tidy
from .beside import differences, gone_from
from .heads import kept_heads
from .ledger import Ledger
from .recovery import finish_unfinished
from .state import after, last_challenge, now_serving, unfinished
from .targets import Target, target_from_spec
from .telling import OnStep
from .turn import LOCK_S, task_lock
from .version import Version

if TYPE_CHECKING:
    from .client import Registry


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that was put right, or (``done`` False) that could not or was only looked at."""

    task: str
    what: str  # promotion, alias, target, challenger
    message: str
    done: bool

    def to_dict(self) -> dict[str, str | bool]:
        """JSON's own types."""
        return asdict(self)


def reconcile(
    registry: Registry,
    task: str | None = None,
    *,
    ledger: Ledger | None = None,
    dry_run: bool = False,
    on_step: OnStep | None = None,
    lock_timeout: float = LOCK_S,
) -> list[Repair]:
    """Put a task, or all of them, right. Nothing to do gives an empty list.

    The ledger is what counts: an alias or pointer that was set by hand goes back to it. A task that the
    ledger has never heard of is left alone.

    Raises:
        LedgerError: the ledger itself is damaged: nothing is touched then.
    """
    ledger = ledger or Ledger()
    entries = ledger.entries()
    if not dry_run:
        ledger.require_sound(kept_heads(registry, ledger, task))
    tasks = [task] if task is not None else sorted({entry.task for entry in entries if entry.task})
    found: list[Repair] = []
    for name in tasks:
        if dry_run:
            begun = unfinished(entries, name)
            for intent in begun:
                message = f"The {intent.data['action']} to version {intent.version} is unfinished."
                found.append(Repair(name, "promotion", message, False))
            if not begun:  # half done, everything differs from before
                found += _drift(registry, ledger, name, repair=False)
            continue
        with task_lock(ledger, name, lock_timeout):
            for sentence in finish_unfinished(registry, ledger, name, on_step=on_step):
                found.append(Repair(name, "promotion", sentence, True))
            found += _drift(registry, ledger, name, repair=True)
            _after_done(registry, ledger, name)
    return found


def _drift(registry: Registry, ledger: Ledger, task: str, *, repair: bool) -> Sequence[Repair]:
    """Where aliases and targets differ from the last ``done`` entry; with ``repair`` put back."""
    entries = ledger.entries(task)
    serving = now_serving(entries, task)
    if serving is None:
        return []
    challenge = last_challenge(entries, task)
    found: list[Repair] = []

    def put(what: str, name: str, message: str, action: Callable[[], None]) -> None:
        entry = (challenge or serving) if what == "challenger" else serving
        done = False
        if repair:
            try:
                action()
            except RetidermError as error:
                message = f"{message} It could not be put back: {error.message}"
            else:
                done = True
                ledger.append(
                    "reconcile",
                    task=task,
                    version=entry.version,
                    digest=entry.digest,
                    why=message,
                    data={"what": what, "name": name},
                )
        found.append(Repair(task, what, message, done))

    aliases = {alias: v.version for v in registry.versions(task) for alias in v.aliases}
    for alias, wanted in after(serving).get("aliases", {}).items():
        # A challenger comes and goes with the gate; only what serves is the ledger's.
        if alias == "challenger" or aliases.get(alias) == wanted:
            continue
        put(
            "alias",
            alias,
            f"The alias {alias} named {_say(aliases.get(alias))}, the ledger says {_say(wanted)}.",
            functools.partial(registry.set_alias, task, alias, wanted),
        )
    gone = gone_from(registry, entries, task)
    if gone is not None:
        found.append(
            Repair(task, "challenger", f"{gone} Withdraw it: retiderm models withdraw {task}.", False)
        )
    else:
        for difference in differences(registry, entries, task):
            put("challenger", difference.place, difference.message, difference.mend)
    try:
        version = registry.get(task, serving.digest)
    except RetidermError as error:
        found.append(Repair(task, "version", f"What should serve is gone: {error.message}", False))
        return found
    for spec in serving.data.get("targets", ()):
        target = target_from_spec(registry, spec)
        if target.serves(version):
            continue
        message = f"{target.name} did not serve version {version.version}, whole."
        put("target", target.name, message, functools.partial(_serve, target, version))
    return found


def _after_done(registry: Registry, ledger: Ledger, task: str) -> None:
    """What a promotion that is done may have left: a head that lags, copies that nobody needs."""
    catch_up(registry, ledger, task)
    serving = now_serving(ledger.entries(task), task)
    if serving is not None:
        tidy(registry, task, [target_from_spec(registry, spec) for spec in serving.data.get("targets", ())])


def _serve(target: Target, version: Version) -> None:
    target.prepare(version)
    target.apply(version)


def _say(version: str | None) -> str:
    return f"version {version}" if version else "none"
