"""The gateway's pods of both overlays as processes: rendered commands and environment, the image's code.

What a cluster would give them (a volume, PostgreSQL, a bucket, secrets) stands here beside them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_live import photograph
from tests.gateway_servers import BUCKET, KEY, SECRET, new_database, s3
from tests.integration.serving.harness import free_port
from tests.unit.manifests.rendering import MANIFESTS, REPOSITORY, kustomize, of_kind

REFUSED = "torch torchvision timm kfp mlflow scipy kserve grpc training components pipelines"


@dataclass
class Pods:
    """A deployment's containers, started here. ``given`` stands for secrets and places beyond the pod."""

    overlay: str
    folder: Path
    given: dict[str, str]
    spec: dict[str, Any] = field(init=False)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    counts: int = 0

    def __post_init__(self) -> None:
        documents = kustomize(MANIFESTS / "overlays" / self.overlay)
        self.spec = of_kind(documents, "Deployment")["gateway"]["spec"]["template"]["spec"]
        image = self.folder / "app"
        image.mkdir()
        for name in ("data", "serving"):
            (image / name).symlink_to(REPOSITORY / name)
        (image / "sitecustomize.py").write_text(
            "import sys\n"
            "class Refuse:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.partition('.')[0] in {set(REFUSED.split())!r}:\n"
            "            raise ModuleNotFoundError(f'{name} is not in the image')\n"
            "sys.meta_path.insert(0, Refuse())\n"
        )

    def run(self, *words: str, container: dict[str, Any] | None = None) -> str:
        """What a command of its image prints, as ``kubectl exec`` would run it."""
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder / "app", env=self._told(container or self._main),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> str:
        """Start the container, and say where it listens."""
        port, self.counts = free_port(), free_port()
        told = {
            **self._told(self._main),
            "BACKSERVER_HOST": "127.0.0.1",
            "BACKSERVER_PORT": str(port),
            "GATEWAY_METRICS_PORT": str(self.counts),
        }
        with (self.folder / f"{len(self.running)}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen(
                    [sys.executable, *self._main["command"][1:]], cwd=self.folder / "app", env=told,
                    stdout=log, stderr=log,
                )
            )  # fmt: skip
        return f"http://127.0.0.1:{port}"

    def wait(self, url: str) -> None:
        """Until the kubelet would send requests."""
        deadline = time.monotonic() + 240
        while not (self.probe(url, "startup") and self.probe(url, "readiness")):
            logs = "".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))
            assert all(process.poll() is None for process in self.running), logs
            assert time.monotonic() < deadline, logs
            time.sleep(0.1)

    def probe(self, url: str, name: str) -> bool:
        """Ask as the kubelet would."""
        probe = self._main[f"{name}Probe"]
        try:
            found = httpx.get(url + probe["httpGet"]["path"], timeout=probe.get("timeoutSeconds", 1))
        except httpx.HTTPError:
            return False
        return found.status_code == 200

    def stop(self) -> list[int]:
        """SIGTERM to all, and how they ended."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        return [process.wait(timeout=180) for process in self.running]

    @property
    def _main(self) -> dict[str, Any]:
        (found,) = self.spec["containers"]
        return dict(found)

    def _told(self, container: dict[str, Any]) -> dict[str, str]:
        known = {v["name"]: v["value"] for v in container["env"] if v.get("value")}
        names = {v["name"] for v in container["env"]}
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.folder / "app"),
            **known,
            **{key: value for key, value in self.given.items() if key in names},
            "HOME": str(self.folder),
            "RETIDERM_HOME": str(self.folder / "volume"),
        }


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Pods]:
    # No model's name is known here: every one is away.
    yield from _ended(Pods("local", tmp_path, {}))


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Pods]:
    server = s3()
    given = {
        "DATABASE_URL": new_database(empty=True),
        "STORAGE_DIR": f"s3://{BUCKET}/{server.new_prefix()}",
        "GATEWAY_S3_ENDPOINT": server.endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "API_KEY": "for-the-start",
    }
    yield from _ended(Pods("production", tmp_path, given))


def _ended(pods: Pods) -> Iterator[Pods]:
    try:
        yield pods
    finally:
        for process in pods.running:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_on_a_volume(local: Pods) -> None:
    (first,) = local.spec["initContainers"]
    admin = local.run(*first["command"][1:], container=first)
    assert admin.startswith("rtb_")
    # A pod that starts again says no other.
    assert local.run(*first["command"][1:], container=first) == ""
    url = local.start()
    local.wait(url)
    assert local.probe(url, "liveness")
    ready = httpx.get(f"{url}/readyz", timeout=60).json()
    # Models that are away make no gateway unready.
    assert (ready["status"], set(ready["systems"])) == ("degraded", {"s0", "s1", "s2", "s3", "v1", "review"})
    counts = httpx.get(f"http://127.0.0.1:{local.counts}/metrics", timeout=60).text
    assert "retiderm_gateway_requests_total" in counts
    assert httpx.get(f"{url}/metrics", timeout=60).status_code == 404
    # Beside the gateway that runs, on the same SQLite.
    token = local.run("-m", "serving.gateway.cli", "create", "my-app")
    for given in (token, admin):
        refused = httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {given}"}, timeout=60)
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
    assert httpx.get(f"{url}/v1/models", timeout=60).status_code == 401
    assert local.stop() == [0]


@pytest.mark.slow
def test_two_that_start_at_once_on_an_empty_database(production: Pods) -> None:
    urls = [production.start() for _ in range(2)]
    for url in urls:
        production.wait(url)
    token = production.run("-m", "serving.gateway.cli", "create", "my-app")
    headers = {"Authorization": f"Bearer {token}"}
    one, other = urls
    data = photograph()
    # What one has kept is there for the other, row and bytes.
    sent = {**headers, "Content-Type": "image/jpeg"}
    kept = httpx.post(f"{one}/v1/images", headers=sent, content=data, timeout=60)
    assert kept.status_code == 201, kept.text
    found = httpx.get(f"{other}/v1/images/{kept.json()['id']}", headers=headers, timeout=60).json()
    assert found["url"].startswith(production.given["GATEWAY_S3_ENDPOINT"])
    assert httpx.get(found["url"], timeout=60).content == data
    assert production.stop() == [0, 0]
