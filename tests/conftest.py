"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Set before the libraries that read them are imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from data.paths import Home

# A shared machine may hold a test up for seconds, so no example has a time limit. CI draws the same examples
# each time: what it finds, a person can find again, and a green commit stays green.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A ``RETIDERM_HOME`` of this test's own."""
    monkeypatch.setenv("RETIDERM_HOME", str(tmp_path / "var"))
    return Home(tmp_path / "var")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The small real data sets; a test that needs them skips where they are missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the shared real data sets are not beside this checkout")
    return SHARED / "data"


@pytest.fixture(scope="session")
def shared_schemas() -> Path:
    """KServe's OpenAPI schemas; a test that needs them skips where they are missing."""
    if not (SHARED / "schemas").is_dir():
        pytest.skip("KServe's schemas are not beside this checkout")
    return SHARED / "schemas"
