"""Promotion and rollback: from one version that serves to another, whole or not at all.

::

    intent ─► copy ─► aliases ─► target: cluster ─► target: local ─► done ─► challenger ─► tidy
      └─ in the ledger, with what served before: enough to finish or to undo everything after a crash

A step that fails undoes all of them (:mod:`training.registry.steps`); a process that dies leaves an intent
without ``done``, and :mod:`training.registry.reconcile` (or the next promotion of the task) finishes it. A
lock of the task keeps a second promotion waiting (:mod:`training.registry.turn`).

Where the version answered beside the champion until then, its ``done`` ends that as well; the places follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from data.errors import RegistryError

from .chain import Entry
from .ledger import Ledger, whoami
from .permission import require_allowed
from .plan import Plan
from .recovery import undo
from .state import served_digests
from .steps import InDoubt, carry_out
from .targets import Target, default_targets
from .telling import OnStep, hint_of, tell, words
from .turn import LOCK_S, turn
from .version import PREVIOUS, Version

if TYPE_CHECKING:
    from .client import Registry


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
    with turn(registry, ledger, version.task, on_step=on_step, lock_timeout=lock_timeout):
        version = registry.get(version.task, version.version)
        require_allowed(registry, ledger, version)
        why = why or "the gate accepted it"
        return _change(registry, ledger, version, "promote", why, who, targets, on_step, comparison)


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
    with turn(registry, ledger, task, on_step=on_step, lock_timeout=lock_timeout):
        version = registry.by_alias(task, PREVIOUS) if to is None else registry.get(task, to)
        if version is None:
            raise RegistryError(
                f"Nothing served {task} before what serves now, so there is nothing to go back to.",
                hint=f"See: retiderm models history {task}.",
            )
        if version.digest not in served_digests(ledger.entries(), task):
            raise RegistryError(
                f"{task} version {version.version} never served, so this would not be a rollback.",
                hint=f"Promote it instead: retiderm models promote {task} {version.version}.",
            )
        return _change(registry, ledger, version, "rollback", why or "rolled back", who, targets, on_step)


def _change(
    registry: Registry,
    ledger: Ledger,
    version: Version,
    action: str,
    why: str,
    who: str | None,
    targets: Sequence[Target] | None,
    on_step: OnStep | None,
    comparison: Mapping[str, Any] | None = None,
) -> Promotion:
    task, who = version.task, who or whoami()
    targets = default_targets(registry) if targets is None else targets
    plan = Plan.of(registry, ledger, version)
    result = Promotion(
        task,
        action,
        version.version,
        version.digest,
        plan.champion,
        True,
        tuple(target.name for target in targets),
        who,
        why,
        plan.challenge,
    )
    if plan.champion == version.version and plan.named and all(t.serves(version) for t in targets):
        return replace(result, changed=False)
    intent = _intend(ledger, result, plan, targets, comparison)
    tell(on_step, "intent")
    try:
        carry_out(registry, ledger, intent, version, targets, on_step)
    except InDoubt:
        raise
    except Exception as error:
        undo(registry, ledger, intent, targets, words(error))
        raise RegistryError(
            f"The {action} of {task} to version {version.version} failed and was undone: {words(error)}",
            hint=hint_of(error),
        ) from error
    return result


def _intend(
    ledger: Ledger,
    wanted: Promotion,
    plan: Plan,
    targets: Sequence[Target],
    comparison: Mapping[str, Any] | None,
) -> Entry:
    """Write down what will be done, with all that finishing or undoing it takes."""
    return ledger.append(
        "intent",
        task=wanted.task,
        version=wanted.version,
        digest=wanted.digest,
        who=wanted.who,
        why=wanted.why,
        data={
            "action": wanted.action,
            "before": {
                "aliases": plan.before,
                "targets": {target.name: target.current(wanted.task) for target in targets},
            },
            "after": {"aliases": plan.after},
            "targets": [target.spec() for target in targets],
            **({"challenge": dict(plan.challenge)} if plan.challenge else {}),
            **({"comparison": dict(comparison)} if comparison is not None else {}),
        },
    )
