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

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.dataset import SPLITS
from data.sources.review_export import Export, ReviewLabel, Settled, Withdrawn
from data.splits import TEST_SHARE, VAL_SHARE, join_groups

#: The id of an image that came from review, in datasets: this and the SHA-256 of the file that was sent.
PREFIX = "review/"
_OURS = re.compile(PREFIX + r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a person allows: ``correct`` labels that the base has, ``extend_test``; ``normal`` is the class
    that alone is learned from, where there is one."""

    correct: bool = False
    extend_test: bool = False
    normal: str | None = None

    def is_odd(self, labels: Mapping[str, str | None]) -> bool:
        """Whether an image with these labels is none to learn from, where one class alone is learned from."""
        return self.normal is not None and bool({*labels.values()} - {None, self.normal})

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
    """A row of the base: ``sha256`` of the stored bytes, ``original`` of those that once came.

    Of a row that labels came to in review, ``cases`` are the apps' cases, ``sent`` all files (SHA-256) that
    it was sent as, and ``tenants`` those whose readers labelled it, as ``dataset.json`` says.
    """

    id: str
    sha256: str
    original: str
    split: str
    group: str
    labels: dict[str, str | None]
    cases: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    tenants: frozenset[str] = frozenset()

    @property
    def from_review(self) -> bool:
        """Whether the image itself came from review, not from what the first base was made of."""
        return _OURS.fullmatch(self.id) is not None

    @property
    def names(self) -> set[str]:
        """Every SHA-256 that it is known by."""
        return {self.sha256, self.original, *self.sent} - {""}


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


#: What may become of a label, in the order that reports tell it.
OUTCOMES = {
    "added": "a new image with this label",
    "completed": "the base had the image, without a label for this head",
    "corrected": "the reader's label took the place of the base's",
    "changed": "the base's label came from review, where readers say another now",
    "withdrawn": "the base's label came from review, where it was taken back",
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
    def cases(self) -> list[str]:
        """The apps' cases that it is of."""
        return sorted({label.case_id for label in self.labels if label.case_id})

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


def is_erased(row: BaseRow, excluded: frozenset[str]) -> bool:
    """Whether a row's content was erased: by its stored bytes, those that came, or what its names say of them
    (datasets of older versions keep no ``original``)."""
    names = (row.group.removeprefix("image:"), row.id.removeprefix(PREFIX))
    return not excluded.isdisjoint((row.sha256, row.original, *names))


class _Groups:
    """Which groups belong together, which split of the base they are in, and where a new one goes.

    A patient whose photograph the base has under another name is the same group, so that no new image of that
    patient comes into another split. The base's names and the gateway's are one space: a clinic may use its
    own numbers in both. So are the photographs of a case.
    """

    def __init__(self, base: Sequence[BaseRow], images: Sequence[_Image], rules: Rules) -> None:
        pairs = [(row.group, key) for row in base for key in (*row.names, *_keys(row.cases))]
        pairs += [
            (name, key)
            for image in images
            for name in image.names
            for key in (image.content, *image.sent, *_keys(image.cases))
        ]
        roots = join_groups([name for name, _ in pairs], [content for _, content in pairs])
        self._root = {name: root for (name, _), root in zip(pairs, roots, strict=True)}
        self.rules = rules
        self._splits: dict[str, set[str]] = defaultdict(set)
        self._base: dict[tuple[str, str], str] = {}
        self._taken = {(row.group, row.split) for row in base}
        for row in base:
            root = self._root[row.group]
            self._splits[root].add(row.split)
            place = (root, row.split)
            self._base[place] = min(self._base.get(place, row.group), row.group)
        self._odd = {self._root[image.names[0]] for image in images if rules.is_odd(image.values)}

    def name(self, name: str, split: str) -> str:
        """What it is called in a split of the dataset: as in the base, where it is there."""
        root = self._root[name]
        if (known := self._base.get((root, split))) is not None:
            return known
        # What is not normal is in val although its group is in train: under a name of its own, since a
        # dataset's checks let no group be in two splits.
        taken = any((root, other) in self._taken for other in SPLITS if other != split)
        return f"{root}#{split}" if taken else root

    def split(self, image: _Image) -> str | None:
        """Where a new image goes; None where it is held back, since its group is in the frozen test.

        A new group's split comes from its own number, which no later data moves. Where the base itself
        spreads a group, test comes before val before train. What is not normal is never learned from,
        wherever its group is: the threshold is set on it.
        """
        root = self._root[image.names[0]]
        for split in ("test", "val", "train"):
            if split in self._splits.get(root, ()):
                if split == "test" and not self.rules.extend_test:
                    return None
                return "val" if split == "train" and self.rules.is_odd(image.values) else split
        number = int(hashlib.sha256(f"review:{root}".encode()).hexdigest(), 16) / 2**256
        if self.rules.extend_test and VAL_SHARE <= number < VAL_SHARE + TEST_SHARE:
            return "test"
        # A new group stays together: with what is odd in it.
        return "val" if number < VAL_SHARE or root in self._odd else "train"


def _relabel(plan: Plan, image: _Image, rows: Sequence[BaseRow], groups: _Groups, tenant: str) -> None:
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
        outcome = _outcome(said, was, rules, test=test, follows=follows)
        if outcome in ("completed", "corrected", "changed", "unlabelled"):
            plan.test_changes |= test
            _set(plan, rows, head, said.value)
        told[head] = _told(said, outcome, was)
    for row in rows:
        _settle(plan, row, groups)
    first = rows[0]
    split, _ = plan.moved.get(first.id, (first.split, ""))
    plan.cases.append(_case(image, first.id, split, told))


def _withdraw(plan: Plan, gone: Withdrawn, row: BaseRow, groups: _Groups, tenant: str) -> None:
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


def _settle(plan: Plan, row: BaseRow, groups: _Groups) -> None:
    """What follows from a row's changes: it goes, or is none to learn from any more."""
    if row.id not in plan.changes:
        return
    if not any(row.labels.values()):
        plan.dropped[row.id] = "no label is left"
    elif row.split == "train" and groups.rules.is_odd(row.labels):
        plan.moved[row.id] = "val", groups.name(row.group, "val")


def _outcome(said: Settled, was: str | None, rules: Rules, *, test: bool, follows: bool) -> str:
    """What becomes of a label of an image that the base has with the label ``was``.

    ``follows``: what the base says came from these readers, who say another now.
    """
    if said.torn:
        return "conflict"
    if said.value == was:
        return "cannot_grade" if was is None else "same"
    if test and not rules.extend_test:
        return "frozen"
    if was is None:
        return "completed"
    if not rules.correct and not follows:
        return "differs"
    if said.value is None:
        return "unlabelled"
    return "changed" if follows else "corrected"


def _add(plan: Plan, image: _Image, groups: _Groups) -> None:
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
    image: _Image, row: str | None, split: str | None, labels: Mapping[str, Mapping[str, Any]]
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


def _keys(cases: Iterable[str]) -> list[str]:
    """What photographs of a case have in common, beside contents."""
    return [f"case:{case}" for case in cases]
