"""Every route against its own description: requests that fit it, requests that don't, and their sequences."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.gateway.access import Role
from serving.gateway.systems import all_systems
from tests.extractors import tiny_extractor
from tests.gateway_live import live_gateway, live_models
from tests.integration.serving.harness import Servers

SETTINGS = Path(__file__).with_name("schemathesis.toml")
#: Of each route, beside the examples and the edges: some two thousand requests in all.
EXAMPLES = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with live_models(tmp_path_factory.mktemp("models")) as servers:
        yield servers


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_answer_is_as_the_document_says(models: Servers, tmp_path: Path, database: str) -> None:
    tiny_extractor(tmp_path / "extractor")
    environment = {
        "GATEWAY_SYSTEMS": ",".join(all_systems()),
        "PATCHCORE_EXTRACTOR": str(tmp_path / "extractor"),
        "MODELS_DIR": str(tmp_path / "memories"),
        # Each would be a process of seconds; the routes then say that there is none.
        "GATEWAY_REGISTRY_COMMAND": "-",
    }
    if database == "postgresql":
        from tests.gateway_servers import new_database

        environment["DATABASE_URL"] = new_database()
    shutil.copy(SETTINGS, tmp_path)
    with live_gateway(tmp_path / "gateway", models.url, **environment) as live:
        # A bearer token, which every system takes.
        token = live.token(Role.ADMIN, kind="bearer")
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{live.url}/openapi.json",
                "--checks=all",
                f"--header=Authorization: Bearer {token}",
                f"--max-examples={EXAMPLES}",
                "--seed=1",
                "--generation-database=none",
                "--continue-on-failure",
                "--warnings=off",
                "--request-timeout=60",
            ],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1", "HYPOTHESIS_NO_NPY": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        log = (live.folder / "gateway.log").read_text()
        assert done.returncode == 0, done.stdout[-15_000:] + log[log.find("an error that nobody") :][:5000]
