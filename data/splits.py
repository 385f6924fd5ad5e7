"""Which image is for training, which for validation, which for the test.

Three promises: a split that the source gives is kept; no image and no group (patient, lesion) is in two
splits of our cutting; the same content is always cut the same way, whatever the order of its rows.

Rules:

- ``stratified:SEED`` (the default, seed 0) fills in what the source does not give: 20 % test, 15 %
  validation, with the classes' shares as even as whole groups allow.
- ``one-class:SEED`` is the same for learning from one class alone, the head's first: every other class is for
  validation and test, and none of it is cut into train.
- ``fold:K/N`` cuts everything anew, a given split too: the test part is the groups whose SHA-256 modulo N is
  K. Folds of one N are disjoint and together are everything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.dataset import LABEL, SPLITS, Head
from data.errors import DatasetError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

TEST_SHARE = 0.20
VAL_SHARE = 0.15
DEFAULT_RULE = "stratified:0"


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule: ``kind`` is ``stratified``, ``one-class`` (both with ``seed``) or ``fold`` (``fold`` of
    ``folds``)."""

    kind: str
    seed: int = 0
    fold: int = 0
    folds: int = 0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``stratified``, ``one-class``, either with ``:SEED``, or ``fold:K/N``."""
        if match := re.fullmatch(r"(stratified|one-class)(?::(\d+))?", text):
            return cls(match[1], seed=int(match[2] or 0))
        if match := re.fullmatch(r"fold:(\d+)/(\d+)", text):
            fold, folds = int(match[1]), int(match[2])
            if folds >= 2 and fold < folds:
                return cls("fold", fold=fold, folds=folds)
        raise UsageError(
            f"{text!r} is no split rule.",
            hint="Use stratified:SEED, one-class:SEED, or fold:K/N with N of at least 2 and K from 0 to N-1.",
        )

    def __str__(self) -> str:
        return f"fold:{self.fold}/{self.folds}" if self.kind == "fold" else f"{self.kind}:{self.seed}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """``split`` and ``group`` for each row, in the frame's order, and in words how they came to be."""

    split: list[str]
    group: list[str]
    rule: str


def assign(frame: pd.DataFrame, heads: Sequence[Head], *, rule: str | None = None) -> Assignment:
    """Give every row a split.

    ``frame`` has ``sha256``, ``group``, ``label.<head>`` and, where the source gives splits, ``split``
    (all rows or none). Groups that share an image become one group, named by the smallest of their names.
    """
    if not len(frame):
        raise DatasetError("There is nothing to split: no image was read.")
    parsed = Rule.parse(rule or DEFAULT_RULE)
    group = join_groups(list(frame["group"]), list(frame["sha256"]))
    given = _given(frame)
    counts = _class_counts(frame, heads)

    if parsed.kind == "fold":
        names = set(group)
        test = {name for name in names if _fold(name, parsed.folds) == parsed.fold}
        rest = names - test
        if not test or not rest:
            raise DatasetError(
                f"Fold {parsed.fold} of {parsed.folds} leaves the {'training' if test else 'test'} part "
                f"empty: there are only {len(names)} groups.",
                hint="Use fewer folds or more data.",
            )
        where = dict.fromkeys(test, "test")
        where |= _cut(rest, group, counts, {"val": VAL_SHARE, "train": 1 - VAL_SHARE - TEST_SHARE}, seed=0)
        note = "; the source's own splits set aside" if given else ""
        return Assignment([where[name] for name in group], group, f"{parsed}; val stratified:0{note}")

    others = _others(frame, heads, group) if parsed.kind == "one-class" else set()

    def cut(names: set[str], shares: Mapping[str, float]) -> dict[str, str]:
        where = _cut(names - others, group, counts, shares, seed=parsed.seed)
        elsewhere = {split: share for split, share in shares.items() if split != "train"}
        return where | _cut(names & others, group, counts, elsewhere, seed=parsed.seed)

    if given is None:
        shares = {"train": 1 - VAL_SHARE - TEST_SHARE, "val": VAL_SHARE, "test": TEST_SHARE}
        where = cut(set(group), shares)
        return Assignment([where[name] for name in group], group, str(parsed))

    have = [split for split in SPLITS if split in given]
    lacking = [split for split in ("test", "val") if split not in given]
    if not lacking:
        return Assignment(given, group, "given")
    # Cut what is missing from train. A group that also has rows in another given split stays in train as a
    # whole, so that cutting never spreads it further; the check reports that the source itself spreads it.
    fixed = {name for name, split in zip(group, given, strict=True) if split != "train"}
    free = {name for name, split in zip(group, given, strict=True) if split == "train"} - fixed
    share = {"test": TEST_SHARE, "val": VAL_SHARE}
    shares = {split: share[split] for split in lacking}
    shares["train"] = 1 - sum(shares.values())
    where = cut(free, shares)
    split = [where.get(name, old) if old == "train" else old for name, old in zip(group, given, strict=True)]
    return Assignment(
        split, group, f"given {'/'.join(have)}; {' and '.join(lacking)} cut from train by group, {parsed}"
    )


