"""S3's analysis of one photograph: the result's document, what has no result, and how models are reached."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import BundleError, ImageDamaged, NotAnImage, ServingError
from data.paths import Home
from serving.core.bundle import write_bundle
from serving.core.face import Refusal, find_face
from serving.core.measures import measure_face
from serving.core.pointer import Pointer, write_pointer
from serving.offline import answer
from serving.replies import ModelReply
from serving.scan import (
    ACNE,
    CONDITION,
    BundleModels,
    FaceScan,
    ScanFailure,
    Seen,
    analyze_face,
    conclude,
    encode_face,
    see_face,
)
from serving.scan.analyze import SIDE, look_at
from serving.source import Served, open_source
from tests.bundles import tiny_bundle, with_heads
from tests.faces import portrait
from tests.profiles import face_bundle, jpeg, png

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ONE = portrait(480)
PHOTO = jpeg(ONE)

#: S3's example without its values: every key, in its order.
KEYS = {
    "scan_id": None,
    "status": None,
    "ml_analysis": {
        "acne_analysis": {
            "detected": None,
            "confidence": None,
            "label": None,
            "probabilities": {"no_acne": None, "acne": None},
        },
        "condition_analysis": {
            "condition": None,
            "confidence": None,
            "probabilities": dict.fromkeys(("normal", "acne", "rosacea", "eczema", "pigmentation")),
        },
        "ml_models_used": {"acne_model": None, "condition_model": None},
    },
    "cv_analysis": {
        "skin_tone": None,
        "skin_type": None,
        "texture_quality": None,
        "wrinkles": {"detected": None, "density": None},
        "dark_circles": {"detected": None, "severity": None},
    },
    "confidence": None,
    "generated_at": None,
}


def keys(value: Any) -> Any:
    return {name: keys(inner) for name, inner in value.items()} if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    folder = tmp_path_factory.mktemp("bundles")
    found: dict[str, Served] = {}
    for asked in (ACNE, CONDITION):
        found |= open_source(None, face_bundle(folder / asked.task, asked, quality="photo").root).scan()
    return found


@pytest.fixture(scope="module")
def models(served: dict[str, Served]) -> BundleModels:
    return BundleModels(served.values(), threads=1)


@pytest.fixture(scope="module")
def scan(models: BundleModels) -> FaceScan:
    found = analyze_face(PHOTO, models)
    assert isinstance(found, FaceScan)
    return found


def test_the_result_is_the_contracts(scan: FaceScan) -> None:
    result = scan.to_dict("7f", NOW)
    assert json.dumps(keys(result)) == json.dumps(KEYS)
    assert json.loads(json.dumps(result)) == result
    assert (result["scan_id"], result["status"]) == ("7f", "completed")
    assert datetime.datetime.fromisoformat(result["generated_at"]) == NOW
    analysis = result["ml_analysis"]
    acne, condition = analysis["acne_analysis"], analysis["condition_analysis"]
    assert acne["detected"] is (acne["label"] == "acne")
    for part, label in ((acne, acne["label"]), (condition, condition["condition"])):
        assert sum(part["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert part["confidence"] == part["probabilities"][label] == max(part["probabilities"].values())
    assert analysis["ml_models_used"] == {"acne_model": True, "condition_model": True}
    assert result["confidence"] == min(acne["confidence"], condition["confidence"])


def test_generated_now_where_not_said(scan: FaceScan) -> None:
    moment = datetime.datetime.fromisoformat(scan.to_dict("7f")["generated_at"])
    assert abs(datetime.datetime.now(datetime.UTC) - moment) < datetime.timedelta(minutes=10)


def test_measures_are_those_of_the_face(scan: FaceScan) -> None:
    rgb, _ = look_at(PHOTO)
    face = find_face(rgb).face
    assert face is not None
    assert scan.to_dict("7f")["cv_analysis"] == measure_face(rgb, face).to_dict()
    # The models are shown the face, not the photograph.
    assert scan.seen.pixels.shape[0] == face.square()[2] < 480


def test_confidence_is_the_calibrated_one(served: dict[str, Served], tmp_path: Path, scan: FaceScan) -> None:
    soft = with_heads(served["skin_condition"].open(verify=False), tmp_path / "soft", temperature=50.0)
    models = BundleModels([served["acne"], *open_source(None, soft.root).scan().values()], threads=1)
    found = analyze_face(PHOTO, models)
    assert isinstance(found, FaceScan)
    # Five classes at that temperature are about as likely as each other.
    assert found.confidence == pytest.approx(0.2, abs=0.05)
    assert found.confidence == found.to_dict("7f")["ml_analysis"]["condition_analysis"]["confidence"]
    assert found.acne == scan.acne


def test_a_model_that_is_not_served_is_null(served: dict[str, Served]) -> None:
    found = analyze_face(PHOTO, BundleModels([served["acne"]], threads=1))
    assert isinstance(found, FaceScan)
    result = found.to_dict("7f")
    assert result["ml_analysis"]["condition_analysis"] is None
    assert result["ml_analysis"]["ml_models_used"] == {"acne_model": True, "condition_model": False}
    assert result["ml_analysis"]["acne_analysis"]["probabilities"]
    assert result["confidence"] is None


def test_what_cannot_be_measured_is_null(models: BundleModels) -> None:
    grey = np.repeat(cv2.cvtColor(ONE, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    found = analyze_face(png(cv2.resize(grey, (240, 240), interpolation=cv2.INTER_AREA)), models)
    assert isinstance(found, FaceScan)
    measured = found.to_dict("7f")["cv_analysis"]
    assert (measured["skin_tone"], measured["skin_type"]) == ("unknown", "unknown")
    assert measured["texture_quality"] is None
    assert measured["wrinkles"] == {"detected": None, "density": None}
    assert json.dumps(keys(measured)) == json.dumps(KEYS["cv_analysis"])


def crowd() -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.hstack([ONE, portrait(480, seed=1)]))


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        (np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8), "no_face"),
        (crowd(), "several_faces"),
        ((ONE * 0.08).astype(np.uint8), "too_dark"),
    ],
    ids=["none", "several", "dark"],
)
def test_no_face_to_answer_for(models: BundleModels, picture: NDArray[np.uint8], code: str) -> None:
    failure = analyze_face(png(picture), models)
    assert isinstance(failure, ScanFailure)
    assert failure == ScanFailure(code, Refusal(code).message)
    document = failure.to_dict("7f", NOW)
    assert list(document) == ["scan_id", "status", "reason", "generated_at"]
    assert document["status"] == "failed"
    assert document["reason"] == {"code": code, "message": Refusal(code).message}


class Never:
    """Models that must not be asked."""

    def ask(self, task: str, face: NDArray[np.uint8]) -> ModelReply | None:
        raise AssertionError(task)


def test_models_are_not_asked_without_a_face() -> None:
    assert isinstance(analyze_face(png(crowd()), Never()), ScanFailure)


def test_a_face_that_cannot_be_judged_has_no_result(tmp_path: Path) -> None:
    plain = face_bundle(tmp_path / "plain", ACNE, quality="photo")
    card = dataclasses.replace(plain.card, quality={**plain.card.quality, "min_sharpness": 0.99})
    strict = write_bundle(tmp_path / "strict", card, {name: plain.path(name) for name in card.files})
    failure = analyze_face(PHOTO, BundleModels.open(strict.root, threads=1))
    assert isinstance(failure, ScanFailure)
    assert (failure.code, failure.reasons) == ("not_gradable", ("blurred",))
    assert failure.to_dict("7f")["reason"]["details"] == ["blurred"]


@pytest.mark.parametrize(
    ("data", "error"), [(b"", NotAnImage), (b"hello", NotAnImage), (PHOTO[:3000], ImageDamaged)]
)
def test_an_undecodable_photograph_is_an_error(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        analyze_face(data, Never())


def test_a_model_that_is_away_is_an_error_not_a_null() -> None:
    class Away:
        def ask(self, task: str, face: NDArray[np.uint8]) -> ModelReply | None:
            raise ServingError(f"{task} is away.")

    with pytest.raises(ServingError, match="acne is away"):
        analyze_face(PHOTO, Away())


def test_a_reply_of_another_model_is_an_error(scan: FaceScan) -> None:
    assert isinstance(conclude(scan.seen, scan.acne, scan.condition), FaceScan)
    with pytest.raises(ServingError, match="gives no 'condition'"):
        conclude(scan.seen, scan.acne, scan.acne)


def test_over_kserve_a_model_sees_the_same_pixels(served: dict[str, Served], models: BundleModels) -> None:
    """The face as it goes to a server, answered as a server answers, is what the bundle says here."""
    seen = see_face(PHOTO)
    assert isinstance(seen, Seen)
    for task, item in served.items():
        there = answer(item, encode_face(seen.pixels), precision="fp32").to_dict()
        assert ModelReply.read(there) == models.ask(task, seen.pixels)


def test_a_large_photograph_is_reduced_and_said_so(models: BundleModels) -> None:
    large = cv2.resize(ONE, (2400, 2400), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    for data in (jpeg(large), png(large)):
        rgb, scale = look_at(data)
        assert rgb.shape == (SIDE, SIDE, 3)
        assert scale == 2400 / SIDE
        seen = see_face(data)
        assert isinstance(seen, Seen)
        assert seen.pixels.shape == (448, 448, 3)
        # Drawn with the eyes 96 of 480 pixels apart.
        assert seen.face.eye_distance * seen.scale == pytest.approx(480, rel=0.06)


@pytest.mark.parametrize(("width", "height"), [(4000, 2), (1, 3000), (1281, 1280), (1, 1)])
def test_any_shape_is_looked_at(width: int, height: int) -> None:
    rgb, scale = look_at(jpeg(np.full((height, width, 3), 90, np.uint8)))
    assert 1 <= min(rgb.shape[:2]) <= max(rgb.shape[:2]) <= SIDE
    assert scale == max(width, height) / max(rgb.shape[:2])
    assert isinstance(see_face(jpeg(np.full((height, width, 3), 90, np.uint8))), ScanFailure)


def test_what_is_promoted_is_asked(home: Home, served: dict[str, Served]) -> None:
    assert BundleModels.open().tasks == ()
    item = served["acne"]
    bundle = item.open(verify=False)
    folder = home.serving / "acne" / "2"
    folder.parent.mkdir(parents=True)
    shutil.copytree(bundle.root, folder)
    other = tiny_bundle(home.serving / "dr_grading" / "1")
    write_pointer(home.serving, Pointer("acne", "2", bundle.digest, "2"))
    write_pointer(home.serving, Pointer("dr_grading", "1", other.digest, "1"))
    models = BundleModels.open(threads=1)
    assert models.tasks == ("acne",)
    reply = models.ask("acne", ONE)
    assert reply is not None
    assert reply.model.version == "2"
    assert models.ask("skin_condition", ONE) is None


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none that a face scan asks"):
        BundleModels.open(tiny_bundle(tmp_path / "a").root)
    with pytest.raises(BundleError, match="has other classes"):
        BundleModels.open(tiny_bundle(tmp_path / "b", task="acne", heads={"acne": ("no", "yes")}).root)


def test_threads_get_what_one_caller_gets(models: BundleModels, scan: FaceScan) -> None:
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda data: analyze_face(data, models), [PHOTO] * 8):
            assert isinstance(found, FaceScan)
            assert found.to_dict("7f", NOW) == scan.to_dict("7f", NOW)


def test_on_photographs_of_people(shared_data: Path, models: BundleModels) -> None:
    names = ("face_recognition__biden.jpg", "face_recognition__knn_examples__test__obama_and_biden.jpg")
    one, two = (analyze_face((shared_data / "faces" / name).read_bytes(), models) for name in names)
    assert isinstance(one, FaceScan)
    assert one.to_dict("7f")["cv_analysis"]["skin_tone"] != "unknown"
    assert isinstance(two, ScanFailure)
    assert two.code == "several_faces"
