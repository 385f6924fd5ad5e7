"""Verdicts: each fault has its code, good photographs pass, blurred ones don't; one call prepares a file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import ImageDamaged, ImageTooLarge
from data.field import find_field
from data.image import DecodeLimits, decode
from data.preprocess import Clahe, Preprocessing
from data.quality import PROFILES, assess, load_profile, prepare
from data.quality.calibrate import add_noise, blur
from data.quality.measure import measure, sharpness

PHOTO, FUNDUS = PROFILES["photo"], PROFILES["fundus"]


def texture(side: int = 320, seed: int = 0) -> NDArray[np.uint8]:
    """Detail at every scale, as natural pictures have it."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side), 128.0)
    for octave in range(1, 8):
        noise = rng.normal(0, 12, (max(2, side >> octave), max(2, side >> octave)))
        image += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def eye(seed: int = 0) -> NDArray[np.uint8]:
    image = (texture(420, seed)[..., :1] * np.array([1.2, 0.6, 0.3])).clip(0, 255)
    y, x = np.mgrid[:420, :420]
    image[np.hypot(x - 210, y - 210) > 195] = 2
    return image.astype(np.uint8)


def test_good_photographs_pass() -> None:
    assert assess(texture(), PHOTO).verdict == "gradable"
    verdict = assess(eye(), FUNDUS)
    assert (verdict.verdict, verdict.reasons) == ("gradable", ())
    assert verdict.scores["field"] == pytest.approx(0.86, abs=0.02)
    assert all(isinstance(value, float) for value in verdict.scores.values())


