"""Promotion and rollback: from one version that serves to another, whole or not at all.

::

    intent ─► copy ─► aliases ─► target: cluster ─► target: local ─► done ─► challenger ─► tidy
      └─ in the ledger, with what served before: enough to finish or to undo everything after a crash

Each step may be done again. After each one a ``step`` entry follows. A step that fails undoes all of them; a
process that dies leaves an intent without ``done``, and :mod:`training.registry.reconcile` (or the next
promotion of the task) finishes it. A lock of the task keeps a second promotion waiting.

Where the version answered beside the champion until then, its ``done`` ends that as well; the places follow.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data.errors import LedgerError, RegistryError, RetidermError

from .beside import settle
from .chain import Entry
from .champion import champion_of
from .heads import keep_head, kept_heads
from .ledger import Ledger, whoami
from .locks import locked
from .state import last_gate, now_challenging, now_serving, served_digests, unfinished
from .targets import Target, default_targets, in_order, target_from_spec
from .version import APPROVED, CHALLENGER, CHAMPION, PREVIOUS, Version

if TYPE_CHECKING:
    from .client import Registry

OnStep = Callable[[str], None]

LOCK_S = 60.0

_LOG = logging.getLogger("retiderm.registry")


class _InDoubt(LedgerError):
    """Nobody can say whether a promotion is done: it is neither finished nor undone until somebody can."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion or rollback did. ``changed`` is False where the version served already."""

    task: str
    action: str
    version: str
    digest: str
    before: str | None  # the version that served until then
    changed: bool
    targets: tuple[str, ...]
    who: str
    why: str
    challenge: Mapping[str, Any] | None = None  # how it answered beside the champion until now

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {**asdict(self), "targets": list(self.targets)}


def promote(
    registry: Registry,
    version: Version,
    *,
    why: str = "",
    who: str | None = None,
    targets: Sequence[Target] | None = None,
    ledger: Ledger | None = None,
    on_step: OnStep | None = None,
    lock_timeout: float = LOCK_S,
    comparison: Mapping[str, Any] | None = None,
) -> Promotion:
    """Let a version that the gate accepted serve.

    ``comparison`` is what was seen of it beside the champion (a gateway counts that), as plain JSON values:
    it goes into the history with the promotion.

    ``on_step`` is told each step's name when it was done, before and after its ledger entry
    (``"aliases"``, then ``"aliases logged"``).

    Raises:
        RegistryError: the gate didn't accept it, ``comparison`` names another version as ``challenger``, or a
            step failed: then all was undone.
    """
    seen = (comparison or {}).get("challenger", version.version)
    if seen is not None and str(seen) != version.version:
        raise RegistryError(
            f"The comparison is of version {seen}, not of version {version.version}: nothing was promoted.",
            hint="Promote the version that was compared, or leave the comparison out.",
        )
    ledger = ledger or Ledger()
    with task_lock(ledger, version.task, lock_timeout):
        ledger.require_sound(kept_heads(registry, ledger, version.task))
        finish_unfinished(registry, ledger, version.task, on_step=on_step)
        version = registry.get(version.task, version.version)
        allowed(registry, ledger, version)
        return _change(
            registry,
            ledger,
            version,
            "promote",
            targets=default_targets(registry) if targets is None else targets,
            who=who or whoami(),
            why=why or "the gate accepted it",
            on_step=on_step,
            comparison=comparison,
        )


