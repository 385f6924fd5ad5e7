"""Every command of docs/gateway.md's curl section, as it stands there, against a real gateway."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from serving.gateway.access import Role
from serving.gateway.systems import all_systems
from tests.gateway_live import live_gateway, photograph
from tests.integration.serving.harness import PATIENCE_S, Servers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gateway.md"


def test_the_page_of_curl_commands(gateway_models: Servers, tmp_path: Path) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl and bash are not installed here")
    section = PAGE.read_text().split("## With curl")[1].split("\n## ")[0]
    script = "\n".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL))
    assert script.count("curl -fsS") > 15
    for name, seed in (("skin", 1), ("fundus", 2), ("face", 3)):
        (tmp_path / f"{name}.jpg").write_bytes(photograph(seed))
    systems = ",".join(all_systems())
    with live_gateway(tmp_path / "gateway", gateway_models.url, GATEWAY_SYSTEMS=systems) as live:
        environment = {
            **os.environ,
            "URL": live.url,
            "TOKEN": live.token(),
            "BEARER": live.token(kind="bearer"),
            "REVIEWER": live.token(Role.REVIEWER),
            "ADMIN": live.token(Role.ADMIN),
            "NO_PROXY": "*",
        }
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-x", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    with zipfile.ZipFile(tmp_path / "cases.zip") as archive:
        assert "2026-000123" in archive.read("cases.jsonl").decode()
    with zipfile.ZipFile(tmp_path / "labels.zip") as archive:
        assert '"value": "mild"' in archive.read("labels.jsonl").decode()
