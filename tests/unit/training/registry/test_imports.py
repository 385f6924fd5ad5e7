"""What a command of ``retiderm models`` imports: MLflow takes seconds, and not all of them need it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.paths import Home
from training.registry.client import Registry

CODE = """
import sys
from training.registry.cli import app
try:
    app(sys.argv[1].split())
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *(name for name in sys.argv[2].split() if name in sys.modules))
"""


@pytest.mark.parametrize("words", ["--help", "history", "history --all --json"])
def test_the_ledger_is_read_without_mlflow_and_numpy(words: str, home: Home) -> None:
    heavy = "mlflow numpy pandas rich.markdown torch"
    done = subprocess.run(
        [sys.executable, "-c", CODE, words, heavy],
        cwd=Path(__file__).resolve().parents[4],
        env={**os.environ, "RETIDERM_HOME": str(home.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "imported:"


def test_garbage_is_looked_for_again_when_mlflow_is_there(registry: Registry) -> None:
    assert registry.client is registry.client
    assert gc.isenabled()
    gc.disable()
    try:
        assert Registry(registry._uri).client is not None
        assert not gc.isenabled()
    finally:
        gc.enable()
