"""The one preprocessing: what turns a photograph into a model's input, in training and in serving alike.

Field-of-view crop, fit, resize, CLAHE, in this order; ``uint8`` RGB in and out. Scaling and normalisation
belong to the model's graph. A bundle's card holds the parameters and their digest, and a predictor refuses
pixels that another digest made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from data.field import Field, find_field
from data.files import digest_json
from data.image import DecodeLimits, decode

Crop = Literal["none", "fundus"]
Fit = Literal["stretch", "letterbox", "center"]

# Raise this with every change that moves a pixel, in this file, ``field.py`` or ``image.py``: the digest
# includes it, so that a model never meets pixels that another implementation made. A test holds the pixels
# against the number.
IMPLEMENTATION_VERSION = 1

# Every decode keeps at least this shorter side, so that quality is measured on the same pixels whatever the
# model's size.
MEASURE_SIDE = 448

# ``center`` scales and then cuts. Of a strip a pixel high (a file of 100 bytes) that would make gigabytes to
# throw away: where the scaled picture is more than this many times the result, the cut comes first. Every
# picture less drawn out than that keeps the pixels that it always had, so this raised no version.
MOST_SCALED = 4


@dataclass(frozen=True, slots=True)
class Clahe:
    """Contrast-limited adaptive histogram equalisation of the lightness, ``tiles`` × ``tiles``."""

    clip_limit: float = 2.0
    tiles: int = 8

    def __post_init__(self) -> None:
        try:
            clip_limit = float(self.clip_limit)
        except (TypeError, ValueError):
            clip_limit = 0.0
        if not 0 < clip_limit <= 100:
            raise UsageError(f"CLAHE clip_limit {self.clip_limit!r} is not a number up to 100.")
        if not isinstance(self.tiles, int) or not 1 <= self.tiles <= 64:
            raise UsageError(f"CLAHE tiles {self.tiles!r} is not a whole number from 1 to 64.")
        # 2 and 2.0 are one setting and must have one digest.
        object.__setattr__(self, "clip_limit", clip_limit)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The parameters. Call it on an image: ``preprocessing(rgb) -> uint8 [H, W, 3]``.

    - ``size``: (height, width) of the result.
    - ``crop``: ``fundus`` cuts to the bounding square of the field of view, padding with black where the
      square is larger than the photograph; an image without a dark surround is left whole.
    - ``fit``: ``stretch`` to the size; ``letterbox`` keeps the shape and pads with black; ``center`` keeps
      the shape and cuts what is over.
    - ``clahe``: after the resize (an eighth of the time of before it), or None.
    """

    size: tuple[int, int] = (224, 224)
    crop: Crop = "none"
    fit: Fit = "stretch"
    clahe: Clahe | None = None

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(isinstance(n, int) and 8 <= n <= 4096 for n in self.size):
            raise UsageError(f"Preprocessing size {self.size!r} is not two whole numbers from 8 to 4096.")
        if self.crop not in get_args(Crop):
            raise UsageError(f"Preprocessing crop {self.crop!r} is not one of {', '.join(get_args(Crop))}.")
        if self.fit not in get_args(Fit):
            raise UsageError(f"Preprocessing fit {self.fit!r} is not one of {', '.join(get_args(Fit))}.")

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` over the parameters and the implementation's version."""
        return digest_json({"parameters": self.to_dict(), "implementation": IMPLEMENTATION_VERSION})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a card."""
        return {**asdict(self), "size": list(self.size)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of ``to_dict``; missing keys take their defaults, unknown ones raise ``UsageError``."""
        _known(cls, values)
        taken = dict(values)
        if "size" in taken:
            size = taken["size"]
            taken["size"] = (size, size) if isinstance(size, int) else tuple(size)
        clahe = taken.get("clahe")
        if isinstance(clahe, Mapping):
            _known(Clahe, clahe)
            taken["clahe"] = Clahe(**clahe)
        elif not (clahe is None or isinstance(clahe, Clahe)):
            raise UsageError(f"Preprocessing clahe {clahe!r} is not a mapping of clip_limit and tiles.")
        return cls(**taken)

    @property
    def min_side(self) -> int:
        """The shorter side that a decode keeps; a field of view may fill only half of the frame."""
        return max(MEASURE_SIDE, max(self.size) * (2 if self.crop == "fundus" else 1))

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> NDArray[np.uint8]:
        """Decode as this preprocessing allows: a JPEG no larger than is of use. Raises as ``data.image``."""
        return decode(data, limits, min_side=self.min_side)

    def __call__(self, rgb: NDArray[np.uint8], *, field: Field | None = None) -> NDArray[np.uint8]:
        """Preprocess an RGB image ``[H, W, 3]``. ``field`` saves the search where it is already known."""
        if self.crop == "fundus":
            rgb = crop_square(rgb, field or find_field(rgb))
        rgb = _fit(rgb, self.size, self.fit)
        return equalise(rgb, self.clahe) if self.clahe else rgb


def crop_square(rgb: NDArray[np.uint8], field: Field) -> NDArray[np.uint8]:
    """The field's bounding square, black beyond the image's edge; the whole image where none was found."""
    if not field.found:
        return rgb
    side = field.side
    inside = rgb[field.top : field.bottom, field.left : field.right]
    height, width = inside.shape[:2]
    if height == width:
        return inside
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = inside
    return square


def equalise(rgb: NDArray[np.uint8], clahe: Clahe) -> NDArray[np.uint8]:
    """CLAHE on the lightness of LAB; the colours keep their tone."""
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    # A new object each time: one holds buffers, and threads share this code.
    lightness = cv2.createCLAHE(clahe.clip_limit, (clahe.tiles, clahe.tiles)).apply(
        cv2.extractChannel(lab, 0)
    )
    cv2.insertChannel(lightness, lab, 0)
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(np.uint8, copy=False)


def _fit(rgb: NDArray[np.uint8], size: tuple[int, int], fit: Fit) -> NDArray[np.uint8]:
    if fit == "stretch":
        return resize(rgb, size)
    height, width = rgb.shape[:2]
    to_height, to_width = size
    ratios = (to_height / height, to_width / width)
    scale = min(ratios) if fit == "letterbox" else max(ratios)
    new = (max(1, round(height * scale)), max(1, round(width * scale)))
    if fit == "center" and new[0] * new[1] > MOST_SCALED * to_height * to_width:
        return resize(_middle(rgb, round(to_height / scale), round(to_width / scale)), size)
    resized = resize(rgb, new)
    if fit == "letterbox":
        canvas = np.zeros((to_height, to_width, 3), np.uint8)
        top, left = (to_height - new[0]) // 2, (to_width - new[1]) // 2
        canvas[top : top + new[0], left : left + new[1]] = resized
        return canvas
    top, left = (new[0] - to_height) // 2, (new[1] - to_width) // 2
    return np.ascontiguousarray(resized[top : top + to_height, left : left + to_width])


def _middle(rgb: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """The middle ``rows`` × ``columns`` of an image, at least a pixel and at most all of it."""
    height, width = rgb.shape[:2]
    rows, columns = min(max(1, rows), height), min(max(1, columns), width)
    top, left = (height - rows) // 2, (width - columns) // 2
    return rgb[top : top + rows, left : left + columns]


def resize(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize to (height, width): area averaging down, so that nothing aliases, and linear up."""
    height, width = rgb.shape[:2]
    if (height, width) == size:
        return np.ascontiguousarray(rgb)
    down = size[0] <= height and size[1] <= width
    method = cv2.INTER_AREA if down else cv2.INTER_LINEAR
    return cv2.resize(rgb, size[::-1], interpolation=method).astype(np.uint8, copy=False)


def _known(cls: type[Any], values: Mapping[str, Any]) -> None:
    names = [field.name for field in fields(cls)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise UsageError(
            f"{cls.__name__} has no setting {', '.join(map(repr, unknown))}.",
            hint=f"It has {', '.join(names)}.",
        )
