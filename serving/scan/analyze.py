"""``analyze_face``: from a photograph to S3's result. In parts, so that a server can ask models its own way.

::

    data ──see_face──► Seen: face, measures, pixels ──models.ask──► two ModelReply ──conclude──► FaceScan
             └► ScanFailure: no face, several, …                        └► ScanFailure: not gradable
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import NotGradable, ServingError
from data.image import DecodeLimits, decode, read_header
from data.preprocess import MEASURE_SIDE, resize
from serving.core.face import Face, FaceFinder, crop_face, find_face
from serving.core.measures import measure_face
from serving.replies import ModelReply
from serving.scan.answer import ACNE, CONDITION, NOT_GRADABLE, FaceScan, ScanFailure, Seen
from serving.scan.models import FaceModels

#: The longer side that a photograph is looked at with. A face is measured at 256 pixels, so that a selfie
#: loses nothing by it; a phone's 4,000 take several times as long.
SIDE = 1280


def analyze_face(
    data: bytes,
    models: FaceModels,
    *,
    finder: FaceFinder | None = None,
    limits: DecodeLimits | None = None,
) -> FaceScan | ScanFailure:
    """Everything that S3 says about the face in an encoded photograph; ``to_dict`` is its ``result``.

    Pure: nothing is stored or logged. May be called from several threads at once.

    Raises:
        ImageError: the photograph can't be decoded.
        ServingError: a model is away.
    """
    seen = see_face(data, finder=finder, limits=limits)
    if isinstance(seen, ScanFailure):
        return seen
    return conclude(seen, models.ask(ACNE.task, seen.pixels), models.ask(CONDITION.task, seen.pixels))


def see_face(
    data: bytes, *, finder: FaceFinder | None = None, limits: DecodeLimits | None = None
) -> Seen | ScanFailure:
    """Find the one face, measure its skin, and cut out what the models are shown.

    Raises:
        ImageError: the photograph can't be decoded.
    """
    rgb, scale = look_at(data, limits)
    answer = finder.find(rgb) if finder is not None else find_face(rgb)
    if answer.refusal is not None:
        return ScanFailure.of(answer.refusal)
    face = answer.face
    if face is None:
        raise ServingError("The face finder gave neither a face nor a reason.")
    return Seen(face, measure_face(rgb, face), face_pixels(rgb, face), scale)


def conclude(seen: Seen, acne: ModelReply | None, condition: ModelReply | None) -> FaceScan | ScanFailure:
    """The result, if every model that there is could answer.

    Raises:
        ServingError: a reply isn't of the head and classes that S3 asks for.
    """
    try:
        for reply, asked in ((acne, ACNE), (condition, CONDITION)):
            if reply is not None:
                reply.head(asked.head, asked.classes)
    except NotGradable as error:
        return ScanFailure(NOT_GRADABLE, str(error), error.reasons)
    return FaceScan(seen, acne, condition)


def look_at(data: bytes, limits: DecodeLimits | None = None) -> tuple[NDArray[np.uint8], float]:
    """The upright picture ``uint8 [H, W, 3]``, its longer side ``SIDE`` at most; and by what it was reduced.

    Raises:
        ImageError: it can't be decoded.
    """
    header = read_header(data, limits)
    longer, shorter = max(header.width, header.height), min(header.width, header.height)
    rgb = decode(data, limits, min_side=math.ceil(shorter * min(1.0, SIDE / longer)))
    height, width = rgb.shape[:2]
    factor = SIDE / max(height, width)
    if factor < 1:
        rgb = resize(rgb, (max(1, round(height * factor)), max(1, round(width * factor))))
    return rgb, longer / max(rgb.shape[:2])


def face_pixels(rgb: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    """The face's square as the models are shown it, at most as large as any model or quality gate needs."""
    pixels = crop_face(rgb, face)
    return resize(pixels, (MEASURE_SIDE, MEASURE_SIDE)) if len(pixels) > MEASURE_SIDE else pixels


def encode_face(pixels: NDArray[np.uint8]) -> bytes:
    """The face as a PNG for a model elsewhere, which then sees the same pixels and gives the same answer."""
    written, png = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not written:
        raise ServingError("The face couldn't be written as PNG.")
    return png.tobytes()
