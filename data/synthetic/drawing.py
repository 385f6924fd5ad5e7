"""What to draw and how it becomes a file: a plan of drawings, each drawn alone, in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from data.synthetic.face import draw_face
from data.synthetic.fundus import CAMERAS, draw_fundus
from data.synthetic.looks import CONDITIONS, VIEWS, Look, look_of
from data.synthetic.skin import CODES, draw_lesion

SUBJECTS = ("fundus", "lesion", "face")
_GRADES = ("0", "1", "2", "3", "4")
#: A patient's two eyes, one lesion or person photographed twice: so many of the groups have two images.
_PAIRED = 0.25


@dataclass(frozen=True, slots=True)
class Drawing:
    """One image to draw; ``key`` seeds it.

    ``label`` is a grade ``0`` to ``4``, one of HAM10000's codes or a face's condition; ``view`` how a face is
    photographed, and empty for the others.
    """

    name: str
    subject: str
    label: str
    group: str
    key: int
    size: int
    camera: str
    format: str = "jpeg"
    view: str = ""

    @property
    def look(self) -> Look:
        """The person, the same in both photographs of one."""
        return look_of(_number(self.group), self.label)

    def shows(self, trait: str) -> str | None:
        """A face's ``condition``, ``skin_type`` or ``hair_type``, or None where the view doesn't show it.

        A patch of skin shows no hair, and not where the face shines.
        """
        if trait == "condition":
            return self.label
        shown = {"portrait": ("skin_type", "hair_type"), "close": ("skin_type",)}.get(self.view, ())
        return str(getattr(self.look, trait)) if trait in shown else None

    @property
    def grade(self) -> int:
        """The label's index."""
        return classes(self.subject).index(self.label)


def classes(subject: str) -> tuple[str, ...]:
    """The labels of a subject, in order."""
    if subject not in SUBJECTS:
        raise UsageError(f"There is no {subject!r} to draw.", hint=f"There are {', '.join(SUBJECTS)}.")
    return {"fundus": _GRADES, "lesion": CODES, "face": CONDITIONS}[subject]


def plan(
    subject: str,
    n: int,
    *,
    seed: int = 0,
    size: int = 256,
    format: str = "jpeg",
    labels: Sequence[str] = (),
    views: Sequence[str] = VIEWS,
) -> tuple[Drawing, ...]:
    """``n`` drawings with the classes in equal parts; some groups (patients, lesions, people) have two.

    ``labels`` are dealt in turn instead of the subject's classes; ``views`` are a face's, alike often.
    """
    labels = labels or classes(subject)
    rng = np.random.default_rng([seed, _number(subject)])
    drawings: list[Drawing] = []
    group = 0
    turn = 0
    while len(drawings) < n:
        label = labels[turn % len(labels)]
        pair = 2 if rng.random() < _PAIRED and len(drawings) + 1 < n else 1
        camera = int(rng.integers(len(CAMERAS)))
        for image in range(pair):
            key = _number(f"{subject}/{seed}/{group}/{image}")
            name = f"synthetic_{subject}_{seed}_{group:05d}_{image}"
            drawings.append(
                Drawing(
                    name,
                    subject,
                    label,
                    f"synthetic_{subject}_{seed}_{group:05d}",
                    key,
                    size,
                    CAMERAS[camera].name,
                    format,
                    views[key % len(views)] if subject == "face" else "",
                )
            )
        group += 1
        turn += 1
    return tuple(drawings)


def pixels(drawing: Drawing) -> NDArray[np.uint8]:
    """The image ``uint8 [size, size, 3]``, RGB."""
    rng = np.random.default_rng(drawing.key)
    camera = next(index for index, taken in enumerate(CAMERAS) if taken.name == drawing.camera)
    if drawing.subject == "fundus":
        side = 1 if (drawing.key >> 3) & 1 else -1
        return draw_fundus(rng, drawing.grade, drawing.size, camera, side)
    if drawing.subject == "face":
        return draw_face(rng, drawing.look, drawing.view, drawing.size, camera)
    return draw_lesion(rng, drawing.label, drawing.size, camera)


def draw(drawing: Drawing) -> bytes:
    """The image as a JPEG (quality 92) or PNG file, without any metadata."""
    picture = cv2.cvtColor(pixels(drawing), cv2.COLOR_RGB2BGR)
    if drawing.format == "png":
        return bytes(cv2.imencode(".png", picture)[1])
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
