"""Servers for the contract tests that only ask."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.gateway.access import Role
from tests.contract.s4_server import S4Server
from tests.gateway_live import Live, live_gateway, live_models
from tests.gateway_servers import BUCKET, KEY, SECRET, new_database, s3
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
        "CORESET_RATE": "0.9",
        "PATCHCORE_FIT_MEMORY_BYTES": "1000",
    }
    with S4Server(tmp_path_factory.mktemp("s4-small"), limits).running() as server:
        yield server


@pytest.fixture(scope="session")
def gateway_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A predictor and a transformer with every task of S0 to S3, for gateways that only ask."""
    with live_models(tmp_path_factory.mktemp("models")) as servers:
        yield servers


#: Of S0's one key, which old installations have instead of tokens.
OLD_KEY = "the-camera-app's-own-key"
_CLINIC = {
    "GATEWAY_SYSTEMS": "s0,s2",
    "API_KEY": OLD_KEY,
    # Between what the untrained networks say of some photographs and of others.
    "CONF_THRESHOLD": "0.6",
}


def _server_environment() -> dict[str, str]:
    """A real PostgreSQL and a real S3 server."""
    server = s3()
    return {
        "DATABASE_URL": new_database(),
        "STORAGE_DIR": f"s3://{BUCKET}/{server.new_prefix()}",
        "GATEWAY_S3_ENDPOINT": server.endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


@pytest.fixture(scope="session")
def clinic(gateway_models: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """S0 and S2 on SQLite and a folder."""
    with live_gateway(tmp_path_factory.mktemp("clinic"), gateway_models.url, **_CLINIC) as live:
        yield live


@pytest.fixture(scope="session")
def clinic_on_servers(gateway_models: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """S0 and S2 on PostgreSQL and S3."""
    environment = {**_CLINIC, **_server_environment()}
    with live_gateway(tmp_path_factory.mktemp("servers"), gateway_models.url, **environment) as live:
        yield live


@pytest.fixture(scope="session")
def clinic_without_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """S0 and S2 with nobody behind the address of their models."""
    folder: Path = tmp_path_factory.mktemp("alone")
    with live_gateway(folder, "http://127.0.0.1:9", **_CLINIC) as live:
        yield live


@pytest.fixture(params=["sqlite and a folder", "postgresql and s3"])
def each_clinic(request: pytest.FixtureRequest) -> Live:
    """S0 and S2 on each kind of store."""
    name = "clinic" if request.param.startswith("sqlite") else "clinic_on_servers"
    found: Live = request.getfixturevalue(name)
    return found


#: Opens a client of a gateway, by default an app's with a new token of its own.
Opens = Callable[..., httpx.Client]


@pytest.fixture
def client_of() -> Iterator[Opens]:
    """``client_of(live, Role.REVIEWER, tenant="x")``, ``client_of(live, token="…")``: closed at the end."""
    with contextlib.ExitStack() as stack:

        def opened(
            live: Live, role: Role | None = Role.APP, *, token: str | None = None, tenant: str = "default"
        ) -> httpx.Client:
            text = token if token is not None or role is None else live.token(role, tenant=tenant)
            return stack.enter_context(live.client(text))

        yield opened


@pytest.fixture
def camera(clinic: Live, client_of: Opens) -> httpx.Client:
    """S0's app."""
    return client_of(clinic)


@pytest.fixture
def reviewer(clinic: Live, client_of: Opens) -> httpx.Client:
    """Who gets S0's export."""
    return client_of(clinic, Role.REVIEWER)


@pytest.fixture
def key() -> str:
    """A case's id of this test's own."""
    return f"case-{uuid.uuid4()}"
