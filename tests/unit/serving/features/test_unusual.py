"""How unusual an image is, against the plain definition and against what the export stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.core.bundle import REFERENCE, Bundle, write_bundle
from serving.features.unusual import NO_EMBEDDING, Familiar, Sight, sight_of
from tests.bundles import tiny_bundle, with_reference
from training.export.reference import neighbour_distance

RNG = np.random.default_rng(5)
SAMPLE = np.abs(RNG.normal(1, 1, (60, 16))).astype(np.float16)
USUAL = neighbour_distance(SAMPLE)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "b")


@pytest.fixture
def sight(bundle: Bundle, tmp_path: Path) -> Sight:
    full = with_reference(bundle, tmp_path / "full", embedding_sample=SAMPLE, neighbour_distance=USUAL)
    return sight_of(full, 16)


def plainly(one: np.ndarray) -> float:
    """The definition, one image at a time."""
    cosine = [
        float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))
        for other in SAMPLE.astype(np.float64)
    ]
    fifth = sorted(1 - value for value in cosine)[4]
    return float(np.mean([usual < fifth for usual in USUAL]))


def test_it_is_the_share_of_training_images_that_lie_nearer(sight: Sight) -> None:
    assert sight.unavailable is None
    asked = np.abs(RNG.normal(1, 1, (20, 16))).astype(np.float32)
    found = sight.embedded(asked).unusual
    assert found.dtype == np.float32
    wanted = [plainly(one.astype(np.float64)) for one in asked]
    # Two of float32's distances may stand the other way round.
    assert found == pytest.approx(wanted, abs=1.5 / len(USUAL))
    assert 0 < found.mean() < 1


def test_it_is_held_against_images_that_were_not_learned(bundle: Bundle, tmp_path: Path) -> None:
    new = np.abs(RNG.normal(1, 1, (200, 16))).astype(np.float32)
    held_out, asked = new[:100], new[100:]
    old = with_reference(bundle, tmp_path / "old", embedding_sample=SAMPLE, neighbour_distance=USUAL)
    distances = sight_of(old, 16).familiar.distance(held_out)  # type: ignore[union-attr]
    honest = with_reference(
        bundle, tmp_path / "new", embedding_sample=SAMPLE, neighbour_distance=USUAL / 2,
        **{"drift.distance": np.append(distances, np.float32(np.nan))},
    )  # fmt: skip
    found = sight_of(honest, 16).familiar
    assert found is not None
    assert np.array_equal(found.usual, np.sort(distances))
    assert 0.35 < found.unusual(asked).mean() < 0.65
    # Those that nothing was told of: as before there were any.
    for nothing in (np.full(3, np.nan, np.float32), np.array(["a"])):
        bare = with_reference(
            bundle, tmp_path / f"bare-{nothing.dtype}", embedding_sample=SAMPLE, neighbour_distance=USUAL,
            **{"drift.distance": nothing},
        )  # fmt: skip
        kept = sight_of(bare, 16).familiar
        assert kept is not None
        assert np.array_equal(kept.usual, np.sort(USUAL.astype(np.float32)))


def test_what_was_learned_is_usual_and_its_opposite_is_not(sight: Sight) -> None:
    learned = sight.embedded(SAMPLE.astype(np.float32)).unusual
    # Each is among its own five nearest.
    assert np.mean(learned) < 0.5
    assert (sight.embedded(-SAMPLE.astype(np.float32)).unusual == 1).all()


def test_the_length_of_an_embedding_does_not_matter(sight: Sight) -> None:
    one = SAMPLE[:3].astype(np.float32) + 0.3
    # By a power of two, so that nothing is rounded.
    assert np.array_equal(sight.embedded(one).unusual, sight.embedded(one * 1024).unusual)


def test_one_by_one_is_as_together(sight: Sight) -> None:
    asked = np.abs(RNG.normal(1, 1, (9, 16))).astype(np.float32)
    together = sight.embedded(asked).unusual
    alone = np.concatenate([sight.embedded(one[None]).unusual for one in asked])
    assert together == pytest.approx(alone, abs=1.5 / len(USUAL))


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(width=32)))
@settings(max_examples=100, deadline=None)
def test_whatever_is_asked_is_a_share_or_nothing(asked: np.ndarray) -> None:
    sample = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    with np.errstate(over="ignore"):
        found = Familiar(sample, np.array([0.1, 0.2, 0.9], np.float32)).unusual(asked)
    finite = np.isfinite(asked).all(axis=1)
    assert np.isnan(found[~finite]).all()
    assert ((found[finite] >= 0) & (found[finite] <= 1)).all()


def test_a_sample_of_fewer_than_five_counts_the_furthest_of_them() -> None:
    sample = np.eye(3, dtype=np.float32)
    familiar = Familiar(sample, np.array([0.5], np.float32))
    assert familiar.distance(np.array([[1, 0, 0]], np.float32)) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ({"embedding_sample": SAMPLE}, "no embeddings"),
        ({"neighbour_distance": USUAL}, "no embeddings"),
        ({"embedding_sample": SAMPLE[:, :8], "neighbour_distance": USUAL}, "embeddings of 8 numbers"),
        ({"embedding_sample": SAMPLE[:0], "neighbour_distance": USUAL}, "no embeddings"),
        ({"embedding_sample": SAMPLE * np.nan, "neighbour_distance": USUAL}, "no embeddings"),
        ({"embedding_sample": SAMPLE.astype(int), "neighbour_distance": USUAL}, "no embeddings"),
    ],
)
def test_a_reference_that_tells_nothing_is_said_and_nothing_is_made_up(
    bundle: Bundle, tmp_path: Path, kept: dict[str, Any], why: str
) -> None:
    sight = sight_of(with_reference(bundle, tmp_path / "other", **kept), 16)
    assert why in str(sight.unavailable)
    found = sight.embedded(SAMPLE[:2].astype(np.float32))
    assert np.isnan(found.unusual).all()
    assert found.embedding.shape == (2, 16)


def test_a_bundle_without_a_reference_or_an_embedding_says_so(bundle: Bundle, tmp_path: Path) -> None:
    files: dict[str, Path | bytes] = {n: bundle.path(n) for n in bundle.card.files if n != REFERENCE}
    assert "has no reference.npz" in str(
        sight_of(write_bundle(tmp_path / "bare", bundle.card, files), 16).unavailable
    )
    assert sight_of(bundle, None).unavailable == NO_EMBEDDING
    files[REFERENCE] = b"not an archive"
    broken = write_bundle(tmp_path / "broken", bundle.card, files)
    assert "can't be read" in str(sight_of(broken, 16).unavailable)
