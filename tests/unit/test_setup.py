"""``make setup`` up to where it would download: which interpreter it takes, what comes first, its words."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that ``make setup`` looks at, and no environment."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # These tests may themselves run under make, whose own options must not reach this one.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def python(folder: Path, name: str, version: str) -> Path:
    """An interpreter of another version: it answers the check, and makes an empty environment."""
    path = folder / name
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -c ] && exec python3 -c "import sys; sys.version_info = {version}; $2"\n'
        'mkdir -p "$3/bin" && echo made by $0 >&2 && printf "#!/bin/sh\\nexit 9\\n" > "$3/bin/python"\n'
        'chmod +x "$3/bin/python"\n'
    )
    path.chmod(0o755)
    return path


def test_without_a_fitting_python_it_says_what_to_do(checkout: Path) -> None:
    old = python(checkout, "old", "(3, 9, 1)")
    new = python(checkout, "new", "(3, 13, 1)")
    done = make(checkout, "setup", f"PYTHON={old} {new} no-such-python")
    assert done.returncode != 0
    assert "Python 3.11 or 3.12" in done.stderr
    assert "make setup PYTHON=" in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_first_fitting_python_is_taken(checkout: Path) -> None:
    old = python(checkout, "old", "(3, 10, 1)")
    first = python(checkout, "first", "(3, 12, 4)")
    second = python(checkout, "second", "(3, 11, 7)")
    done = make(checkout, "setup", f"PYTHON={old} {first} {second}")
    assert f"made by {first}" in done.stderr
    # Here the stand-in ends it; what would have been installed first is written down.
    assert done.returncode != 0
    first_installed = (checkout / ".venv" / "first.txt").read_text()
    assert re.findall(r"^(\S+)==", first_installed, re.MULTILINE) == ["setuptools", "uv"]
    for line in first_installed.splitlines():
        assert re.match(r"(setuptools|uv)==\S+ \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$", line), line


def test_an_interrupted_install_is_not_taken_for_a_finished_one(checkout: Path) -> None:
    interpreter = python(checkout, "good", "(3, 11, 7)")
    make(checkout, "setup", f"PYTHON={interpreter}")
    assert not (checkout / ".venv" / ".installed").exists()
    again = make(checkout, "setup", f"PYTHON={interpreter}")
    assert again.returncode != 0


def test_a_changed_lock_or_project_file_installs_again(checkout: Path) -> None:
    interpreter = python(checkout, "good", "(3, 11, 7)")
    make(checkout, "setup", f"PYTHON={interpreter}")
    stamp = checkout / ".venv" / ".installed"
    stamp.touch()
    assert make(checkout, "setup").returncode == 0
    for name in ("requirements.lock", "pyproject.toml"):
        stamp.touch()
        later = stamp.stat().st_mtime + 10

        os.utime(checkout / name, (later, later))
        assert make(checkout, "--question", "setup").returncode == 1, name
        os.utime(checkout / name, (0, 0))


def test_help_lists_every_target(checkout: Path) -> None:
    shown = make(checkout).stdout
    for target in ("setup", "demo", "serve", "test", "lint", "bench", "compile", "lock", "clean"):
        assert re.search(rf"make {target}\s+\S", shown), target
