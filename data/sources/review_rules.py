"""What a person allows of a review's labels, and what so becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.sources.review_export import Settled
from data.splits import TEST_SHARE, VAL_SHARE

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


def outcome_of(said: Settled, was: str | None, rules: Rules, *, test: bool, follows: bool) -> str:
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
