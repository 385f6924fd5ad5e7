"""Groups: the photographs of a patient, or of a case, which no two splits may share."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from data.dataset import SPLITS
from data.sources.review_images import Image
from data.sources.review_rows import BaseRow
from data.sources.review_rules import Rules
from data.splits import TEST_SHARE, VAL_SHARE, join_groups


class Groups:
    """Which groups belong together, which split of the base they are in, and where a new one goes.

    A patient whose photograph the base has under another name is the same group, so that no new image of that
    patient comes into another split. The base's names and the gateway's are one space: a clinic may use its
    own numbers in both. So are the photographs of a case.
    """

    def __init__(self, base: Sequence[BaseRow], images: Sequence[Image], rules: Rules) -> None:
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

    def split(self, image: Image) -> str | None:
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


def _keys(cases: Iterable[str]) -> list[str]:
    """What photographs of a case have in common, beside contents."""
    return [f"case:{case}" for case in cases]
