"""What labels do to a dataset: which image comes into which split, and what is left as it is.

Pure: rows and labels in, a plan out. The rules, which ``docs/loop.md`` explains:

- an erased image leaves the base, from every split;
- a group (patient) stays in the split that it is in; a new one goes to train, or by a fixed share to val;
- the test part is frozen: images of a group in it are held back, and its labels stay, unless a person
  extends it. Then held-back images go there, and a fixed share of the new groups;
- an image that the base has keeps its label. A reader's other label is listed, and taken by ``correct``.

Of learning from one class (PatchCore) only OK images go to train. What is not OK is for the threshold, in
val, and where a person extends the test, for the test.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.dataset import SPLITS
from data.sources.review_export import Export, ReviewLabel, Settled
from data.splits import TEST_SHARE, VAL_SHARE, join_groups

#: The id of an image that came from review, in datasets: this and the SHA-256 of the file that was sent.
PREFIX = "review/"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a person allows: ``correct`` labels that the base has, ``extend_test``; ``normal`` is the class
    that alone is learned from, where there is one."""

    correct: bool = False
    extend_test: bool = False
    normal: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For ``dataset.json``."""
        return {
            "correct": self.correct,
            "extend_test": self.extend_test,
            "val_share": VAL_SHARE,
            "test_share": TEST_SHARE if self.extend_test else 0.0,
        }


@dataclass(slots=True)
class BaseRow:
    """A row of the base: ``sha256`` of the stored bytes, ``original`` of those that once came."""

    id: str
    sha256: str
    original: str
    split: str
    group: str
    labels: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image that comes into the dataset; ``sha256`` is of the file that was sent."""

    sha256: str
    file: str
    split: str
    group: str
    labels: Mapping[str, str | None]

    @property
    def id(self) -> str:
        """Its id in the dataset."""
        return PREFIX + self.sha256