def join_groups(groups: Sequence[str], images: Sequence[str]) -> list[str]:
    """Each row's group, where groups that share an image are one (union–find), named by the smallest name."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (up := parent.setdefault(name, name)) != name:
            parent[name] = parent.setdefault(up, up)
            name = up
        return name

    first: dict[str, str] = {}
    for group, image in zip(groups, images, strict=True):
        a, b = root(group), root(first.setdefault(image, group))
        if a != b:
            parent[max(a, b)] = min(a, b)
    return [root(group) for group in groups]


def _others(frame: pd.DataFrame, heads: Sequence[Head], group: Sequence[str]) -> set[str]:
    """The groups that hold an image of another class than the only head's first."""
    if len(heads) != 1:
        raise DatasetError(
            f"The rule one-class needs one head; there are {len(heads)}.", hint="Use stratified:SEED."
        )
    normal, labels = heads[0].classes[0], frame[LABEL + heads[0].name]
    return {name for name, label in zip(group, labels, strict=True) if label != normal}


def _given(frame: pd.DataFrame) -> list[str] | None:
    if "split" not in frame.columns:
        return None
    values = [value if isinstance(value, str) else None for value in frame["split"]]
    named = [value for value in values if value is not None]
    if not named:
        return None
    if len(named) != len(values):
        raise DatasetError(
            f"The source gives a split for {len(named)} of {len(values)} images.",
            hint="Give one for every image, or for none.",
        )
    if strange := sorted(set(named) - set(SPLITS)):
        raise DatasetError(f"Unknown split {', '.join(strange)}; splits are {', '.join(SPLITS)}.")
    if "train" not in named:
        if set(named) == {"test"}:
            return named
        raise DatasetError("The source gives splits but none of its images is for training.")
    return named


def _fold(name: str, folds: int) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % folds


def _class_counts(frame: pd.DataFrame, heads: Sequence[Head]) -> NDArray[np.float64]:
    """One row an image: a 1 for its class in each head, and a last 1 that counts the image itself."""
    import numpy as np

    width = sum(len(head.classes) for head in heads) + 1
    counts = np.zeros((len(frame), width))
    counts[:, -1] = 1
    offset = 0
    for head in heads:
        index = {name: offset + place for place, name in enumerate(head.classes)}
        for row, value in enumerate(frame[LABEL + head.name]):
            if value in index:
                counts[row, index[value]] = 1
        offset += len(head.classes)
    return counts


def _cut(
    names: set[str],
    group: Sequence[str],
    counts: NDArray[np.float64],
    shares: Mapping[str, float],
    *,
    seed: int,
) -> dict[str, str]:
    """Deal whole groups out to splits so that every class comes near each split's share.

    Large groups first, then in the order of a keyed hash; each goes where its classes are most wanted, a want
    being the part of the split's share that is still open. Rarer classes weigh more.
    """
    import numpy as np

    order = sorted(names)
    place = {name: index for index, name in enumerate(order)}
    table = np.zeros((len(order), counts.shape[1]))
    for row, name in enumerate(group):
        if name in place:
            table[place[name]] += counts[row]
    total = table.sum(axis=0)
    weight = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    splits = sorted(shares, key=lambda split: -shares[split])
    share = np.array([shares[split] for split in splits])
    share = share / share.sum()
    target = share[:, None] * total[None, :]
    have = np.zeros_like(target)
    scale = np.divide(1.0, target, out=np.zeros_like(target), where=target > 0)

    def key(name: str) -> tuple[float, str]:
        return -table[place[name], -1], hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    where: dict[str, str] = {}
    for name in sorted(order, key=key):
        row = table[place[name]]
        want = ((target - have) * scale) @ (row * weight)
        chosen = int(np.argmax(want))
        have[chosen] += row
        where[name] = splits[chosen]
    return where
