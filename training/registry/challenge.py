"""Let a version answer beside the champion, in shadow or for a share of the requests, and withdraw it.

::

    copy ─► challenge (in the ledger) ─► target: cluster ─► target: local

The copy and the checks come first, so that what can't be done is not written down. From the ledger's entry on
the places follow it (:mod:`training.registry.beside`). What serves is not touched by any of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data.errors import RegistryError, RetidermError
from serving.core.challenger import SHADOW, challenger_name, check_mode

from .beside import describe, mode_of, settle
from .chain import Entry
from .champion import champion_of
from .heads import keep_head
from .ledger import Ledger, whoami
from .permission import require_allowed, require_not_refused
from .state import now_challenging
from .targets import ChallengerTarget, Target, default_targets, in_order
from .telling import OnStep, hint_of, tell, words
from .turn import LOCK_S, turn
from .version import Version

if TYPE_CHECKING:
    from .client import Registry


@dataclass(frozen=True, slots=True)
class Challenge:
    """A version beside the champion. ``since`` is the ledger's time; ``changed`` False: it was so already."""

    task: str
    version: str
    digest: str
    mode: str
    share: float
    since: str
    who: str
    why: str
    champion: str | None
    changed: bool = True

    @property
    def words(self) -> str:
        """How it answers."""
        return describe(self.mode, self.share)

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {**asdict(self), "model": challenger_name(self.task)}

    @classmethod
    def of(cls, entry: Entry, *, changed: bool = True) -> Challenge:
        """From the ledger's entry."""
        mode, share = mode_of(entry)
        champion = entry.data.get("champion")
        return cls(
            entry.task,
            entry.version,
            entry.digest,
            mode,
            share,
            entry.time,
            entry.who,
            entry.why,
            champion,
            changed,
        )


def challenge(
    registry: Registry,
    version: Version,
    *,
    mode: str = SHADOW,
    share: float = 0.0,
    why: str = "",
    who: str | None = None,
    targets: Sequence[Target] | None = None,
    ledger: Ledger | None = None,
    on_step: OnStep | None = None,
    lock_timeout: float = LOCK_S,
) -> Challenge:
    """Let a version answer beside the champion as the model ``<task>-challenger``, in place of another.

    In ``shadow`` nobody is given its answers, so the gate's acceptance is enough, an approval may be missing.
    For a ``share`` people are: everything that a promotion asks for must be there.

    Raises:
        UsageError: there is no such mode or share.
        RegistryError: nothing serves, it serves itself, it may not, or a place refused: it is withdrawn then.
    """
    check_mode(mode, share)
    ledger, task = ledger or Ledger(), version.task
    with turn(registry, ledger, task, on_step=on_step, lock_timeout=lock_timeout):
        version = registry.get(task, version.version)
        champion = _may_challenge(registry, ledger, version, mode)
        places = _places(default_targets(registry) if targets is None else targets)
        entries = ledger.entries(task)
        now = now_challenging(entries, task)
        same = now is not None and (now.digest, mode_of(now)) == (version.digest, (mode, float(share)))
        if now is not None and same and all(place.challenges(version, mode, share) for place in places):
            return Challenge.of(now, changed=False)
        for place in places:
            place.prepare_challenger(version)
        tell(on_step, "challenger copied")
        entry = ledger.append(
            "challenge",
            task=task,
            version=version.version,
            digest=version.digest,
            who=who or whoami(),
            why=why or f"to answer {describe(mode, share)}",
            data={
                "mode": mode,
                "share": float(share),
                "champion": champion.version,
                "targets": [place.spec() for place in places],
            },
        )
        tell(on_step, "challenge")
        try:
            for place in places:
                place.challenge(version, mode, share)
                tell(on_step, f"challenger {place.name}")
        except Exception as error:
            _take_back(ledger, entry, places, words(error))
            raise RegistryError(
                f"{task} version {version.version} can't challenge and was withdrawn: {words(error)}",
                hint=hint_of(error),
            ) from error
        keep_head(registry, ledger, task)
        return Challenge.of(entry)


def withdraw(
    registry: Registry,
    task: str,
    *,
    why: str = "",
    who: str | None = None,
    ledger: Ledger | None = None,
    on_step: OnStep | None = None,
    lock_timeout: float = LOCK_S,
) -> Challenge | None:
    """Let nothing answer beside the champion any more. Gives what did; None where nothing did.

    Raises:
        RegistryError: a place can't be reached. The ledger says already that it is withdrawn: ``reconcile``.
    """
    ledger = ledger or Ledger()
    with turn(registry, ledger, task, on_step=on_step, lock_timeout=lock_timeout):
        now = now_challenging(ledger.entries(task), task)
        if now is not None:
            _note(ledger, now, why or "withdrawn", who)
            tell(on_step, "withdraw")
        # What an earlier withdrawal couldn't reach goes now, too.
        failed = settle(registry, ledger, task, lambda place: tell(on_step, f"withdrawn {place}"))
        if now is not None:
            keep_head(registry, ledger, task)
        if failed:
            raise RegistryError(
                f"The challenger of {task} is withdrawn, but not everywhere yet. {' '.join(failed)}",
                hint=f"Mend the cause, then: retiderm models reconcile {task}.",
            )
        return Challenge.of(now) if now is not None else None


def challenging(ledger: Ledger, task: str | None = None) -> list[Challenge]:
    """What answers beside a champion now, by the ledger: of a task, or of all."""
    entries = ledger.entries()
    tasks = [task] if task is not None else sorted({entry.task for entry in entries if entry.task})
    found = (now_challenging(entries, name) for name in tasks)
    return [Challenge.of(entry) for entry in found if entry is not None]


def _may_challenge(registry: Registry, ledger: Ledger, version: Version, mode: str) -> Version:
    """The champion, where a version may answer beside it."""
    name = f"{version.task} version {version.version}"
    entries = ledger.entries()
    champion = champion_of(registry, entries, version.task)
    if champion is None:
        raise RegistryError(
            f"Nothing serves {version.task} yet, so there is nothing to challenge.",
            hint=f"Promote it: retiderm models promote {version.task} {version.version}.",
        )
    if champion.digest == version.digest:
        raise RegistryError(f"{name} serves itself.", hint="Name another version: retiderm models list.")
    if challenger_name(version.task) in registry.tasks():
        raise RegistryError(
            f"A task of its own is called {challenger_name(version.task)!r}, as the challenger would be.",
            hint="Register that task under another name.",
        )
    if mode == SHADOW:
        require_not_refused(entries, version)
    else:
        require_allowed(registry, ledger, version)
    return champion


def _places(targets: Sequence[Target]) -> list[ChallengerTarget]:
    return [target for target in in_order(targets) if isinstance(target, ChallengerTarget)]


def _take_back(ledger: Ledger, entry: Entry, places: Sequence[ChallengerTarget], reason: str) -> None:
    _note(ledger, entry, reason, None)
    for place in reversed(places):
        try:
            place.withdraw(entry.task)
        except RetidermError:
            continue  # the ledger says that none should be there: verify tells it


def _note(ledger: Ledger, entry: Entry, why: str, who: str | None) -> None:
    data: Mapping[str, Any] = {"op": entry.seq, "mode": entry.data["mode"], "share": entry.data["share"]}
    ledger.append(
        "withdraw", task=entry.task, version=entry.version, digest=entry.digest, who=who, why=why, data=data
    )