@dataclass(slots=True)
class Plan:
    """``changes``: labels to set in rows of the base, by id. ``dropped``: rows that go, by id, with why.
    ``cases``: one entry an image of the export, as ``dataset.json`` names it."""

    new: list[NewImage] = field(default_factory=list)
    changes: dict[str, dict[str, str | None]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
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


#: What may become of a label, in the order that reports tell it.
OUTCOMES = {
    "added": "a new image with this label",
    "completed": "the base had the image, without a label for this head",
    "corrected": "the reader's label took the place of the base's",
    "unlabelled": "the base's label was taken away: a reader can't grade the image",
    "same": "the base has this label already",
    "differs": "the base has another label, which stays (--correct)",
    "frozen": "it would change the test part (--extend-test)",
    "held_back": "its group is in the test part (--extend-test)",
    "cannot_grade": "no reader could grade it",
    "conflict": "readers disagree and nobody decided (--leave-conflicts)",
}


def make_plan(base: Sequence[BaseRow], export: Export, contents: Mapping[str, str], rules: Rules) -> Plan:
    """What becomes of an export's labels.

    ``contents`` gives for the SHA-256 of each file sent that of its bytes as a dataset stores them (without
    metadata): by these an image is known again.
    """
    plan = Plan()
    kept = _without_erased(base, export.excluded, plan)
    images = _images(export, contents)
    groups = _Groups(kept, images, rules)
    known: dict[str, list[BaseRow]] = defaultdict(list)
    for row in kept:
        for name in {row.sha256, row.original} - {""}:
            known[name].append(row)
    for image in images:
        rows = _unique(row for name in (image.content, *image.sent) for row in known.get(name, ()))
        if rows:
            _relabel(plan, image, rows, rules)
        else:
            _add(plan, image, groups)
    return plan


@dataclass(frozen=True, slots=True)
class _Image:
    """A content with all that was said of it, under whatever files it was sent."""

    content: str
    sent: tuple[str, ...]
    file: str
    names: tuple[str, ...]
    heads: Mapping[str, Settled]
    labels: tuple[ReviewLabel, ...]

    @property
    def values(self) -> dict[str, str | None]:
        """The class for each head, None where there is none."""
        return {head: said.value for head, said in self.heads.items()}


def _images(export: Export, contents: Mapping[str, str]) -> list[_Image]:
    """One entry a content: two files that differ in metadata alone are one image."""
    labels: dict[str, list[ReviewLabel]] = defaultdict(list)
    for label in export.labels:
        labels[contents[label.sha256]].append(label)
    found = []
    for content, heads in export.settled(contents).items():
        every = tuple(labels[content])
        sent = tuple(sorted({label.sha256 for label in every}))
        named = tuple(sorted({label.group for label in every if label.group}))
        file = next(label.file for label in every if label.sha256 == sent[0])
        found.append(_Image(content, sent, file, named or (f"image:{sent[0]}",), heads, every))
    return found


def _without_erased(base: Sequence[BaseRow], excluded: frozenset[str], plan: Plan) -> list[BaseRow]:
    kept = []
    for row in base:
        if is_erased(row, excluded):
            plan.dropped[row.id] = "erased"
            plan.erased[row.split] += 1
            plan.test_changes |= row.split == "test"
        else:
            kept.append(row)
    return kept


def is_erased(row: BaseRow, excluded: frozenset[str]) -> bool:
    """Whether a row's content was erased: by its stored bytes, those that came, or what its names say of them
    (datasets of older versions keep no ``original``)."""
    names = (row.group.removeprefix("image:"), row.id.removeprefix(PREFIX))
    return not excluded.isdisjoint((row.sha256, row.original, *names))


class _Groups:
    """Which groups belong together, which split of the base they are in, and where a new one goes.

    A patient whose photograph the base has under another name is the same group, so that no new image of that
    patient comes into another split. The base's names and the gateway's are one space: a clinic may use its
    own numbers in both.
    """

    def __init__(self, base: Sequence[BaseRow], images: Sequence[_Image], rules: Rules) -> None:
        pairs = [(row.group, name) for row in base for name in (row.sha256, row.original) if name]
        pairs += [
            (name, key) for image in images for name in image.names for key in (image.content, *image.sent)
        ]
        roots = join_groups([name for name, _ in pairs], [content for _, content in pairs])
        self._root = {name: root for (name, _), root in zip(pairs, roots, strict=True)}
        self._rules = rules
        self._splits: dict[str, set[str]] = defaultdict(set)
        self._base: dict[tuple[str, str], str] = {}
        for row in base:
            root = self._root[row.group]
            self._splits[root].add(row.split)
            place = (root, row.split)
            self._base[place] = min(self._base.get(place, row.group), row.group)
        odd = [image for image in images if {*image.values.values()} - {None, rules.normal}]
        self._odd = {self._root[image.names[0]] for image in odd} if rules.normal is not None else set()

    def name(self, name: str, split: str) -> str:
        """What it is called in a split of the dataset: as in the base, where it is there."""
        root = self._root[name]
        return self._base.get((root, split), root)

    def split(self, name: str) -> str | None:
        """Where its new images go; None where they are held back, since its others are in the frozen test.

        A new group's split comes from its own number, which no later data moves. Where the base itself
        spreads a group, test comes before val before train.
        """
        root = self._root[name]
        for split in ("test", "val", "train"):
            if split in self._splits.get(root, ()):
                return None if split == "test" and not self._rules.extend_test else split
        number = int(hashlib.sha256(f"review:{root}".encode()).hexdigest(), 16) / 2**256
        if self._rules.extend_test and VAL_SHARE <= number < VAL_SHARE + TEST_SHARE:
            return "test"
        # What is not normal is never learned from; the threshold is set on it.
        return "val" if number < VAL_SHARE or root in self._odd else "train"


def _relabel(plan: Plan, image: _Image, rows: Sequence[BaseRow], rules: Rules) -> None:
    """An image that the base has."""
    told: dict[str, dict[str, Any]] = {}
    test = any(row.split == "test" for row in rows)
    for head, said in image.heads.items():
        has = [row.labels.get(head) for row in rows]
        was = next((label for label in has if label != said.value), said.value)
        outcome = _outcome(said, was, rules, test=test)
        if outcome in ("completed", "corrected", "unlabelled"):
            plan.test_changes |= test
            for row in rows:
                plan.changes.setdefault(row.id, {})[head] = said.value
                row.labels[head] = said.value
        told[head] = _told(said, outcome, was)
    for row in rows:
        if row.id in plan.changes and not any(row.labels.values()):
            plan.dropped[row.id] = "no label is left"
    plan.cases.append(_case(image, rows[0].id, rows[0].split, told))


def _outcome(said: Settled, was: str | None, rules: Rules, *, test: bool) -> str:
    """What becomes of a label of an image that the base has with the label ``was``."""
    if said.torn:
        return "conflict"
    if said.value == was:
        return "cannot_grade" if was is None else "same"
    if test and not rules.extend_test:
        return "frozen"
    if was is None:
        return "completed"
    if not rules.correct:
        return "differs"
    return "unlabelled" if said.value is None else "corrected"


def _add(plan: Plan, image: _Image, groups: _Groups) -> None:
    """An image that the base doesn't have."""
    split = groups.split(image.names[0])
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
    image: _Image, row: str | None, split: str | None, labels: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "cases": sorted({label.case_id for label in image.labels if label.case_id}),
        "images": sorted({label.image_id for label in image.labels if label.image_id}),
        "sha256": list(image.sent),
        "row": row,
        "split": split,
        "labels": dict(labels),
    }


def _unique(rows: Iterable[BaseRow]) -> list[BaseRow]:
    return list({row.id: row for row in rows}.values())