def rollback(
    registry: Registry,
    task: str,
    *,
    to: str | None = None,
    why: str = "",
    who: str | None = None,
    targets: Sequence[Target] | None = None,
    ledger: Ledger | None = None,
    on_step: OnStep | None = None,
    lock_timeout: float = LOCK_S,
) -> Promotion:
    """Go back to the version that served before, or to any that has served, without asking the gate again.

    Raises:
        RegistryError: nothing served before, ``to`` never served, or a step failed: then all was undone.
    """
    ledger = ledger or Ledger()
    with task_lock(ledger, task, lock_timeout):
        ledger.require_sound(kept_heads(registry, ledger, task))
        finish_unfinished(registry, ledger, task, on_step=on_step)
        if to is None:
            version = registry.by_alias(task, PREVIOUS)
            if version is None:
                raise RegistryError(
                    f"Nothing served {task} before what serves now, so there is nothing to go back to.",
                    hint=f"See: retiderm models history {task}.",
                )
        else:
            version = registry.get(task, to)
        if version.digest not in served_digests(ledger.entries(), task):
            raise RegistryError(
                f"{task} version {version.version} never served, so this would not be a rollback.",
                hint=f"Promote it instead: retiderm models promote {task} {version.version}.",
            )
        return _change(
            registry,
            ledger,
            version,
            "rollback",
            targets=default_targets(registry) if targets is None else targets,
            who=who or whoami(),
            why=why or "rolled back",
            on_step=on_step,
        )


def finish_unfinished(
    registry: Registry, ledger: Ledger, task: str, *, on_step: OnStep | None = None
) -> list[str]:
    """Finish what a crash left of a task's promotions, or undo it where it can't be finished.

    The caller holds the task's lock. Gives a sentence for each.
    """
    told = []
    for intent in unfinished(ledger.entries(), task):
        targets = [target_from_spec(registry, spec) for spec in intent.data["targets"]]
        name = f"{intent.data['action']} of {task} to version {intent.version}"
        try:
            version = registry.get(task, intent.digest)
            _run(registry, ledger, intent, version, targets, on_step, finished_by=whoami())
        except LedgerError:
            raise  # what can't be written down is not done, nor undone
        except RetidermError as error:
            undo(registry, ledger, intent, targets, error.message)
            told.append(f"Undid the unfinished {name}: {error.message}")
        else:
            told.append(f"Finished the unfinished {name}.")
    return told


def undo(registry: Registry, ledger: Ledger, intent: Entry, targets: Sequence[Target], reason: str) -> None:
    """Put aliases and targets back to what the intent found, and say so in the ledger.

    Raises:
        RegistryError: something could not be put back: the intent stays open, for ``reconcile``.
    """
    before = intent.data["before"]
    failed = []
    for target in reversed(in_order(targets)):
        try:
            target.restore(intent.task, before["targets"].get(target.name))
        except RetidermError as error:
            failed.append(f"{target.name}: {error.message}")
    try:
        _set_aliases(registry, intent.task, before["aliases"])
    except RetidermError as error:
        failed.append(f"aliases: {error.message}")
    if failed:
        raise RegistryError(
            f"{reason} It could not all be undone either: {' '.join(failed)}",
            hint="Mend the cause, then: retiderm models reconcile.",
        )
    _note(ledger, intent, "undone", why=reason)


