"""Both locks name a hash for every file, no host, and agree with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ENTRY = re.compile(
    r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? \\$", re.IGNORECASE
)
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def entries(lock: Path) -> dict[tuple[str, str], frozenset[str]]:
    """Name and version to hashes. A version may differ by Python or platform, so a name may come twice."""
    found: dict[tuple[str, str], set[str]] = {}
    current: set[str] = set()
    for line in lock.read_text().splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if match := ENTRY.match(line):
            current = found.setdefault((match["name"].lower(), match["version"]), set())
            continue
        assert HASH.match(line), f"{lock.name}: {line!r} is neither an entry nor a hash"
        current.add(line.split("sha256:")[1].split()[0])
    return {key: frozenset(hashes) for key, hashes in found.items()}


@pytest.mark.parametrize("name", ["requirements.lock", "serving.lock"])
def test_every_entry_has_hashes_and_nothing_names_a_host(name: str, repository: Path) -> None:
    text = (repository / name).read_text()
    packages = entries(repository / name)
    assert len(packages) > 50
    assert all(packages.values()), [key for key, hashes in packages.items() if not hashes]
    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host", text)
    # A file or a repository in a lock is a host or a machine, too.
    assert not re.search(r"^\S+ @ ", text, re.MULTILINE)


def test_the_serving_lock_is_cut_from_the_whole_one(repository: Path) -> None:
    whole = entries(repository / "requirements.lock")
    serving = entries(repository / "serving.lock")
    assert serving.keys() <= whole.keys(), sorted(serving.keys() - whole.keys())
    for package, hashes in serving.items():
        assert hashes == whole[package], package


def test_the_serving_lock_has_what_serves_and_nothing_that_trains(repository: Path) -> None:
    names = {name for name, _ in entries(repository / "serving.lock")}
    assert names >= {
        "kserve",
        "onnxruntime",
        "opencv-python-headless",
        "faiss-cpu",
        "prometheus-client",
        "typer",
    }
    assert not names & {
        "torch",
        "torchvision",
        "timm",
        "kfp",
        "mlflow",
        "mlflow-skinny",
        "great-expectations",
    }
    assert not [name for name in names if name.startswith(("nvidia-", "kfp-"))]


def test_the_whole_lock_brings_its_own_installer(repository: Path) -> None:
    # `make setup` and the pipelines image take these two by their entries here, before everything else.
    names = {name for name, _ in entries(repository / "requirements.lock")}
    assert names >= {"uv", "setuptools"}
