"""The gate: the recorded comparison that a candidate must win before it may become champion.

Both are judged on one frozen test digest. The first version of a task, and the first on a new test digest,
must pass the task's absolute floors instead. Where the task names columns, the worst slice by each must not
fall behind the champion's worst (``fairness``). Beside that: parity must have been shown, data and weights
must allow the intended use, calibration must lie in its band where the task asks for it, and a person must
approve where the task asks for that. A refusal is a result, not an error.

Every decision is an entry of the ledger; promotion believes that entry, not the tags, which anyone may edit.
For the same reason the champion is the ledger's, not the alias's, and a test digest is the verified card's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from data.errors import IntegrityError, RegistryError
from data.files import digest_json
from serving.core.bundle import Bundle, Card, HeadCard

from .champion import champion_of
from .compare import LOWER_IS_BETTER, ORDINAL_ONLY, Comparison, answers, compare, metric_of
from .decision import FloorCheck, GateDecision, GateRules, Line
from .fairness import SliceCheck, check_slices
from .heads import keep_head, kept_heads
from .ledger import Ledger, whoami
from .proofs import unproved
from .rescore import rescore
from .version import APPROVED, CHALLENGER, Version

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.predict import Predictions

    from .client import Registry

__all__ = [
    "FloorCheck",
    "GateDecision",
    "GateRules",
    "against",
    "approve",
    "check_floors",
    "judge",
    "rescore",
]


def judge(
    registry: Registry,
    version: Version,
    rules: GateRules,
    *,
    dataset: Dataset | None = None,
    ledger: Ledger | None = None,
) -> GateDecision:
    """Judge a version; the decision goes into the ledger and beside the version.

    ``dataset`` is needed only where stored test predictions are missing or damaged: the bundle is then asked
    about its test images again, if its test digest is the right one.

    Raises:
        RegistryError: MLflow can't be reached, the candidate's files are damaged, or the ledger is.
    """
    ledger = ledger or Ledger()
    champion = champion_of(registry, ledger.entries(), version.task)
    refusals: list[str] = []
    comparisons: list[Comparison] = []
    floors: tuple[FloorCheck, ...] = ()
    slices: tuple[SliceCheck, ...] = ()
    grounds: list[str] = []
    try:
        bundle = registry.bundle(version)
    except IntegrityError as error:
        raise RegistryError(f"{version.task} version {version.version} can't be judged: {error}") from error
    card = bundle.card
    refusals += unproved(card) + _licence(card, rules) + (_calibration(card) if rules.calibrated else [])
    line, problem = _line(registry, version, card, champion)
    if problem:
        refusals.append(problem)
    elif line == "champion itself":
        grounds.append("It is the champion already.")
    elif line == "same test set" and champion is not None:
        found = against(registry, version, bundle, champion, rules, dataset)
        if isinstance(found, str):
            refusals.append(found)
        else:
            comparisons = found
            refusals += [item.sentence for item in found if not item.passed]
            grounds += [item.sentence for item in found]
            slices = groups(registry, version, bundle, champion, rules, dataset)
            refusals += [f"Worse for a group. {item.sentence}" for item in slices if not item.passed]
            grounds += [item.sentence for item in slices]
    else:
        floors = check_floors(card, rules.floors)
        refusals += [f"Below the floor. {item.sentence}" for item in floors if not item.passed]
        grounds.append(
            f"The first version of {version.task}: the floors decide."
            if champion is None
            else "Judged on another test set than the champion: a new line begins and the floors decide."
        )
        grounds += [item.sentence for item in floors]
    pending = not refusals and rules.requires_approval and not version.approved_by
    if pending:
        refusals.append(
            "The task requires a person's approval: `retiderm models approve "
            f"{version.task} {version.version}`, or the tag approved_by in MLflow's page."
        )
    elif rules.requires_approval and version.approved_by:
        grounds.append(f"Approved by {version.approved_by}.")
    decision = GateDecision(
        task=version.task,
        version=version.version,
        digest=version.digest,
        decision="refuse" if refusals else "accept",
        reasons=tuple(refusals or grounds),
        line=line,
        champion=champion.version if champion else None,
        test_digest=card.dataset.test_digest,
        comparisons=tuple(comparisons),
        floors=floors,
        pending_approval=pending,
        approved_by=version.approved_by or None,
        rules=rules,
        decided_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        slices=slices,
    )
    _record(registry, version, decision, ledger)
    return decision


def approve(
    registry: Registry,
    version: Version,
    *,
    why: str = "",
    who: str | None = None,
    ledger: Ledger | None = None,
) -> Version:
    """A person's approval of a version, in the ledger and as the tag that the gate looks for."""
    person = who or whoami()
    ledger = ledger or Ledger()
    ledger.require_sound(kept_heads(registry, ledger, version.task))
    ledger.append(
        "approval", task=version.task, version=version.version, digest=version.digest, who=person, why=why
    )
    keep_head(registry, ledger, version.task)
    return registry.set_tag(version, APPROVED, person)


