"""What is said about the face in one photograph: two models and classical measures (contract S3)."""

from serving.scan.analyze import analyze_face, conclude, encode_face, see_face
from serving.scan.answer import ACNE, CONDITION, FaceScan, ScanFailure, Seen
from serving.scan.models import BundleModels, FaceModels

__all__ = [
    "ACNE",
    "CONDITION",
    "BundleModels",
    "FaceModels",
    "FaceScan",
    "ScanFailure",
    "Seen",
    "analyze_face",
    "conclude",
    "encode_face",
    "see_face",
]
