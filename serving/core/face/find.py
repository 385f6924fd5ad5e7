"""Find the face in a photograph, and say in a typed way where there is none to measure."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError
from data.provenance import cpu_quota
from serving.core.face.answer import Box, Face, FaceAnswer, Refusal
from serving.core.face.detect import FULL, SHORT, Detection, Detector, distinct, same_face
from serving.core.face.landmarks import (
    Landmarker,
    Mesh,
    Square,
    View,
    across,
    detected_square,
    mesh_square,
    view_of,
)
from serving.core.face.look import face_skin, flatness, gain
from serving.core.face.mesh import CHIN, FOREHEAD
from serving.core.face.models import Pool


@dataclass(frozen=True, slots=True)
class FaceLimits:
    """When a face counts, and when it is refused. docs/face.md says how each was chosen.

    - ``detection``, ``mesh``: least score of a place that may hold a face, and of the mesh that confirms it.
    - ``others``: another face counts from this share of the largest one's side.
    - ``side``: least side of the box in pixels.
    - ``light``: least 90th percentile of the face's grey levels, 0 to 255.
    - ``yaw``, ``pitch``: most degrees turned to a side, and up or down.
    - ``inside``: least share of the landmarks in the picture.
    - ``flat``: most of the skin that may be of one even colour; more is a drawing.
    """

    detection: float = 0.5
    mesh: float = 0.5
    others: float = 0.25
    side: float = 40.0
    light: float = 40.0
    yaw: float = 30.0
    pitch: float = 35.0
    inside: float = 0.9
    flat: float = 0.3


# Of the many places in a crowd, the best are looked at more closely.
_MOST_PLACES = 12
# A place whose first mesh is less sure than this isn't looked at again.
_HOPELESS = 0.1
# Rounds of laying the square anew; each halves about what the first square still does to the landmarks.
_ROUNDS = 3
# The slant from forehead to chin in the mesh of a face that looks straight ahead, in degrees: the median over
# photographs of faces.
_LEVEL_PITCH = 7.0


class FaceFinder:
    """Finds faces. May be called from several threads at once; each call has networks of its own."""

    def __init__(self, limits: FaceLimits | None = None, *, at_once: int | None = None) -> None:
        """``at_once``: calls that may run at the same time (the CPU quota by default); others wait.

        Raises:
            ServingError: the models or LiteRT aren't installed.
            IntegrityError: a model is another file than the one that is known.
        """
        self.limits = limits or FaceLimits()
        self._kits = Pool(_Kit, at_once or cpu_quota())
        with self._kits.take():
            pass  # Loaded now, so that an installation that can't work says so at the start.

    def find(self, rgb: NDArray[np.uint8]) -> FaceAnswer:
        """The one face in ``uint8 [H, W, 3]`` (RGB, upright), or why there is none to answer for.

        Raises:
            RequestError: the array is no such picture.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise RequestError(
                f"A picture is uint8 [H, W, 3], not {rgb.dtype} {list(rgb.shape)}.",
                hint="Decode the file with data.image.decode.",
            )
        with self._kits.take() as kit:
            meshes = kit.meshes(rgb, self.limits)
            dark = not meshes and gain(rgb, self.limits.light)
            if dark:
                meshes = kit.meshes(cv2.convertScaleAbs(rgb, alpha=dark).astype(np.uint8), self.limits)
        faces = tuple(_face(mesh, rgb.shape[0], rgb.shape[1]) for mesh in meshes)
        refusal = Refusal.TOO_DARK if dark and faces else self._judge(rgb, faces)
        return FaceAnswer(None if refusal else faces[0], refusal, faces)

    def _judge(self, rgb: NDArray[np.uint8], faces: tuple[Face, ...]) -> Refusal | None:
        limits = self.limits
        if not faces:
            return Refusal.NO_FACE
        if len(faces) > 1:
            return Refusal.SEVERAL_FACES
        face = faces[0]
        if face.box.side < limits.side:
            return Refusal.TOO_SMALL
        if face.inside < limits.inside:
            return Refusal.CUT_OFF
        if abs(face.yaw) > limits.yaw or abs(face.pitch) > limits.pitch:
            return Refusal.TURNED_AWAY
        skin, mask = face_skin(rgb, face)
        if np.percentile(skin[mask], 90) < limits.light:
            return Refusal.TOO_DARK
        return Refusal.DRAWING if flatness(skin, mask) > limits.flat else None