def _record(registry: Registry, version: Version, decision: GateDecision, ledger: Ledger) -> None:
    document = decision.to_dict()
    told = (
        "decision",
        "headline",
        "line",
        "champion",
        "test_digest",
        "pending_approval",
        "approved_by",
        "rules",
    )
    ledger.require_sound(kept_heads(registry, ledger, version.task))
    ledger.append(
        "gate",
        task=version.task,
        version=version.version,
        digest=version.digest,
        why=" ".join(decision.reasons)[:2000],
        data={**{key: document[key] for key in told}, "document": digest_json(document)},
    )
    keep_head(registry, ledger, version.task)
    registry.record_decision(version, decision)
    if (decision.accepted or decision.pending_approval) and decision.line != "champion itself":
        registry.set_alias(version.task, CHALLENGER, version.version)


def check_floors(card: Card, floors: Mapping[str, float]) -> tuple[FloorCheck, ...]:
    """Each floor against the card's test metrics; one that can't be found there is not passed."""
    found = []
    for name, floor in floors.items():
        head_name, _, metric = name.rpartition(".")
        heads = [
            head
            for head in card.heads
            if (head.name == head_name if head_name else (head.ordinal or metric not in ORDINAL_ONLY))
        ]
        if not heads:
            found.append(FloorCheck(head_name or "every head", metric, None, floor, False))
        for head in heads:
            value = metric_of(card.metrics, head.name, metric)
            passed = value is not None and (value <= floor if metric in LOWER_IS_BETTER else value >= floor)
            found.append(FloorCheck(head.name, metric, value, floor, passed))
    return tuple(found)


def _line(registry: Registry, version: Version, card: Card, champion: Version | None) -> tuple[Line, str]:
    """What the version is judged on, by the verified cards; and a sentence where that can't be known."""
    if champion is None:
        return "first version", ""
    if champion.digest == version.digest:
        return "champion itself", ""
    try:
        theirs = registry.bundle(champion).card.dataset.test_digest
    except (RegistryError, IntegrityError) as error:
        return "same test set", _incomparable(champion, error)
    return "same test set" if theirs == card.dataset.test_digest else "new test set", ""


def _incomparable(champion: Version, error: Exception) -> str:
    return f"It can't be compared with the champion, version {champion.version}: {error}"


def against(
    registry: Registry,
    version: Version,
    bundle: Bundle,
    champion: Version,
    rules: GateRules,
    dataset: Dataset | None,
) -> list[Comparison] | str:
    """The comparisons with the champion on the same test images, or a sentence why there can be none."""
    try:
        champions = registry.bundle(champion)
        ours = _predictions(registry, version, bundle, dataset)
        theirs = _predictions(registry, champion, champions, dataset)
        found = []
        for head, metric in _compared(bundle.card, rules):
            if champions.card.head(head.name).classes != head.classes:
                return f"The champion's head {head.name} has other classes, so the two can't be compared."
            found.append(
                compare(
                    head.name,
                    answers(ours, bundle.card, head.name),
                    answers(theirs, champions.card, head.name),
                    metric=metric,
                    margin=rules.margin,
                    confidence=rules.confidence,
                    resamples=rules.resamples,
                    seed=rules.seed,
                )
            )
    except (RegistryError, IntegrityError) as error:
        return _incomparable(champion, error)
    return found or f"No head has the metric {rules.metric!r} to compare by."


