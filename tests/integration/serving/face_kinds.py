"""The kinds of photographs that a face scan has no result for, or only a part of one, drawn here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.synthetic import pixels, plan
from tests.faces import portrait, turned
from tests.integration.serving import pictures

Picture = NDArray[np.uint8]

#: What is said of a photograph that has a result.
ANSWERED = "answered"


@dataclass(frozen=True)
class FaceKind:
    """``want`` is the code that a scan gives; ``missing`` what of ``cv_analysis`` is null in a result."""

    name: str
    want: str
    data: bytes
    missing: tuple[str, ...] = ()


def face_kinds() -> Iterator[FaceKind]:
    """Every kind."""
    one = portrait(480)
    yield _kind("a wall", "no_face", np.full((480, 640, 3), 150, np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    yield _kind("noise", "no_face", noise)
    for subject, name in (("fundus", "a retina"), ("lesion", "a lesion, close up")):
        yield _kind(name, "no_face", pixels(plan(subject, 5, size=512)[3]))
    yield _kind("one pixel", "no_face", one[:1, :1])
    yield _kind("a strip of 6,000 × 1 pixels", "no_face", np.full((1, 6000, 3), 120, np.uint8))
    yield _kind("a face that stands on its head", "no_face", one[::-1])
    yield _kind("two faces", "several_faces", np.hstack([one, portrait(480, seed=1)]))
    yield _kind("a face, and a smaller one behind", "several_faces", _behind(one, 240))
    yield _kind("a face, and someone far behind, at a fifth of its size", ANSWERED, _behind(one, 96))
    # The drawn face's box is 258 of 480 pixels.
    tiny = cv2.resize(one, (37, 37), interpolation=cv2.INTER_AREA)
    yield _kind("a face of 20 pixels that fills the picture", "too_small", tiny)
    large = np.full((640, 640, 3), 170, np.uint8)
    large[300:337, 200:237] = tiny
    yield _kind("a face of 20 pixels in a picture of 640", "too_small", large)
    yield _kind("a face cut by the frame at its side", "cut_off", one[:, 200:])
    yield _kind("a face cut by the frame at the mouth", "cut_off", one[:300])
    yield _kind("half a face", "no_face", one[:, 240:])
    yield _kind("a face from the eyes down", "no_face", one[215:])
    yield _kind("a head turned aside by 50 degrees", "turned_away", turned(50))
    yield _kind("a face in the dark", "too_dark", one * 0.08)
    yield _kind("all black", "no_face", np.zeros((480, 480, 3), np.uint8))
    yield _kind("a drawing", "drawing", portrait(480, noise=0))
    yield _kind("a face in so much light that its skin is white", "drawing", np.minimum(one * 1.6, 255))
    blurred = cv2.GaussianBlur(one, (0, 0), 9) + np.random.default_rng(0).normal(0, 1.5, one.shape)
    yield _kind("a face out of focus", "not_gradable", np.clip(blurred, 0, 255))
    grey = np.repeat(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    yield _kind("a grey photograph", ANSWERED, grey, ("skin_tone", "skin_type"))
    blue = np.clip(one * [0.5, 0.75, 1.25], 0, 255)
    yield _kind("a face in blue light", ANSWERED, blue, ("skin_tone", "skin_type"))
    small = cv2.resize(one, (200, 200), interpolation=cv2.INTER_AREA)
    yield _kind("a face of 108 pixels", ANSWERED, small, ("texture_quality", "wrinkles"))
    data = pictures.file(one, "jpeg")
    yield FaceKind("a JPEG cut in half", "image_damaged", data[: len(data) // 2])
    yield FaceKind("text named .jpg", "not_an_image", b"This is a selfie, honestly.\n" * 20)
    yield FaceKind("zero bytes", "not_an_image", b"")
    yield FaceKind("a bomb: 400 megapixels in 400 bytes", "image_too_large", pictures.bomb())


def _kind(name: str, want: str, picture: NDArray[np.generic], missing: tuple[str, ...] = ()) -> FaceKind:
    return FaceKind(name, want, pictures.file(picture.astype(np.uint8), "png"), missing)


def _behind(one: Picture, side: int) -> Picture:
    """The face, and beside it another of ``side`` pixels a picture."""
    beside = np.full((len(one), side + 20, 3), 170, np.uint8)
    beside[60 : 60 + side, 10 : 10 + side] = cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(np.hstack([one, beside]))
