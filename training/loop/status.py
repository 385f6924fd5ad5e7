"""What the loop of each task waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import Head
from data.errors import RetidermError
from data.sources.review import base_rows
from data.sources.review_plan import make_plan
from data.sources.review_rules import Rules
from training.loop import places
from training.loop.collect import Wishes
from training.loop.due import Drift, Due, Trigger, judge, read_drift
from training.loop.fetch import fetch
from training.loop.report import review_report

if TYPE_CHECKING:
    from training.registry.client import Registry
    from training.registry.version import Version
    from training.spec.parts import HeadSpec


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the loop of a task stands.

    ``due`` is None where no labels were given to count, and ``problem`` says why where they couldn't be.
    ``base`` is the dataset that new labels are added to; ``retrained`` the newest version that learned from
    review.
    """

    task: str
    champion: Mapping[str, Any] | None
    challenger: Mapping[str, Any] | None
    retrained: Mapping[str, Any] | None
    base: Mapping[str, Any] | None
    drift: Mapping[str, Any] | None
    due: Mapping[str, Any] | None
    problem: str | None
    waits_for: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return {**asdict(self), "waits_for": list(self.waits_for)}


def standing(
    registry: Registry,
    task: str,
    heads: Sequence[HeadSpec],
    *,
    labels: str | None = None,
    base: str = "",
    trigger: Trigger | None = None,
) -> Standing:
    """Look at the registry, the labels (where they are said to be) and the drift report of a task."""
    trigger = trigger or Trigger(always=False)
    versions = registry.versions(task)
    champion = next((version for version in versions if "champion" in version.aliases), None)
    challenger = next((version for version in versions if "challenger" in version.aliases), None)
    learned = next((v for v in versions if v.tags.get("source", "").endswith("+review")), None)
    found, problem = None, None
    due: Due | None = None
    try:
        found = places.open_base(task, base)
        if labels:
            told = count(task, heads, labels, base)
            due = judge(task, trigger, told, serves=champion.digest if champion else "")
    except RetidermError as error:
        problem = str(error)
    drift = read_drift(Path(trigger.drift), task) if trigger.drift else None
    return Standing(
        task=task,
        champion=_told(champion),
        challenger=_told(challenger),
        retrained=_told(learned),
        base=None
        if found is None
        else {
            "digest": found.digest,
            "images": found.info["images"],
            "made_at": found.info.get("created_at"),
            "from_review": bool(found.info.get("review")),
        },
        drift=None if drift is None else {**drift.to_dict(), "stale": _stale(drift, champion)},
        due=None if due is None else due.to_dict(),
        problem=problem,
        waits_for=tuple(_waits(champion, challenger, due, drift, problem, labels)),
    )


def due_now(
    registry: Registry,
    task: str,
    heads: Sequence[HeadSpec],
    *,
    labels: str,
    base: str,
    wishes: Wishes,
    trigger: Trigger,
) -> Due:
    """Whether it is time to train again, by the labels that are there now, without their pictures.

    Raises:
        RetidermError: they can't be counted.
    """
    champion = registry.champion(task) if trigger.drift else None
    return judge(
        task,
        trigger,
        count(task, heads, labels, base, wishes),
        serves=champion.digest if champion else "",
        learned=learned_from(registry, task),
    )


def learned_from(registry: Registry, task: str) -> frozenset[str]:
    """The datasets that versions of a task have learned from, by their digests."""
    return frozenset(version.dataset_digest for version in registry.versions(task))


def count(
    task: str, heads: Sequence[HeadSpec], labels: str, base: str = "", wishes: Wishes | None = None
) -> dict[str, Any]:
    """As much of the report on labels as can be said without their pictures.

    An image whose metadata a dataset took out is known again by the file that was sent, unless the dataset is
    of an older version; it then counts as new.
    """
    known = [Head(head.name, head.classes) for head in heads]
    found = places.open_base(task, base)
    export = fetch(labels, task, known, images=False)
    names = {label.sha256: label.sha256 for label in export.labels}
    asked = wishes or Wishes()
    rules = Rules(asked.correct, asked.extend_test, normal=found.info.get("one_class"))
    plan = make_plan(base_rows(found, known), export, names, rules)
    return review_report(export, plan, found, heads)


def _waits(
    champion: Version | None,
    challenger: Version | None,
    due: Due | None,
    drift: Drift | None,
    problem: str | None,
    labels: str | None,
) -> Iterator[str]:
    """In words, what has to happen next."""
    if champion is None:
        yield "a first version: retiderm run, or its promotion"
    if challenger is not None and (champion is None or int(challenger.version) > int(champion.version)):
        yield (
            f"a person's approval of version {challenger.version}"
            if challenger.pending_approval
            else f"a person's decision on version {challenger.version}, the challenger"
        )
    if problem is not None:
        yield problem
    elif due is None:
        yield "somebody to say where labels are (--labels)" if not labels else "labels"
    elif due.due:
        yield f"nothing: it is time to train again, {due.sentence}"
    else:
        yield due.sentence.removeprefix("waits for ")
    if drift is not None and drift.alarm and not _stale(drift, champion):
        yield f"a look at drift: {drift.reason}"


def _told(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {
        "version": version.version,
        "created_at": version.created_at,
        "dataset_digest": version.dataset_digest,
        "gate": version.decision or None,
        "pending_approval": version.pending_approval,
    }


def _stale(drift: Drift, champion: Version | None) -> bool:
    """Whether a drift report is of another version than the one that serves."""
    return bool(drift.digest) and champion is not None and drift.digest != champion.digest