def _change(
    registry: Registry,
    ledger: Ledger,
    version: Version,
    action: str,
    *,
    targets: Sequence[Target],
    who: str,
    why: str,
    on_step: OnStep | None,
    comparison: Mapping[str, Any] | None = None,
) -> Promotion:
    task = version.task
    versions = registry.versions(task)
    aliases = {alias: v.version for v in versions for alias in v.aliases}
    # What served is the ledger's to say: an alias that was set by hand must be neither kept nor put back.
    entries = ledger.entries(task)
    serving = now_serving(entries, task)
    beside = now_challenging(entries, task)
    champion = serving.version if serving else None
    found = champion if any(v.version == champion for v in versions) else None
    at_its_place = aliases.get(CHAMPION) == version.version
    aliases = {alias: number for alias, number in aliases.items() if alias != CHAMPION}
    if found is not None:
        aliases[CHAMPION] = found
    result = Promotion(
        task,
        action,
        version.version,
        version.digest,
        champion,
        True,
        tuple(t.name for t in targets),
        who,
        why,
        _challenged(beside, version),
    )
    if champion == version.version and at_its_place and all(t.serves(version) for t in targets):
        return Promotion(**{**asdict(result), "changed": False})
    previous = found if found not in (None, version.version) else aliases.get(PREVIOUS)
    wanted: dict[str, str | None] = {
        CHAMPION: version.version,
        PREVIOUS: previous if previous != version.version else None,
    }
    if aliases.get(CHALLENGER) == version.version:
        wanted[CHALLENGER] = None
    intent = ledger.append(
        "intent",
        task=task,
        version=version.version,
        digest=version.digest,
        who=who,
        why=why,
        data={
            "action": action,
            "before": {
                "aliases": {alias: aliases.get(alias) for alias in wanted},
                "targets": {target.name: target.current(task) for target in targets},
            },
            "after": {"aliases": wanted},
            "targets": [target.spec() for target in targets],
            **({"challenge": dict(result.challenge)} if result.challenge else {}),
            **({"comparison": dict(comparison)} if comparison is not None else {}),
        },
    )
    _tell(on_step, "intent")
    try:
        _run(registry, ledger, intent, version, targets, on_step)
    except _InDoubt:
        raise
    except Exception as error:
        message = _words(error)
        undo(registry, ledger, intent, targets, message)
        raise RegistryError(
            f"The {action} of {task} to version {version.version} failed and was undone: {message}",
            hint=error.hint if isinstance(error, RetidermError) else None,
        ) from error
    return result


def _run(
    registry: Registry,
    ledger: Ledger,
    intent: Entry,
    version: Version,
    targets: Sequence[Target],
    on_step: OnStep | None,
    finished_by: str | None = None,
) -> None:
    wanted: Mapping[str, str | None] = intent.data["after"]["aliases"]

    def prepare() -> None:
        for target in targets:
            target.prepare(version)

    steps: list[tuple[str, Callable[[], None]]] = [
        ("copy", prepare),
        ("aliases", functools.partial(_set_aliases, registry, version.task, wanted)),
    ]
    steps += [
        (f"target {target.name}", functools.partial(target.apply, version)) for target in in_order(targets)
    ]
    for name, action in steps:
        action()
        _tell(on_step, name)
        _note(ledger, intent, "step", step=name)
        _tell(on_step, f"{name} logged")
    more = {"finished_by": finished_by} if finished_by else {}
    try:
        _note(ledger, intent, "done", after=intent.data["after"], targets=intent.data["targets"], **more)
    except Exception as error:
        # The line may be on disk all the same: its head, on a full disk, comes after it.
        if _is_open(ledger, intent):
            raise
        _LOG.warning("%s: the ledger's line is written, then: %s", version.task, _words(error))
    # It serves: what fails from here on, whatever it is, is no reason to take that back.
    with _no_matter(version.task, "done"):
        _tell(on_step, "done")
    catch_up(registry, ledger, version.task)
    with _no_matter(version.task, "head kept"):
        _tell(on_step, "head kept")
    with _no_matter(version.task, "settling the challenger"):
        # What can't be settled verify tells, and reconcile mends.
        settle(registry, ledger, version.task)
    with _no_matter(version.task, "challenger settled"):
        _tell(on_step, "challenger settled")
    tidy(registry, version.task, targets)


def catch_up(registry: Registry, ledger: Ledger, task: str) -> None:
    """Keep the ledger's head with the task: it may lag behind. Raises nothing, as :func:`tidy`."""
    with _no_matter(task, "keeping the ledger's head"):
        keep_head(registry, ledger, task)


def tidy(registry: Registry, task: str, targets: Iterable[Target]) -> None:
    """Remove copies that neither champion nor previous needs. The caller holds the task's lock.

    Raises nothing: what fails is logged and left to ``retiderm models reconcile``, and to the next promotion.
    """
    with _no_matter(task, "tidying"):
        keep = [v for v in registry.versions(task) if {CHAMPION, PREVIOUS} & set(v.aliases)]
        for target in targets:
            with _no_matter(task, f"tidying {target.name}"):
                target.tidy(task, keep)


