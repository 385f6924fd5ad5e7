"""What labels do to a dataset: which image comes into which split, and what is left as it is.

Pure: rows and labels in, a plan out. The rules, which ``docs/loop.md`` explains:

- an erased image that came from review leaves the base, from every split;
- a group (patient, case) stays in the split that it is in; a new one goes to train, or by a fixed share to
  val;
- the test part is frozen: images of a group in it are held back, and its labels stay, unless a person
  extends it. Then held-back images go there, and a fixed share of the new groups;
- an image that the base has keeps its label. A reader's other label is listed, and taken by ``correct``;
- a label that came from review follows its tenant's readers: what they say now, or take back.

Of learning from one class (PatchCore) only OK images are in train. What is not OK is for the threshold, in
val, and where a person extends the test, for the test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.dataset import SPLITS
from data.sources.review_export import Export, Settled, Withdrawn
from data.sources.review_groups import Groups
from data.sources.review_images import Image, images_of
from data.sources.review_rows import BaseRow, NewImage, is_erased
from data.sources.review_rules import OUTCOMES, Rules, outcome_of


@dataclass(slots=True)
class Plan:
    """What is to be done.

    ``changes``: labels to set in rows of the base, by id. ``moved``: rows that go to another split, by id,
    with it and their group there. ``dropped``: rows that go, by id, with why. ``elsewhere``: rows with an
    erased content that didn't come from review, which stay. ``cases``: one entry an image of the export, as
    ``dataset.json`` names it.
    """

    new: list[NewImage] = field(default_factory=list)
    changes: dict[str, dict[str, str | None]] = field(default_factory=dict)
    moved: dict[str, tuple[str, str]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)
    erased: Counter[str] = field(default_factory=Counter)
    test_changes: bool = False

    def counts(self) -> dict[str, Any]:
        """How many labels had which outcome, new images by split, and erased rows by split."""
        outcomes = Counter(head["outcome"] for case in self.cases for head in case["labels"].values())
        splits = Counter(image.split for image in self.new)
        return {
            "images": len(self.cases),
            "outcomes": {name: outcomes[name] for name in OUTCOMES if outcomes[name]},
            "new": {name: splits[name] for name in SPLITS},
            "erased": {name: self.erased[name] for name in SPLITS},
        }


def make_plan(base: Sequence[BaseRow], export: Export, contents: Mapping[str, str], rules: Rules) -> Plan:
    """What becomes of an export's labels.

    ``contents`` gives for the SHA-256 of each file sent that of its bytes as a dataset stores them (without
    metadata): by these an image is known again.
    """
    plan = Plan()
    kept = _without_erased(base, export.excluded, plan)
    images = images_of(export, contents)
    groups = Groups(kept, images, rules)
    known: dict[str, list[BaseRow]] = defaultdict(list)
    for row in kept:
        for name in row.names:
            known[name].append(row)
    said: set[tuple[str, str]] = set()
    for image in images:
        rows = _unique(row for name in (image.content, *image.sent) for row in known.get(name, ()))
        if rows:
            _relabel(plan, image, rows, groups, export.tenant)
            said |= {(row.id, head) for row in rows for head in image.heads}
        else:
            _add(plan, image, groups)
    for gone in export.withdrawn:
        for row in known.get(gone.sha256, ()):
            if (row.id, gone.head) not in said:
                _withdraw(plan, gone, row, groups, export.tenant)
    return plan


def _without_erased(base: Sequence[BaseRow], excluded: frozenset[str], plan: Plan) -> list[BaseRow]:
    kept = []
    for row in base:
        erased = is_erased(row, excluded)
        if erased and not row.from_review:
            plan.elsewhere.append(row.id)
        if erased and row.from_review:
            plan.dropped[row.id] = "erased"
            plan.erased[row.split] += 1
            plan.test_changes |= row.split == "test"
        else:
            kept.append(row)
    return kept


def _relabel(plan: Plan, image: Image, rows: Sequence[BaseRow], groups: Groups, tenant: str) -> None:
    """An image that the base has."""
    rules = groups.rules
    told: dict[str, dict[str, Any]] = {}
    test = any(row.split == "test" for row in rows)
    follows = all(_is_theirs(row, tenant) for row in rows)
    for head, said in image.heads.items():
        has = [row.labels.get(head) for row in rows]
        others = [label for label in has if label != said.value]
        # Of rows with one content that say different things, another label is what is told.
        was = next((label for label in others if label is not None), others[0] if others else said.value)
        outcome = outcome_of(said, was, rules, test=test, follows=follows)
        if outcome in ("completed", "corrected", "changed", "unlabelled"):
            plan.test_changes |= test
            _set(plan, rows, head, said.value)
        told[head] = _told(said, outcome, was)
    for row in rows:
        _settle(plan, row, groups)
    first = rows[0]
    split, _ = plan.moved.get(first.id, (first.split, ""))
    plan.cases.append(_case(image, first.id, split, told))


def _withdraw(plan: Plan, gone: Withdrawn, row: BaseRow, groups: Groups, tenant: str) -> None:
    """A label that was taken back, of a row that has it from there."""
    was = row.labels.get(gone.head)
    if was is None or not _is_theirs(row, tenant):
        return
    frozen = row.split == "test" and not groups.rules.extend_test
    if not frozen:
        plan.test_changes |= row.split == "test"
        _set(plan, [row], gone.head, None)
        _settle(plan, row, groups)
    outcome = "frozen" if frozen else "withdrawn"
    told: dict[str, Any] = {"value": None, "outcome": outcome, "was": was, "readers": {}, "at": gone.at}
    plan.cases.append(
        {
            "cases": list(row.cases),
            "images": [],
            "sha256": [gone.sha256],
            "row": row.id,
            "split": row.split,
            "labels": {gone.head: told},
        }
    )


def _is_theirs(row: BaseRow, tenant: str) -> bool:
    """Whether a row and its labels came from this tenant's readers, and from nobody else."""
    return row.from_review and row.tenants == {tenant}


