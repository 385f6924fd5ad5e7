"""What is said about the face in a photograph: a face, or a typed reason why there is none to measure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.face.mesh import LEFT_EYE, NOT_SKIN, OUTLINES, OVAL, RIGHT_EYE, corners

Points = NDArray[np.float64]
_SHIFT = 4  # OpenCV's sub-pixel drawing: coordinates in sixteenths


class Refusal(StrEnum):
    """Why no face is answered for. The values are stable and for machines; ``message`` is for people."""

    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    TURNED_AWAY = "turned_away"
    CUT_OFF = "cut_off"
    DRAWING = "drawing"

    @property
    def message(self) -> str:
        """One sentence that says what to do about it."""
        return _MESSAGES[self]


_MESSAGES = {
    Refusal.NO_FACE: "There is no face in the photograph. Photograph one face from the front.",
    Refusal.SEVERAL_FACES: "There is more than one face in the photograph. Photograph one person alone.",
    Refusal.TOO_SMALL: "The face is too small. Come closer, or send the photograph at its full size.",
    Refusal.TOO_DARK: "The face is too dark. Photograph it in daylight or with more light.",
    Refusal.TURNED_AWAY: "The face is turned away. Look straight into the camera.",
    Refusal.CUT_OFF: "The frame cuts the face off. Have the whole face in the picture.",
    Refusal.DRAWING: "The face has no shades: it is a drawing, or overexposed. Photograph it in soft light.",
}


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle in pixels. It may reach beyond the picture where a face does."""

    left: float
    top: float
    width: float
    height: float

    @property
    def side(self) -> float:
        """The longer of the two sides."""
        return max(self.width, self.height)

    def to_dict(self) -> dict[str, float]:
        """Rounded to a tenth of a pixel."""
        return {name: round(float(getattr(self, name)), 1) for name in ("left", "top", "width", "height")}


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face. Coordinates are pixels of the picture; (0, 0) is its upper left corner, not a pixel's centre.

    - ``landmarks``: ``[468, 2]``, read-only; ``depth``: ``[468]``, in the same unit, smaller is nearer.
    - ``box``: around the landmarks. ``score``: how sure the mesh is that it lies on a face, 0 to 1.
    - ``rotation``: degrees by which the face is turned in the picture's plane, clockwise.
    - ``yaw``: degrees by which it is turned towards the picture's right; ``pitch``: towards the ground. Both
      are estimates from the mesh's depth.
    - ``inside``: the share of the landmarks that lie in the picture.
    """

    box: Box
    rotation: float
    yaw: float
    pitch: float
    landmarks: Points
    depth: Points
    score: float
    inside: float

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes' centres."""
        right, left = (self.landmarks[list(eye)].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE))
        return float(np.hypot(*(left - right)))

    @property
    def regions(self) -> dict[str, Points]:
        """The outlines ``[N, 2]`` by name: forehead, nose, chin, and each side's cheek and under-eye."""
        return {name: corners(self.landmarks, outline) for name, outline in OUTLINES.items()}

    def mask(
        self, name: str, height: int, width: int, *, shift: tuple[float, float] = (0, 0)
    ) -> NDArray[np.uint8]:
        """A region's pixels as 255 in ``uint8 [height, width]``, a part of the picture from ``shift`` on.

        ``skin`` is the whole face without eyes, brows and lips.
        """
        points = self.landmarks - np.asarray(shift)
        mask = np.zeros((height, width), np.uint8)
        if name != "skin":
            return draw(mask, corners(points, OUTLINES[name]))
        draw(mask, corners(points, OVAL))
        for outline in NOT_SKIN:
            draw(mask, corners(points, outline), 0)
        return mask

    def square(self, margin: float = 0.15) -> tuple[int, int, int]:
        """The square around the face, ``(left, top, side)`` in whole pixels.

        ``margin`` is what it leaves free on each side, as a share of the face's size.
        """
        side = round(self.box.side * (1 + 2 * margin))
        left = round(self.box.left + (self.box.width - side) / 2)
        return left, round(self.box.top + (self.box.height - side) / 2), side

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all but the landmarks, which are many."""
        return {
            "box": self.box.to_dict(),
            "rotation": round(self.rotation, 1),
            "yaw": round(self.yaw, 1),
            "pitch": round(self.pitch, 1),
            "score": round(self.score, 4),
            "eye_distance": round(self.eye_distance, 1),
            "inside": round(self.inside, 4),
        }


@dataclass(frozen=True, slots=True, eq=False)
class FaceAnswer:
    """Either ``face``, or ``refusal`` and what was seen all the same: ``faces``, the largest first."""

    face: Face | None
    refusal: Refusal | None
    faces: tuple[Face, ...] = ()

    @property
    def found(self) -> bool:
        """Whether a face was seen at all, be it answered for or refused."""
        return bool(self.faces)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "face": self.face.to_dict() if self.face else None,
            "refusal": {"code": str(self.refusal), "message": self.refusal.message} if self.refusal else None,
            "faces": [face.to_dict() for face in self.faces],
        }


def crop_face(rgb: NDArray[np.uint8], face: Face, margin: float = 0.15) -> NDArray[np.uint8]:
    """The face's square ``uint8 [S, S, 3]`` out of its picture, for a model of faces; see ``Face.square``.

    Where the square leaves the picture, the picture's edge goes on.
    """
    left, top, side = face.square(margin)
    height, width = rgb.shape[:2]
    right, bottom = left + side, top + side
    inside = rgb[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    beyond = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    if not any(beyond):
        return np.ascontiguousarray(inside)
    return np.asarray(cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE), np.uint8)


def draw(mask: NDArray[np.uint8], outline: Points, value: int = 255) -> NDArray[np.uint8]:
    """Fill a closed outline ``[N, 2]`` in place."""
    # A pixel's centre is half a pixel from its corner, where our coordinates begin. What lies far outside is
    # held near, since OpenCV's coordinates are 32-bit.
    points = np.clip((outline - 0.5) * (1 << _SHIFT), -(2**28), 2**28)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], value, cv2.LINE_8, _SHIFT)
    return mask
