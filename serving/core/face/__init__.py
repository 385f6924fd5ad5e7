"""Faces: detection, 468 landmarks, regions, and a typed answer where there is no face to measure."""

from serving.core.face.answer import Box, Face, FaceAnswer, Refusal, crop_face
from serving.core.face.find import FaceFinder, FaceLimits, find_face

__all__ = ["Box", "Face", "FaceAnswer", "FaceFinder", "FaceLimits", "Refusal", "crop_face", "find_face"]