def _set(plan: Plan, rows: Sequence[BaseRow], head: str, value: str | None) -> None:
    """Give rows of the base a label, or take theirs away."""
    for row in rows:
        plan.changes.setdefault(row.id, {})[head] = value
        row.labels[head] = value


def _settle(plan: Plan, row: BaseRow, groups: Groups) -> None:
    """What follows from a row's changes: it goes, or is none to learn from any more."""
    if row.id not in plan.changes:
        return
    if not any(row.labels.values()):
        plan.dropped[row.id] = "no label is left"
    elif row.split == "train" and groups.rules.is_odd(row.labels):
        plan.moved[row.id] = "val", groups.name(row.group, "val")


def _add(plan: Plan, image: Image, groups: Groups) -> None:
    """An image that the base doesn't have."""
    split = groups.split(image)
    graded = any(image.values.values())
    told = {}
    for head, said in image.heads.items():
        outcome = "added" if split is not None else "held_back"
        if said.value is None:
            outcome = "conflict" if said.torn else "cannot_grade"
        told[head] = _told(said, outcome, None)
    if not graded or split is None:
        plan.cases.append(_case(image, None, None, told))
        return
    new = NewImage(image.sent[0], image.file, split, groups.name(image.names[0], split), image.values)
    plan.new.append(new)
    plan.test_changes |= split == "test"
    plan.cases.append(_case(image, new.id, split, told))


def _told(said: Settled, outcome: str, was: str | None) -> dict[str, Any]:
    return {
        "value": said.value,
        **({"cannot_grade": said.cannot_grade} if said.cannot_grade is not None else {}),
        "outcome": outcome,
        **({"was": was} if was is not None and was != said.value else {}),
        "readers": dict(sorted(said.readers.items())),
        **({"decided_by": said.decided_by} if said.decided_by else {}),
        "at": said.at,
    }


def _case(
    image: Image, row: str | None, split: str | None, labels: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "cases": image.cases,
        "images": sorted({label.image_id for label in image.labels if label.image_id}),
        "sha256": list(image.sent),
        "row": row,
        "split": split,
        "labels": dict(labels),
    }


def _unique(rows: Iterable[BaseRow]) -> list[BaseRow]:
    return list({row.id: row for row in rows}.values())
