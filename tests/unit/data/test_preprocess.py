"""The one preprocessing: its parameters, its pixels, and the digest that stands for both."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data import preprocess
from data.errors import UsageError
from data.field import find_field
from data.image import decode
from data.preprocess import IMPLEMENTATION_VERSION, MEASURE_SIDE, Clahe, Preprocessing


def eye(height: int = 340, width: int = 500, radius: int = 200) -> NDArray[np.uint8]:
    """A drawn fundus photograph, in whole numbers, so that it is the same on every machine."""
    y, x = np.mgrid[:height, :width]
    tone = 140 + (x * 7 // 31 + y * 5 // 29) % 64 + (x // 3 + y // 5) % 5
    image = np.dstack([tone, tone // 2, tone // 5])
    image[(x - 245) ** 2 + (y - height // 2) ** 2 > radius * radius] = 3
    return image.astype(np.uint8)


# What the pixels are. If a change of yours makes this fail, raise IMPLEMENTATION_VERSION and write the new
# hash under it: a model that learned from the old pixels must not be shown the new ones.
PIXELS = {1: "c78668593c7e5f7e10b05c616fc8bd3e4142f5e3a1793cf5cc11cf0ce14e73e3"}


def test_the_pixels_are_those_of_this_implementation_version() -> None:
    digest = hashlib.sha256()
    for settings_ in (
        Preprocessing(),
        Preprocessing(crop="fundus", clahe=Clahe()),
        Preprocessing(size=(96, 160), fit="letterbox", clahe=Clahe(3.0, 4)),
        Preprocessing(size=(160, 96), fit="center"),
        Preprocessing(size=(640, 640), crop="fundus"),
    ):
        digest.update(settings_(eye()).tobytes())
    encoded = cv2.imencode(".png", np.dstack([eye()[..., 0].astype(np.uint16) * 251] * 3))[1].tobytes()
    digest.update(Preprocessing().decode(encoded).tobytes())
    photograph = cv2.imencode(".jpg", np.ascontiguousarray(eye(1000, 1200, 480)[..., ::-1]))[1].tobytes()
    digest.update(Preprocessing(crop="fundus").decode(photograph).tobytes())
    assert PIXELS[IMPLEMENTATION_VERSION] == digest.hexdigest()


@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(st.integers(8, 130), st.integers(8, 130)),
    st.sampled_from(["none", "fundus"]),
    st.sampled_from(["stretch", "letterbox", "center"]),
    st.sampled_from([None, Clahe(), Clahe(4.0, 3)]),
)
@settings(max_examples=150, deadline=None)
def test_every_shape_becomes_the_size(
    shape: tuple[int, int], size: tuple[int, int], crop: str, fit: str, clahe: Clahe | None
) -> None:
    image = np.random.default_rng(shape[0]).integers(0, 256, (*shape, 3), dtype=np.uint8)
    settings_ = Preprocessing.from_dict({"size": list(size), "crop": crop, "fit": fit, "clahe": clahe})
    before = image.copy()
    out = settings_(image)
    assert out.shape == (*size, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    assert np.array_equal(out, settings_(image))
    assert np.array_equal(image, before)


def test_parameters_go_to_a_card_and_back() -> None:
    settings_ = Preprocessing(size=(192, 256), crop="fundus", fit="letterbox", clahe=Clahe(1.5, 4))
    assert Preprocessing.from_dict(settings_.to_dict()) == settings_
    assert settings_.to_dict() == {
        "size": [192, 256],
        "crop": "fundus",
        "fit": "letterbox",
        "clahe": {"clip_limit": 1.5, "tiles": 4},
    }
    assert Preprocessing.from_dict({"size": 64}).size == (64, 64)
    assert Preprocessing.from_dict({}) == Preprocessing()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"sizes": 224}, "sizes"),
        ({"clahe": {"clip": 2}}, "clip"),
        ({"clahe": True}, "clahe"),
        ({"crop": "face"}, "face"),
        ({"fit": "tile"}, "tile"),
        ({"size": 0}, "size"),
        ({"size": [1, 2, 3]}, "size"),
        ({"size": "big"}, "size"),
        ({"clahe": {"tiles": 0}}, "tiles"),
        ({"clahe": {"clip_limit": "high"}}, "clip"),
    ],
)
def test_wrong_parameters_are_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Preprocessing.from_dict(values)


def test_the_digest_follows_parameters_and_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Preprocessing().digest
    assert first == Preprocessing.from_dict(Preprocessing().to_dict()).digest
    changed = [
        Preprocessing(size=(225, 224)),
        Preprocessing(crop="fundus"),
        Preprocessing(fit="center"),
        Preprocessing(clahe=Clahe()),
        Preprocessing(clahe=Clahe(2.5)),
    ]
    assert len({first, *(each.digest for each in changed)}) == 6
    assert Preprocessing(clahe=Clahe(2)).digest == Preprocessing(clahe=Clahe(2.0)).digest
    monkeypatch.setattr(preprocess, "IMPLEMENTATION_VERSION", IMPLEMENTATION_VERSION + 1)
    assert Preprocessing().digest != first


def test_the_field_of_view_fills_the_square() -> None:
    out = Preprocessing(crop="fundus")(eye())
    # The disc is as wide as the square; what the frame cut off above and below is black.
    assert out[112, 1].max() > 60
    assert out[112, -2].max() > 60
    assert out[2].max() == 0
    assert out[-3].max() == 0
    assert np.array_equal(out, Preprocessing(crop="fundus")(eye(), field=find_field(eye())))


def test_without_a_field_of_view_nothing_is_cropped() -> None:
    plain = np.random.default_rng(0).integers(60, 256, (300, 400, 3), dtype=np.uint8)
    assert np.array_equal(Preprocessing(crop="fundus")(plain), Preprocessing()(plain))


def test_fits() -> None:
    image = np.full((100, 200, 3), 200, np.uint8)
    letterbox = Preprocessing(size=(64, 64), fit="letterbox")(image)
    assert letterbox[0].max() == 0
    assert letterbox[32].min() == 200
    assert Preprocessing(size=(64, 64), fit="center")(image).min() == 200
    assert Preprocessing(size=(64, 64))(image).min() == 200


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "center"])
@pytest.mark.parametrize("shape", [(1, 6000), (6000, 1), (1, 200_000), (200_000, 1), (3, 40_000)])
def test_of_a_strip_no_giant_is_made(
    fit: preprocess.Fit, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    scale = preprocess.resize

    def watched(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        sizes.append(size)
        return scale(rgb, size)

    monkeypatch.setattr(preprocess, "resize", watched)
    out = Preprocessing(fit=fit)(np.full((*shape, 3), 200, np.uint8))
    assert out.shape == (224, 224, 3)
    assert out.max() == 200
    assert max(height * width for height, width in sizes) <= 4 * 224 * 224


@pytest.mark.parametrize("shape", [(300, 1190), (1190, 300), (60, 100), (900, 3590)])
def test_a_center_cut_of_a_photograph_scales_first_as_ever(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scale = 64 / min(shape)
    scaled = preprocess.resize(image, (round(shape[0] * scale), round(shape[1] * scale)))
    top, left = (scaled.shape[0] - 64) // 2, (scaled.shape[1] - 64) // 2
    expected = scaled[top : top + 64, left : left + 64]
    assert np.array_equal(Preprocessing(size=(64, 64), fit="center")(image), expected)


def test_of_a_strip_the_middle_is_shown() -> None:
    strip = np.zeros((10, 4000, 3), np.uint8)
    strip[:, 1995:2005] = 200
    assert Preprocessing(size=(64, 64), fit="center")(strip).min() == 200


def test_clahe_keeps_colours_and_raises_contrast() -> None:
    image = np.clip(eye() // 3 + 60, 0, 255).astype(np.uint8)
    plain, equalised = Preprocessing()(image), Preprocessing(clahe=Clahe())(image)
    assert equalised.std() > plain.std()
    grey = np.repeat(image[..., :1], 3, axis=2)
    out = Preprocessing(clahe=Clahe())(grey).astype(int)
    assert np.abs(out[..., 0] - out[..., 2]).max() <= 4


def test_the_reduced_decode_leaves_room_for_model_and_measures() -> None:
    assert Preprocessing().min_side == MEASURE_SIDE
    assert Preprocessing(size=(512, 512)).min_side == 512
    assert Preprocessing(size=(300, 300), crop="fundus").min_side == 600
    encoded = cv2.imencode(".jpg", np.full((1000, 1400, 3), 90, np.uint8))[1].tobytes()
    assert Preprocessing().decode(encoded).shape == (500, 700, 3)
    assert Preprocessing(size=(512, 512)).decode(encoded).shape == (1000, 1400, 3)


def test_reduced_and_whole_decode_show_the_model_the_same(shared_data: Path) -> None:
    settings_ = Preprocessing(crop="fundus", size=(128, 128))
    differences = []
    for path in sorted((shared_data / "idrid_640" / "images").iterdir())[::40]:
        small = decode(path.read_bytes())
        large = np.asarray(cv2.resize(small, (2048, 1360), interpolation=cv2.INTER_CUBIC), np.uint8)
        encoded = cv2.imencode(".jpg", large[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        reduced = settings_.decode(encoded)
        assert reduced.shape[0] == 680
        differences.append(np.abs(settings_(reduced).astype(int) - settings_(decode(encoded))).mean())
    assert max(differences) < 2.0