class _Kit:
    """The three networks, for one call at a time."""

    def __init__(self) -> None:
        self._short, self._full = Detector(SHORT), Detector(FULL)
        self._landmarker = Landmarker()

    def meshes(self, rgb: NDArray[np.uint8], limits: FaceLimits) -> list[Mesh]:
        """The meshes of the faces that count, the largest first."""
        return self._sure(rgb, self._places(rgb, limits.detection), limits) or self._sure(
            rgb, self._closer(rgb, limits.detection), limits
        )

    def _places(self, rgb: NDArray[np.uint8], score: float) -> list[Detection]:
        return [place for form in (self._short, self._full) for place in form.detect(rgb, score)]

    def _closer(self, rgb: NDArray[np.uint8], score: float) -> list[Detection]:
        """Places in overlapping parts of the picture, half its size: faces too small to see in the whole."""
        height, width = rgb.shape[:2]
        side = -(-max(height, width) // 2)
        if side < FULL.side:
            return []
        found = []
        for top in _starts(height, side):
            for left in _starts(width, side):
                part = np.ascontiguousarray(rgb[top : top + side, left : left + side])
                found += [place.moved(left, top) for place in self._full.detect(part, score)]
        return found

    def _sure(self, rgb: NDArray[np.uint8], places: list[Detection], limits: FaceLimits) -> list[Mesh]:
        sure: list[tuple[View, Square, Mesh]] = []
        for place in distinct(places)[:_MOST_PLACES]:
            seen = self._confirm(rgb, detected_square(place), limits.mesh)
            if seen and not any(
                same_face(seen[2].low, seen[2].high, other.low, other.high) for _, _, other in sure
            ):
                sure.append(seen)
        largest = max((mesh_side(mesh) for _, _, mesh in sure), default=0.0)
        counting = [item for item in sure if mesh_side(item[2]) >= limits.others * largest]
        return sorted((self._settle(*item) for item in counting), key=lambda mesh: -mesh_side(mesh))

    def _confirm(
        self, rgb: NDArray[np.uint8], square: Square, least: float
    ) -> tuple[View, Square, Mesh] | None:
        """A place's mesh, if a second look from the mesh's own square still sees a face."""
        first = self._landmarker.mesh(view_of(rgb, square), square)
        if first.score < _HOPELESS:
            return None
        square = mesh_square(first.points)
        view = view_of(rgb, square)
        second = self._landmarker.mesh(view, square)
        return (view, square, second) if second.score >= least else None

    def _settle(self, view: View, square: Square, mesh: Mesh) -> Mesh:
        """The mesh after some rounds of laying the square anew."""
        for _ in range(_ROUNDS):
            mesh = self._landmarker.both(view, mesh_square(mesh.points))
        return mesh


def _starts(length: int, side: int) -> list[int]:
    """Where parts of ``side`` begin along ``length``: each overlaps the next by half."""
    if length <= side:
        return [0]
    count = -(-2 * (length - side) // side) + 1
    return [round(place) for place in np.linspace(0, length - side, count)]


def mesh_side(mesh: Mesh) -> float:
    """The longer side of the box around the landmarks."""
    return float((mesh.high - mesh.low).max())


def _face(mesh: Mesh, height: int, width: int) -> Face:
    (left, top), (right, bottom) = mesh.low, mesh.high
    solid = np.column_stack([mesh.points, mesh.depth])
    aside = across(solid)
    down = solid[CHIN] - solid[FOREHEAD]
    inside = ((mesh.points >= 0) & (mesh.points <= [width, height])).all(axis=1)
    mesh.points.setflags(write=False)
    mesh.depth.setflags(write=False)
    return Face(
        box=Box(float(left), float(top), float(right - left), float(bottom - top)),
        rotation=_degrees(aside[1], aside[0]),
        yaw=_degrees(aside[2], np.hypot(aside[0], aside[1])),
        pitch=_degrees(down[2], np.hypot(down[0], down[1])) - _LEVEL_PITCH,
        landmarks=mesh.points,
        depth=mesh.depth,
        score=mesh.score,
        inside=float(inside.mean()),
    )


def _degrees(rise: float, run: float) -> float:
    return float(np.degrees(np.arctan2(rise, run)))


_ONE = threading.Lock()


@cache
def _default() -> FaceFinder:
    return FaceFinder()


def find_face(rgb: NDArray[np.uint8]) -> FaceAnswer:
    """``FaceFinder.find`` with the usual limits; the networks are loaded by the first call of a process."""
    with _ONE:
        finder = _default()
    return finder.find(rgb)
