from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data.errors import IntegrityError, RequestError
from data.paths import Home
from serving.core.bundle import Card
from tests.anomaly_bundles import tiny_anomaly_bundle
from tests.anomaly_sets import Made
from training.patchcore.build import NG, OK
from training.patchcore.scoring import STEEPNESS, Scored, open_scorer, predictions
from training.predict import Predictions
from training.registry.compare import Answers, answers, measured


def some(scores: list[float], label: list[int]) -> Scored:
    n = len(scores)
    return Scored(
        np.array([f"i{k}" for k in range(n)]),
        np.array(label, np.int64),
        np.array(scores, np.float32),
        np.zeros((n, 2, 2), np.float32),
        np.zeros((n, 3), np.float32),
    )


def read(stored: Predictions, card: Card) -> Answers:
    return answers(stored, card, "status")


def test_the_stored_answers_rank_as_the_scores_do_and_decide_at_the_threshold(tmp_path: Path) -> None:
    card = tiny_anomaly_bundle(tmp_path / "b").card
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(0, 4, 400)).astype(np.float32)
    threshold = float(scores[200])
    stored = predictions(some(scores.tolist(), [0] * 200 + [1] * 200), threshold, "status")
    logits = stored.logits
    assert (logits[:, 0] == 0).all()
    np.testing.assert_allclose(logits[:, 1], STEEPNESS * (scores - threshold), atol=2e-6)
    probability = read(stored, card).probabilities[:, 1]
    order = np.argsort(np.array(stored.ids))
    assert (np.diff(probability[np.argsort(order)]) > 0).all(), "two scores became one"
    # The image that scores just the threshold is not OK, as the service's own rule says.
    called = probability[np.argsort(order)] > 0.5
    np.testing.assert_array_equal(called, scores.astype(float) >= threshold)


def test_scores_at_the_ends_of_the_scale_stay_apart(tmp_path: Path) -> None:
    card = tiny_anomaly_bundle(tmp_path / "b").card
    near = np.float32(4.0)
    scores = [0.0, float(np.nextafter(np.float32(0.5), near)), 0.5, 3.9999, 4.0]
    for threshold in (0.0, 2.0, 4.0):
        stored = predictions(some(scores, [0, 0, 1, 1, 1]), threshold, "status")
        found = read(stored, card).probabilities[:, 1]
        assert found[0] < found[2] < found[3] < found[4]
        assert measured("auc", read(stored, card)) == pytest.approx(5.5 / 6, abs=0.1)


def test_scored_images_are_read_back_whole_or_not_at_all(tmp_path: Path) -> None:
    found = some([0.1, 0.2, 0.9], [OK, OK, NG])
    found = dataclasses.replace(found, slices={"line": np.array(["a", "", "b"])})
    found.save(tmp_path / "s.npz")
    again = Scored.load(tmp_path / "s.npz")
    assert again.slices["line"].tolist() == ["a", "", "b"]
    assert predictions(again, 0.5, "status").slices["line"].tolist() == ["a", "", "b"]
    np.testing.assert_array_equal(again.score, found.score)
    np.testing.assert_array_equal(again.of(NG), found.score[2:])
    data = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "s.npz").write_bytes(data[:-40])
    with pytest.raises(IntegrityError, match="can't be read"):
        Scored.load(tmp_path / "s.npz")


def test_arrays_of_unlike_lengths_are_refused(tmp_path: Path) -> None:
    broken = some([0.1, 0.2], [OK, NG])
    np.savez(
        tmp_path / "s.npz",
        **{**broken.columns(), "ids": np.array(["a"])},
    )
    with pytest.raises(IntegrityError, match="unlike lengths"):
        Scored.load(tmp_path / "s.npz")


def test_a_memory_of_another_extractor_is_refused(made: Made, tmp_path: Path) -> None:
    from tests.extractors import tiny_extractor

    tiny_extractor(tmp_path / "other", preprocessing=made.task.preprocessing.to_dict())
    with pytest.raises(RequestError, match="another extractor"):
        open_scorer(made.task, tmp_path / "other", made.memory)


def test_calibration_uses_ok_images_that_the_memory_does_not_hold(made: Made, home: Home) -> None:
    val = Scored.load(made.predictions.parent / "scores" / "val.npz")
    train = set(made.dataset.split("train")["id"].astype(str))
    assert not train & set(val.ids.tolist())
    assert set(val.label.tolist()) == {OK}
    assert made.calibration.threshold == pytest.approx(float(np.percentile(val.of(OK), 99)))
    assert made.calibration.p5_ng is None
    assert (made.calibration.mm_per_px, made.calibration.score_percentile) == (1.0, 99.9)


def test_ng_training_images_help_to_calibrate(made: Made, tmp_path: Path, home: Home) -> None:
    from training.labels import Rows
    from training.patchcore import scoring

    read_rows = scoring.read_rows

    def swapped(dataset: object, split: str, heads: object) -> Rows:
        """The test's NG images stand in for NG training images, which an OK/NG folder has."""
        rows = read_rows(dataset, "test" if split == "train" else split, heads)  # type: ignore[arg-type]
        return dataclasses.replace(rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "read_rows", swapped)
        found = scoring.calibrate_memory(made.scorer, made.dataset, made.task, tmp_path)
    assert found.ng == 6
    assert found.calibration.p5_ng is not None
    assert found.calibration.p99_ok is not None
    assert found.calibration.p5_ng > found.calibration.p99_ok
    middle = (found.calibration.p5_ng + found.calibration.p99_ok) / 2
    assert found.calibration.threshold == pytest.approx(middle)
