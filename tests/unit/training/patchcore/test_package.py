"""The bundle of a memory, its proofs, and how registry and gate take it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import BundleError, IntegrityError, ParityError, ServingError
from data.paths import Home
from serving.core.bundle import GOLDEN, REFERENCE, Bundle, write_bundle
from serving.core.patchcore import rule
from serving.core.patchcore.detector import open_detector
from tests.anomaly_sets import Made
from training.patchcore.build import network
from training.patchcore.package import package
from training.patchcore.proofs import compare_served, features_parity
from training.patchcore.scoring import bundle_predictions, predictions
from training.registry.rescore import hold_to_golden, rescore


@pytest.fixture(scope="session")
def bundle(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETIDERM_HOME", str(folder / "var"))
        return packaged(made, folder / "bundle")


def packaged(made: Made, out: Path, **changes: Any) -> Bundle:
    given = {"scored": made.scored, "served": False, **changes}
    return package(
        made.task, made.dataset, made.extractor, made.memory, made.calibration,
        evaluation=made.report, out=out, run_id="r1", **given,
    )  # fmt: skip


def test_the_bundle_is_whole_and_says_what_it_is(bundle: Bundle, made: Made) -> None:
    card = Bundle.open(bundle.root).card
    assert (card.kind, card.run_id, card.heads[0].classes) == ("anomaly", "r1", ("ok", "ng"))
    assert set(card.files) == {
        rule.EXTRACTOR, rule.EXTRACTOR_CARD, rule.MEMORY, rule.INDEX, rule.CALIBRATION, GOLDEN, REFERENCE,
    }  # fmt: skip
    settings = rule.Settings.from_dict(card.extra[rule.KEY])
    assert settings == made.scorer.settings
    assert settings.memory["coreset"] > 0
    assert card.dataset.test_digest == made.dataset.test_digest
    assert card.precisions["fp32"].file == rule.EXTRACTOR
    assert "no probabilities" in card.heads[0].notes[0]


def test_torch_and_the_exported_features_agree_on_the_whole_test_set(bundle: Bundle, made: Made) -> None:
    proof = bundle.card.parity["features"]
    assert proof["images"] == len(made.dataset.split("test")) == 12
    assert proof["passed"]
    assert proof["max_difference"] <= 1e-3
    assert proof["labels_changed"] == 0


def test_a_network_that_is_not_the_exported_one_blocks_the_bundle(
    made: Made, tmp_path: Path, home: Home
) -> None:
    other = dataclasses.replace(made.task, patchcore=dataclasses.replace(made.task.patchcore, seed=5))  # type: ignore[type-var]
    with pytest.raises(ParityError, match="differ on 12 test images"):
        packaged(made.but(task=other), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_scores_of_other_images_are_no_proof(made: Made, home: Home) -> None:
    scored = made.scored
    with pytest.raises(ParityError, match="not those of the test images"):
        features_parity(
            network(made.task), made.scorer, made.dataset, made.task,
            dataclasses.replace(scored, ids=scored.ids[::-1]), made.calibration.threshold,
        )  # fmt: skip


def test_one_changed_decision_is_no_proof_however_small_the_difference(made: Made, home: Home) -> None:
    scored = made.scored
    nudged = scored.score.copy()
    nudged[0] += np.float32(1e-5)
    between = (float(scored.score[0]) + float(nudged[0])) / 2
    with pytest.raises(ParityError, match="1 decisions changed"):
        features_parity(
            network(made.task), made.scorer, made.dataset, made.task,
            dataclasses.replace(scored, score=nudged), between,
        )  # fmt: skip


def test_golden_images_are_of_both_classes_and_hold(bundle: Bundle, made: Made) -> None:
    golden = bundle.arrays(GOLDEN)
    detector = open_detector(bundle)
    called = [detector.label(float(score)) for score in golden["scores"]]
    assert len(golden["images"]) == 8
    assert golden["distances"].shape == (8, *detector.scorer.settings.grid)
    assert set(called) == {"ok", "ng"}
    hold_to_golden(bundle)


def test_a_bundle_whose_golden_scores_do_not_hold_is_not_opened(bundle: Bundle, tmp_path: Path) -> None:
    from training.export.reference import npz

    golden = bundle.arrays(GOLDEN)
    files: dict[str, Path | bytes] = {name: bundle.path(name) for name in bundle.card.files}
    files[GOLDEN] = npz(**{**golden, "scores": golden["scores"] + np.float32(0.01)})
    altered = write_bundle(tmp_path / "b", bundle.card, files)
    with pytest.raises(IntegrityError, match="differently from when the bundle was made"):
        open_detector(altered)


def test_without_the_index_the_memory_is_searched_and_answers_alike(bundle: Bundle) -> None:
    images = bundle.arrays(GOLDEN)["images"]
    plain = open_detector(bundle, index=False)
    np.testing.assert_allclose(
        plain.score(images).score, open_detector(bundle).score(images).score, atol=1e-6
    )


def test_reference_knows_embeddings_pixels_and_usual_scores(bundle: Bundle) -> None:
    found = bundle.arrays(REFERENCE)
    detector = open_detector(bundle)
    assert found["embedding_mean"].shape == (detector.scorer.settings.dim,)
    assert found["score_percentiles"].shape == (101,)
    assert found["score_percentiles"][-1] >= detector.threshold - 1e-4
    assert found["colour_mean_percentiles"].shape == (101, 3)
    np.testing.assert_allclose(found["status.prior"], [1, 0])


def test_the_gate_can_ask_the_bundle_again(bundle: Bundle, made: Made, home: Home) -> None:
    stored = predictions(made.scored, made.calibration.threshold, "status")
    for asked in (rescore(bundle, made.dataset), bundle_predictions(bundle, made.dataset, "test")):
        np.testing.assert_array_equal(asked.ids, stored.ids)
        np.testing.assert_allclose(asked.logits, stored.logits, atol=1e-5)


def test_a_bundle_without_its_proofs_is_no_version(bundle: Bundle) -> None:
    with pytest.raises(ParityError, match="no proof of: served"):
        bundle.card.require_parity()


def test_another_kind_of_bundle_is_no_detector(tmp_path: Path) -> None:
    from tests.bundles import tiny_bundle

    with pytest.raises(BundleError, match="of kind classification"):
        open_detector(tiny_bundle(tmp_path / "b"))


def answer(scores: Sequence[float | None]) -> dict[str, Any]:
    return {"outputs": [{"name": "anomaly.score", "data": list(scores)}]}


def test_served_scores_are_held_against_the_judged_ones() -> None:
    def alike(files: Sequence[bytes]) -> dict[str, Any]:
        return answer([0.5, None] if len(files) == 2 else [0.25])

    proof = compare_served(alike, [b"a", b"b", b"c"], [0.5004, 9.0, 0.25], 0.4, batch=2)
    assert (proof["images"], proof["answered"], proof["passed"]) == (3, 2, True)
    assert proof["max_difference"] == pytest.approx(4e-4)


@pytest.mark.parametrize(
    ("scores", "expected", "says"),
    [
        ([0.6], [0.5], "differ from the offline ones"),
        ([0.4999], [0.5], "1 decisions changed"),
        ([None], [0.5], "refused all 1 test images"),
    ],
)
def test_served_scores_that_differ_block(
    scores: list[float | None], expected: list[float], says: str
) -> None:
    with pytest.raises(ParityError, match=says):
        compare_served(lambda _: answer(scores), [b"a"], expected, 0.5)


@pytest.mark.parametrize("document", [{}, {"outputs": []}, answer([0.1, 0.2])])
def test_an_answer_of_another_form_is_an_error(document: dict[str, Any]) -> None:
    with pytest.raises(ServingError):
        compare_served(lambda _: document, [b"a"], [0.5], 0.5)


def test_percentile_scores_are_served_as_the_service_scores() -> None:
    settings = rule.ScoreRule("percentile", percentile=90)
    map_ = np.linspace(0, 1, 101, dtype=np.float32).reshape(1, -1)
    assert settings(np.zeros((1, 1), np.float32), map_) == pytest.approx(0.9)
    top = rule.ScoreRule("top_mean", top=2)
    assert top(np.array([[1, 5], [3, 0]], np.float32), None) == 4.0
    assert rule.ScoreRule("top_mean", top=9)(np.array([[1, 5]], np.float32), None) == 3.0
    for wrong in ({"kind": "median"}, {"percentile": 101.0}, {"percentile": math.nan}, {"top": 0}):
        with pytest.raises(BundleError, match="settings can't be used"):
            rule.ScoreRule(**wrong)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="unknown entries"):
        rule.Settings.from_dict({"grid": [1, 1], "dim": 3, "odd": 1})
