"""Where a version's files lie among its run's artifacts.

A version is a folder, ``versions/<digest[:12]>/``: ``bundle/`` (what serves), ``predictions/test.npz`` (what
it said about the test images: the gate compares with it later), ``evaluation.json``, ``gate.json`` and
pictures under ``report/``. The digest in the path keeps a run's second bundle from overwriting its first.
"""

from __future__ import annotations

BUNDLE = "bundle"
PREDICTIONS = "predictions/test.npz"
EVALUATION = "evaluation.json"
GATE = "gate.json"
REPORT = "report"


def place_of(digest: str, name: str) -> str:
    """Where a version keeps ``name``, by its bundle's digest."""
    return f"versions/{digest.removeprefix('sha256:')[:12]}/{name}"
