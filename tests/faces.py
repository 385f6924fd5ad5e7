"""Faces whose every measure is known: a mean face's landmarks, put anywhere, and skin painted to order."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.face.answer import Box, Face, draw
from serving.core.face.mesh import LEFT_HALF, RIGHT_HALF, corners

Points = NDArray[np.float64]
Picture = NDArray[np.uint8]
Lab = tuple[float, float, float]


@cache
def mean_mesh() -> Points:
    """The mean of the mesh over photographs ``[468, 3]``: centred, with the eyes 1 apart.

    The file has the right half and the middle line; the left half mirrors the right one.
    """
    half = json.loads((Path(__file__).parent / "mesh.json").read_text())
    points = np.zeros((468, 3))
    points[:248] = half
    points[LEFT_HALF] = points[RIGHT_HALF] * [-1, 1, 1]
    return points


def face_at(x: float, y: float, eyes: float, angle: float = 0.0) -> Face:
    """The mean face around a point, with the eyes ``eyes`` pixels apart, turned by ``angle`` degrees."""
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mesh = mean_mesh() * eyes
    points = mesh[:, :2] @ matrix.T + [x, y]
    low, high = points.min(axis=0), points.max(axis=0)
    return Face(
        box=Box(*(float(value) for value in (*low, *(high - low)))),
        rotation=angle,
        yaw=0.0,
        pitch=0.0,
        landmarks=points,
        depth=mesh[:, 2],
        score=1.0,
        inside=1.0,
    )


def to_rgb(lab: NDArray[np.float32]) -> Picture:
    """CIELAB ``[..., 3]`` as sRGB."""
    rgb = cv2.cvtColor(np.asarray(lab, np.float32), cv2.COLOR_Lab2RGB)
    return np.clip(np.round(rgb * 255), 0, 255).astype(np.uint8)


def skin(size: int, lab: Lab) -> NDArray[np.float32]:
    """Even skin all over, ``float32 [size, size, 3]`` in CIELAB."""
    return np.full((size, size, 3), lab, np.float32)


def region(face: Face, name: str, size: int) -> NDArray[np.bool_]:
    """A region's pixels, a little beyond its edge, so that the edge isn't measured."""
    return cv2.dilate(face.mask(name, size, size), np.ones((9, 9), np.uint8)) > 0


def portrait(size: int = 480, *, noise: float = 4.0, seed: int = 0) -> Picture:
    """A drawn face, shaded and with a camera's noise, that the detector takes for a photograph of one."""
    rng = np.random.default_rng(seed)
    face = face_at(size / 2, size / 2, size / 5)
    points = face.landmarks
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = (168, 176, 180)
    head = np.zeros((size, size), np.uint8)
    cv2.ellipse(head, (size // 2, int(0.47 * size)), (int(0.24 * size), int(0.33 * size)), 0, 0, 360, 255, -1)
    shade = (1.06 - 0.5 * (x - 0.46) ** 2 * 8 - (y - 0.5) ** 2)[..., None]
    picture = np.where(head[..., None] > 0, np.float32((224, 172, 140)) * shade, picture).astype(np.float32)

    def fill(indices: tuple[int, ...], colour: tuple[int, int, int]) -> None:
        mask = draw(np.zeros((size, size), np.uint8), corners(points, tuple((i,) for i in indices)))
        picture[mask > 0] = colour

    for side in (0, 1):
        lookup = np.arange(468)
        if side:
            lookup[RIGHT_HALF] = LEFT_HALF
        eye = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
        fill(tuple(int(lookup[i]) for i in eye), (240, 238, 235))
        pupil = points[lookup[[33, 133]]].mean(axis=0)
        cv2.circle(picture, tuple(int(v) for v in pupil), size // 45, (60, 40, 25), -1)
        brow = points[lookup[[70, 63, 105, 66, 107]]].astype(np.int32)
        cv2.polylines(picture, [brow], False, (80, 55, 40), size // 40)
    nose = points[[98, 2, 327]].astype(np.int32)
    cv2.polylines(picture, [nose], False, (170, 115, 90), size // 90)
    fill((0, 37, 39, 40, 61, 91, 181, 17, 405, 321, 291, 270, 269, 267), (180, 80, 85))
    picture = cv2.GaussianBlur(picture, (0, 0), size / 320)
    return np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8)


def turned(degrees: float, size: int = 480, *, seed: int = 0) -> Picture:
    """The drawn face on a head that is turned by so much towards the picture's right, seen by a camera.

    The mean mesh in three dimensions with ``portrait`` as its skin, lit from the camera; triangle by
    triangle, the furthest first.
    """
    skin_of = portrait(size, noise=0)
    mesh = mean_mesh() * (size / 5)
    flat = (mesh[:, :2] + size / 2).astype(np.float32)
    turn = -np.radians(degrees)
    solid = np.column_stack(
        [
            mesh[:, 0] * np.cos(turn) + mesh[:, 2] * np.sin(turn) + size / 2,
            flat[:, 1],
            mesh[:, 2] * np.cos(turn) - mesh[:, 0] * np.sin(turn),
        ]
    )
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = (168, 176, 180)
    back = (round(size / 2 + np.sin(turn) * 0.18 * size), round(0.46 * size))
    cv2.ellipse(picture, back, (round(0.27 * size), round(0.34 * size)), 0, 0, 360, (70, 50, 40), -1)
    for triangle in sorted(_triangles(size), key=lambda corners: -solid[list(corners), 2].mean()):
        before, after = flat[list(triangle)], solid[list(triangle)]
        across = np.cross(after[1] - after[0], after[2] - after[0])
        first, second = before[1] - before[0], before[2] - before[0]
        if across[2] * (first[0] * second[1] - first[1] * second[0]) <= 0:  # seen from behind
            continue
        place = after[:, :2].astype(np.float32)
        moved = cv2.warpAffine(skin_of, cv2.getAffineTransform(before, place), (size, size))
        mask = np.zeros((size, size), np.uint8)
        cv2.fillConvexPoly(mask, np.round(place * 16).astype(np.int32), 255, cv2.LINE_8, 4)
        picture[mask > 0] = moved[mask > 0] * (0.55 + 0.45 * abs(across[2]) / np.linalg.norm(across))
    picture = cv2.GaussianBlur(picture, (0, 0), size / 320)
    noise = np.random.default_rng(seed).normal(0, 4, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


@cache
def _triangles(size: int) -> tuple[tuple[int, int, int], ...]:
    """The landmarks of the mean face from the front, joined to triangles."""
    flat = (mean_mesh()[:, :2] * (size / 5) + size / 2).astype(np.float32)
    plane = cv2.Subdiv2D((0, 0, size, size))
    plane.insert([(float(x), float(y)) for x, y in flat])
    found = []
    for corners_of in plane.getTriangleList().reshape(-1, 3, 2):
        apart = np.hypot(*(flat - corners_of[:, None]).transpose(2, 0, 1))
        # The plane's own corners lie far outside, and are no landmarks.
        if apart.min(axis=1).max() < 0.01:
            one, two, three = (int(index) for index in apart.argmin(axis=1))
            found.append((one, two, three))
    return tuple(found)
