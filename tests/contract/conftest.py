"""Servers for the contract tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.s4_server import S4Server
from tests.gateway_live import live_models
from tests.integration.serving.harness import Servers


@pytest.fixture(scope="session")
def s4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S4Server]:
    """A server with its usual settings. Each test takes names of its own."""
    with S4Server(tmp_path_factory.mktemp("s4")).running() as server:
        yield server


@pytest.fixture(scope="session")
def s4_small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S4Server]:
    """One with limits that a test can reach, few regions in memory, and stack traces in its answers."""
    limits = {
        "PATCHCORE_DEBUG": "1",
        "PATCHCORE_MAX_ROIS": "2",
        "PATCHCORE_MAX_BODY_BYTES": "200000",
        "PATCHCORE_MAX_FIT_BYTES": "1500000",
        "PATCHCORE_MAX_IMAGE_BYTES": "100000",
        "PATCHCORE_MAX_IMAGE_PIXELS": "200000",
        "PATCHCORE_MAX_IMAGES": "1500",
        "PATCHCORE_MAX_SCORES": "1000",
        "PATCHCORE_UPLOAD_S": "4",
        "PATCHCORE_FIT_S": "2",
        "CORESET_RATE": "0.9",
        "PATCHCORE_MAX_WAITING_FITS": "1",
        "PATCHCORE_FIT_MEMORY_BYTES": "1000",
    }
    with S4Server(tmp_path_factory.mktemp("s4-small"), limits).running() as server:
        yield server


@pytest.fixture(scope="session")
def gateway_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A predictor and a transformer with every task of S0 to S3, for gateways that only ask."""
    with live_models(tmp_path_factory.mktemp("models")) as servers:
        yield servers
