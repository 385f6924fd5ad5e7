"""A bundle with a reference, promoted, and tenants that ask it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.core.bundle import Bundle
from serving.gateway.store import Store
from tests.bundles import tiny_bundle, with_reference
from tests.drift_answers import TASK
from tests.drift_windows import HEAD, METRICS, arrays
from tests.gateway_rows import tenant_of
from tests.integration.serving.harness import promote


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    plain = tiny_bundle(folder / "plain", task=TASK, heads=(HEAD,), metrics=METRICS)
    return with_reference(plain, folder / "bundle", **arrays())


@pytest.fixture
def root(bundle: Bundle, tmp_path: Path) -> Path:
    promote(tmp_path / "serving", bundle, "4")
    return tmp_path / "serving"


@pytest.fixture
def clinics(sqlite_store: Store) -> list[str]:
    return [tenant_of(sqlite_store, name) for name in ("clinic", "another")]
