"""The locks name a hash for every file, no host, and agree with each other."""

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


@pytest.mark.parametrize("name", ["requirements.lock", "serving.lock", "gateway.lock"])
def test_every_entry_has_hashes_and_nothing_names_a_host(name: str, repository: Path) -> None:
    text = (repository / name).read_text()
    packages = entries(repository / name)
    assert len(packages) > 50
    assert all(packages.values()), [key for key, hashes in packages.items() if not hashes]
    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host", text)
    # A file or a repository in a lock is a host or a machine, too.
    assert not re.search(r"^\S+ @ ", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["serving.lock", "gateway.lock"])
def test_a_small_lock_is_cut_from_the_whole_one(name: str, repository: Path) -> None:
    whole = entries(repository / "requirements.lock")
    small = entries(repository / name)
    assert small.keys() <= whole.keys(), sorted(small.keys() - whole.keys())
    for package, hashes in small.items():
        assert hashes == whole[package], package


SERVES = {"kserve", "onnxruntime", "opencv-python-headless", "faiss-cpu", "prometheus-client", "typer"}
ANSWERS = {
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "alembic",
    "psycopg2-binary",
    "boto3",
    "dbos",
    "limits",
    "typer",
}


@pytest.mark.parametrize(("lock", "needed"), [("serving.lock", SERVES), ("gateway.lock", ANSWERS)])
def test_a_small_lock_has_what_it_is_for_and_nothing_that_trains(
    lock: str, needed: set[str], repository: Path
) -> None:
    names = {name for name, _ in entries(repository / lock)}
    assert names >= needed
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