@pytest.mark.parametrize(
    ("image", "profile", "verdict", "reason"),
    [
        (blur(texture(), 3), "photo", "retake", "blurred"),
        (blur(eye(), 3), "fundus", "retake", "blurred"),
        (texture() // 12, "photo", "retake", "too_dark"),
        (255 - (255 - texture()) // 12, "photo", "retake", "too_bright"),
        (np.where(texture() > 130, texture(), 0).astype(np.uint8), "fundus", "ungradable", "dark_clipped"),
        (np.where(texture() > 90, 255, texture()).astype(np.uint8), "photo", "retake", "bright_clipped"),
        (texture() // 8 + 100, "photo", "retake", "low_contrast"),
        (np.full((300, 300, 3), 120, np.uint8), "photo", "ungradable", "blank"),
        (texture(), "fundus", "ungradable", "no_field_of_view"),
        (eye()[..., ::-1].copy(), "fundus", "ungradable", "unexpected_colour"),
        (texture()[:40, :40], "photo", "ungradable", "too_small"),
        (np.zeros((1, 1, 3), np.uint8), "fundus", "ungradable", "too_small"),
        (np.zeros((1, 1, 3), np.uint8), "thumbnail", "ungradable", "too_small"),
        (np.zeros((1, 90_000, 3), np.uint8), "photo", "ungradable", "too_small"),
    ],
)
def test_each_fault_has_its_reason(image: NDArray[np.uint8], profile: str, verdict: str, reason: str) -> None:
    result = assess(image, PROFILES[profile])
    assert reason in result.reasons
    assert result.verdict == verdict


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (17, 4000), (448, 448)])
def test_any_image_gets_a_verdict_with_finite_scores(profile: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.isfinite(list(assess(image, PROFILES[profile]).scores.values())).all()


def test_sharpness_depends_on_neither_contrast_nor_exposure() -> None:
    grey = texture()[..., 0]
    faint = (grey.astype(float) * 0.4 + 30).astype(np.uint8)
    assert sharpness(faint) == pytest.approx(sharpness(grey), rel=0.1)
    soft = [sharpness(blur(texture(), sigma)[..., 0]) for sigma in (0.5, 1, 2, 3, 5)]
    assert soft == sorted(soft, reverse=True)


def test_measures_are_steady_under_reduced_decoding() -> None:
    image = np.asarray(cv2.resize(eye(), (1600, 1600), interpolation=cv2.INTER_CUBIC), np.uint8)
    data = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    whole, half = (measure(decode(data, min_side=side), FUNDUS) for side in (None, 448))
    assert half.side == 800
    for name in ("sharpness", "exposure", "contrast", "redness", "field"):
        assert getattr(half, name) == pytest.approx(getattr(whole, name), rel=0.05), name


def test_prepare_is_decode_assess_and_preprocess() -> None:
    data = cv2.imencode(".png", eye()[..., ::-1])[1].tobytes()
    settings = Preprocessing(crop="fundus", clahe=Clahe())
    prepared = prepare(data, settings, FUNDUS)
    rgb = settings.decode(data)
    assert np.array_equal(prepared.pixels, settings(rgb))
    assert prepared.verdict == assess(rgb, FUNDUS)
    assert prepare(data, settings).verdict is None
    bad = prepare(cv2.imencode(".png", np.zeros((300, 300, 3), np.uint8))[1].tobytes(), settings, FUNDUS)
    assert bad.pixels.shape == (224, 224, 3)
    assert bad.verdict is not None
    assert bad.verdict.verdict == "ungradable"


def test_prepare_refuses_what_decode_refuses() -> None:
    data = cv2.imencode(".png", eye())[1].tobytes()
    with pytest.raises(ImageDamaged):
        prepare(data[:-100], Preprocessing())
    with pytest.raises(ImageTooLarge):
        prepare(data, Preprocessing(), limits=DecodeLimits(max_pixels=1000))


SETS = [
    ("idrid_640/images", "fundus", 8),
    ("ham10000_200x150/images", "dermoscopy", 60),
    ("acne04_640/images", "photo", 4),
    ("faces", "photo", 1),
]


@pytest.mark.parametrize(("folder", "profile", "every"), SETS)
def test_real_photographs_pass_and_their_blurred_copies_do_not(
    shared_data: Path, folder: str, profile: str, every: int
) -> None:
    chosen = load_profile(profile)
    images = [
        decode(path.read_bytes(), min_side=448) for path in sorted((shared_data / folder).iterdir())[::every]
    ]
    passed = [assess(image, chosen).verdict == "gradable" for image in images]
    soft = [blur(image, 3) for image in images]
    caught = [assess(image, chosen).verdict != "gradable" for image in soft]
    noisy = [assess(add_noise(image, 0), chosen).verdict != "gradable" for image in soft]
    assert np.mean(passed) >= 0.97
    assert np.mean(caught) >= 0.95
    assert np.mean(noisy) >= 0.80


def test_real_thumbnails_pass(shared_data: Path) -> None:
    with np.load(shared_data / "retinamnist" / "retinamnist.npz") as arrays:
        images = arrays["val_images"]
    assert np.mean([assess(image, PROFILES["thumbnail"]).verdict == "gradable" for image in images]) >= 0.97


def test_the_fundus_profile_refuses_skin(shared_data: Path) -> None:
    files = [
        *sorted((shared_data / "ham10000_200x150" / "images").iterdir())[::60],
        *sorted((shared_data / "acne04_640" / "images").iterdir())[::4],
    ]
    verdicts = [assess(decode(path.read_bytes()), FUNDUS) for path in files]
    assert np.mean(["no_field_of_view" in verdict.reasons for verdict in verdicts]) >= 0.93
    assert np.mean([verdict.verdict == "ungradable" for verdict in verdicts]) >= 0.97


def test_the_field_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[tuple[int, ...]] = []

    def counting(rgb: NDArray[np.uint8]) -> object:
        searched.append(rgb.shape)
        return find_field(rgb)

    for module in ("data.quality.gate", "data.quality.measure", "data.preprocess"):
        monkeypatch.setattr(f"{module}.find_field", counting)
    data = cv2.imencode(".png", eye()[..., ::-1])[1].tobytes()
    prepare(data, Preprocessing(crop="fundus"), FUNDUS)
    assert len(searched) == 1
    searched.clear()
    prepare(data, Preprocessing(), PHOTO)
    assert not searched
