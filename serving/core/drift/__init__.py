"""Drift: whether what comes in, what goes out and what labels say still is what a model was made for.

Pure NumPy, so that gateway and training share it. ``docs/drift.md`` has the method and what it was tried on.
"""

from serving.core.drift.folder import WindowInfo, read_window, write_window
from serving.core.drift.judge import judge
from serving.core.drift.reference import NEIGHBOURS, Reference
from serving.core.drift.report import SEVERITIES, DriftReport, Finding
from serving.core.drift.settings import Settings
from serving.core.drift.window import Window

__all__ = [
    "NEIGHBOURS",
    "SEVERITIES",
    "DriftReport",
    "Finding",
    "Reference",
    "Settings",
    "Window",
    "WindowInfo",
    "judge",
    "read_window",
    "write_window",
]