def groups(
    registry: Registry,
    version: Version,
    bundle: Bundle,
    champion: Version,
    rules: GateRules,
    dataset: Dataset | None,
) -> tuple[SliceCheck, ...]:
    """The rule on groups, for each head that is compared and each column that the task names.

    Where nothing tells an image's slice, the check has no slices and says so: it is then no ground to refuse.
    """
    if not rules.slice_by:
        return ()
    champions = registry.bundle(champion)
    ours = _predictions(registry, version, bundle, dataset)
    theirs = _predictions(registry, champion, champions, dataset)
    known = [*theirs.slices_by_id(), *ours.slices_by_id()]
    names = dict(known)
    if dataset is not None and dataset.test_digest == bundle.card.dataset.test_digest:
        from training.labels import slice_names

        frame = dataset.split("test")
        told = {str(each): row for row, each in enumerate(frame["id"])}
        for column, values in slice_names(frame).items():
            names[column] = {each: str(values[row]) for each, row in told.items()}
    found = []
    for head, metric in _compared(bundle.card, rules):
        for column in rules.slice_by:
            found.append(
                check_slices(
                    head.name,
                    column,
                    answers(ours, bundle.card, head.name),
                    answers(theirs, champions.card, head.name),
                    names.get(column, {}),
                    metric=metric,
                    margin=rules.slice_loss,
                    smallest=rules.slice_smallest,
                    confidence=rules.confidence,
                    resamples=rules.resamples,
                    seed=rules.seed,
                )
            )
    return tuple(found)


def _compared(card: Card, rules: GateRules) -> Iterator[tuple[HeadCard, str]]:
    """The heads that are compared, and by which metric: all that have it, or the one that the rules name."""
    name, _, metric = rules.metric.rpartition(".")
    for head in card.heads:
        if name in ("", head.name) and (head.ordinal or metric not in ORDINAL_ONLY):
            yield head, metric


def _predictions(
    registry: Registry, version: Version, bundle: Bundle, dataset: Dataset | None
) -> Predictions:
    from training.predict import Predictions

    problem = "its test predictions were not kept"
    try:
        stored = registry.predictions(version)
        if stored is not None:
            return Predictions.load(stored)
    except (IntegrityError, RegistryError) as error:
        problem = error.message
    if dataset is None or dataset.test_digest != bundle.card.dataset.test_digest:
        raise RegistryError(
            f"version {version.version}: {problem}.", hint="Give the gate the data set that it was judged on."
        )
    return rescore(bundle, dataset)


def _licence(card: Card, rules: GateRules) -> list[str]:
    by = {
        "the weights": card.weights.forbids,
        "the data": card.dataset.forbids,
        "the model": card.forbids,
    }
    refusals = []
    for use in rules.allowed_use:
        who = [name for name, forbids in by.items() if use in forbids]
        who = [name for name in who if name != "the model"] or who
        if who:
            licences = ", ".join(filter(None, (card.licence, card.weights.licence)))
            refusals.append(f"The task needs {use} use, which {' and '.join(who)} forbid ({licences}).")
    return refusals


def _calibration(card: Card) -> list[str]:
    """Calibration error and coverage against the bands that perfect calibration would show."""
    heads = card.metrics.get("heads", {})
    refusals = []
    for head in card.heads:
        report = heads.get(head.name, {}).get("calibration", {})
        band, after = report.get("ece_band"), report.get("ece_after")
        if not report.get("calibrated") or band is None or after is None:
            refusals.append(f"{head.name}: its calibration was not measured on test data.")
            continue
        if after > band[1]:
            refusals.append(
                f"{head.name}: calibration error {after:.4f} is above {band[1]:.4f}, the upper end of the "
                "99 % band of a perfectly calibrated model."
            )
        coverage = report.get("coverage")
        if coverage is not None and not coverage["inside"]:
            refusals.append(
                f"{head.name}: the sets cover {coverage['conformal']:.1%}, outside the 99 % band "
                f"{coverage['band'][0]:.1%} to {coverage['band'][1]:.1%}."
            )
    return refusals
