from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.errors import ServingError
from serving.core.bundle import HeadCard
from serving.core.decisions import calibrated, decide

CLASSES = ("a", "b", "c", "d")

logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(len(CLASSES))),
    elements=st.floats(-1e4, 1e4, width=32),
)
cards = st.builds(
    HeadCard,
    name=st.just("h"),
    classes=st.just(CLASSES),
    temperature=st.floats(0.05, 20),
    bias=st.none() | st.tuples(*[st.floats(-3, 3)] * len(CLASSES)),
    qhat=st.floats(0, 1),
    uncertain_below=st.floats(0, 1),
)


@given(logits, cards)
def test_an_answer_is_consistent(values: np.ndarray, head: HeadCard) -> None:
    answer = decide(values, head)
    n = len(values)
    assert answer.probabilities.dtype == np.float32
    assert answer.probabilities.shape == answer.set.shape == (n, 4)
    assert answer.label.shape == answer.uncertain.shape == (n,)
    assert np.isfinite(answer.probabilities).all()
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert answer.set[np.arange(n), answer.label].all()
    np.testing.assert_allclose(answer.confidence, answer.probabilities[np.arange(n), answer.label])
    exact = calibrated(values, head.temperature, head.bias).max(axis=1)
    np.testing.assert_array_equal(
        answer.uncertain, (exact < head.uncertain_below) | (head.uncertain_below >= 1)
    )


@given(logits, st.floats(0.05, 20))
def test_temperature_alone_keeps_the_label(values: np.ndarray, temperature: float) -> None:
    plain = decide(values, HeadCard("h", CLASSES))
    warm = decide(values, HeadCard("h", CLASSES, temperature=temperature))
    rows = np.arange(len(values))
    # Logits that differ by less than a probability's rounding tie, and a tie may fall either way.
    np.testing.assert_allclose(values[rows, plain.label], values[rows, warm.label], rtol=0, atol=1e-14)


@given(logits, cards, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(values: np.ndarray, head: HeadCard, shift: float) -> None:
    one, other = decide(values.astype(np.float64), head), decide(values.astype(np.float64) + shift, head)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)


@given(logits, cards)
def test_a_larger_quantile_gives_a_larger_set(values: np.ndarray, head: HeadCard) -> None:
    wide = HeadCard("h", CLASSES, temperature=head.temperature, bias=head.bias, qhat=1.0)
    narrow = HeadCard("h", CLASSES, temperature=head.temperature, bias=head.bias, qhat=head.qhat)
    assert decide(values, wide).set.all()
    assert (decide(values, narrow).set <= decide(values, wide).set).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = np.zeros((3, 4), np.float32)
    values[1, 2] = bad
    with pytest.raises(ServingError, match="no answer"):
        decide(values, HeadCard("h", CLASSES))


@pytest.mark.parametrize("shape", [(4,), (1, 3), (1, 4, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ServingError, match=r"takes logits \[N, 4\]"):
        decide(np.zeros(shape), HeadCard("h", CLASSES))


def test_an_uncalibrated_head_is_modest() -> None:
    answer = decide(np.array([[9.0, 0, 0, 0]]), HeadCard("h", CLASSES))
    assert answer.set.all()
    assert not answer.uncertain.any()


def test_at_a_threshold_of_one_everything_is_uncertain() -> None:
    answer = decide(np.array([[1e4, 0, 0, 0]]), HeadCard("h", CLASSES, uncertain_below=1.0))
    assert answer.probabilities[0, 0] == 1.0
    assert answer.uncertain.all()


def test_the_stated_formula() -> None:
    head = HeadCard("h", ("a", "b"), temperature=2.0, bias=(0.5, -0.5), qhat=0.6)
    answer = decide(np.array([[1.0, 2.0]]), head)
    odds = np.exp((1.5 - 1.5) / 2)
    np.testing.assert_allclose(answer.probabilities, [[odds / (1 + odds), 1 / (1 + odds)]])
    assert answer.set.tolist() == [[True, True]]


def test_no_image_gives_no_answer() -> None:
    answer = decide(np.zeros((0, 4)), HeadCard("h", CLASSES))
    assert answer.probabilities.shape == (0, 4)
