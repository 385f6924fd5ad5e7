"""Agreement between readers, against scikit-learn's figures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from serving.core.agreement import cohen_kappa, pairs

CLASSES = ["none", "mild", "severe"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("quadratic", [False, True])
def test_kappa_is_cohens(seed: int, quadratic: bool) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 3, 60)
    second = np.where(rng.random(60) < 0.6, first, rng.integers(0, 3, 60))
    ours = cohen_kappa(
        [CLASSES[i] for i in first], [CLASSES[i] for i in second], CLASSES, quadratic=quadratic
    )
    theirs = cohen_kappa_score(first, second, labels=[0, 1, 2], weights="quadratic" if quadratic else None)
    assert ours == pytest.approx(theirs)


def test_where_chance_cannot_disagree_there_is_no_kappa() -> None:
    assert cohen_kappa(["mild"] * 4, ["mild"] * 4, CLASSES) is None
    assert cohen_kappa([], [], CLASSES) is None
    with pytest.raises(ValueError, match="one label an image"):
        cohen_kappa(["mild"], [], CLASSES)


def test_each_two_readers_with_an_image_in_common_are_a_pair() -> None:
    said = [
        ("a", "anna", "mild"),
        ("a", "ben", "mild"),
        ("b", "anna", "mild"),
        ("b", "ben", "none"),
        ("c", "anna", None),  # could not grade it
        ("c", "ben", "none"),
        ("d", "carl", "none"),
        ("b", "ben", "mild"),  # changed his mind
    ]
    (pair,) = pairs(said, CLASSES, ordinal=True)
    assert (pair.readers, pair.images, pair.agreed) == (("anna", "ben"), 2, 2)
    assert pair.kappa is None
    assert pair.to_dict()["quadratic_kappa"] is None
