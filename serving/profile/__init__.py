"""Skin type, hair type and condition of one photograph (contract S1), as a Python call."""

from serving.profile.analyze import Profiler, analyze_image
from serving.profile.document import HEADS, TASK, profile_document

__all__ = ["HEADS", "TASK", "Profiler", "analyze_image", "profile_document"]