@contextlib.contextmanager
def _no_matter(task: str, what: str) -> Iterator[None]:
    """Log what goes wrong, a mistake of ours too, instead of raising it."""
    try:
        yield
    except Exception as error:
        _LOG.warning(
            "%s serves as the ledger says, but %s failed: %s. Mend it: retiderm models reconcile.",
            task,
            what,
            _words(error),
        )


def _is_open(ledger: Ledger, intent: Entry) -> bool:
    """Whether the ledger has neither ``done`` nor ``undone`` for an intent."""
    try:
        left = unfinished(ledger.entries(intent.task), intent.task)
    except (RetidermError, OSError) as error:
        raise _InDoubt(
            f"Whether version {intent.version} of {intent.task} serves can't be read from the ledger: "
            f"{_words(error)}",
            hint="Nothing was undone. Mend the cause, then: retiderm models reconcile.",
        ) from error
    return any(entry.seq == intent.seq for entry in left)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, RetidermError) else f"{type(error).__name__}: {error}"


def task_lock(ledger: Ledger, task: str, timeout: float) -> contextlib.AbstractContextManager[None]:
    """Held by whoever changes what serves a task."""
    from serving.core.pointer import check_name

    check_name(task, "task")
    return locked(ledger.folder / "locks" / f"{task}.lock", f"A promotion of {task}", timeout)


def _set_aliases(registry: Registry, task: str, aliases: Mapping[str, str | None]) -> None:
    # Champion last: until then the alias that serves still names what serves.
    for alias in sorted(aliases, key=lambda name: name == CHAMPION):
        registry.set_alias(task, alias, aliases[alias])


def _challenged(beside: Entry | None, version: Version) -> dict[str, Any] | None:
    """How a version answers beside the champion now."""
    if beside is None or beside.digest != version.digest:
        return None
    return {"mode": beside.data["mode"], "share": beside.data["share"], "since": beside.time}


def allowed(registry: Registry, ledger: Ledger, version: Version) -> None:
    """Raise unless the gate's last decision on this bundle allows it to serve now."""
    name = f"{version.task} version {version.version}"
    entries = ledger.entries()
    gate = last_gate(entries, version.task, version.digest)
    hint = f"Judge it: retiderm models promote {version.task} {version.version} --judge."
    champion = champion_of(registry, entries, version.task)
    if champion is not None and champion.digest == version.digest:
        return
    if gate is None:
        raise RegistryError(f"The gate has not judged {name}.", hint=hint)
    if gate.data.get("decision") != "accept":
        if not gate.data.get("pending_approval"):
            raise RegistryError(f"The gate refused {name}: {gate.why}", hint="Train a better one.")
        if not version.approved_by:
            raise RegistryError(
                f"{name} waits for a person's approval.",
                hint=f"retiderm models approve {version.task} {version.version}",
            )
        _log_approval(ledger, entries, version)
    if gate.data.get("champion") != (champion.version if champion else None):
        raise RegistryError(
            f"The gate compared {name} with version {gate.data.get('champion') or 'none'}, but "
            f"{'version ' + champion.version if champion else 'none'} is champion now.",
            hint=hint,
        )


def _log_approval(ledger: Ledger, entries: Sequence[Entry], version: Version) -> None:
    """An approval by tag in MLflow's page is written down when it first counts."""
    for entry in entries:
        if entry.event == "approval" and entry.digest == version.digest and entry.who == version.approved_by:
            return
    ledger.append(
        "approval",
        task=version.task,
        version=version.version,
        digest=version.digest,
        who=version.approved_by,
        why=f"the tag {APPROVED} in MLflow",
    )


def _note(ledger: Ledger, intent: Entry, event: str, *, why: str = "", **data: Any) -> None:
    ledger.append(
        event,
        task=intent.task,
        version=intent.version,
        digest=intent.digest,
        why=why,
        data={"op": intent.seq, **data},
    )


def _tell(on_step: OnStep | None, name: str) -> None:
    if on_step is not None:
        on_step(name)
