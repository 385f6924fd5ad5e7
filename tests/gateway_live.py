"""A real gateway process over real predictors, and tokens to ask it with."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from serving.gateway.access import Role
from serving.gateway.access import create as make_token
from serving.gateway.settings import Settings
from serving.gateway.store import Scope, unscoped
from serving.scan import ACNE, CONDITION
from tests.bundles import tiny_bundle
from tests.integration.serving.harness import PATIENCE_S, Process, Servers, promote

GRADES = ("no_dr", "mild", "moderate", "severe", "proliferative")
LESIONS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def tiny_models(root: Path) -> None:
    """Every task of S0 to S3, promoted in a serving root: real bundles of small untrained networks."""
    from serving.profile import HEADS

    tasks: dict[str, Mapping[str, Any]] = {
        "dr_grading": {"grade": GRADES},
        "skin_lesion": {"diagnosis": LESIONS},
        "acne": {ACNE.head: ACNE.classes},
        "skin_condition": {CONDITION.head: CONDITION.classes},
        "skin_profile": dict(HEADS),
    }
    for task, heads in tasks.items():
        bundle = tiny_bundle(root / "bundles" / task, task=task, heads=heads, quality="photo")
        promote(root / "serving", bundle, "1")


@contextlib.contextmanager
def live_models(folder: Path, *options: str) -> Iterator[Servers]:
    """Predictor and transformer of :func:`tiny_models`, ready."""
    tiny_models(folder)
    with Servers(folder / "serving", folder / "servers", transformer_options=options).running() as servers:
        yield servers


@dataclass
class Live:
    """A gateway's process and its store. ``environment`` is what it is told beside the defaults."""

    folder: Path
    models_url: str
    environment: dict[str, str] = field(default_factory=dict)
    process: Process | None = None

    @property
    def env(self) -> dict[str, str]:
        """Everything that the process is told."""
        return {
            "RETIDERM_HOME": str(self.folder / "home"),
            "BACKSERVER_PORT": "0",
            "GATEWAY_MODELS_URL": self.models_url,
            "GATEWAY_REQUESTS_PER_MINUTE": "1000000",
            **self.environment,
        }

    @property
    def ready_file(self) -> Path:
        return self.folder / "gateway.json"

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(json.loads(self.ready_file.read_text())["url"])

    def start(self, timeout_s: float = PATIENCE_S) -> None:
        """Start it and wait until it answers."""
        self.ready_file.unlink(missing_ok=True)
        log = self.folder / "gateway.log"
        self.process = Process("serving.gateway", ["--ready-file", str(self.ready_file)], log, env=self.env)
        self.process.start()
        deadline = time.monotonic() + timeout_s
        while not self.ready_file.exists():
            assert self.process.process is not None
            assert self.process.process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        return self.process.terminate()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()

    @contextlib.contextmanager
    def settings(self) -> Iterator[Settings]:
        """The process's settings, and its folders while they are used here."""
        given = {
            key: value for key, value in self.env.items() if key == "RETIDERM_HOME" or key.startswith("AWS_")
        }
        before = {key: os.environ.get(key) for key in given}
        os.environ.update(given)
        try:
            yield Settings.from_env(self.env)
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value

    @contextlib.contextmanager
    def scope(self, tenant: str = "default") -> Iterator[Scope]:
        """A transaction of the gateway's store, beside the running process."""
        with self.settings() as settings:
            store = settings.open_store()
        try:
            found = unscoped.ensure_tenant(store, tenant)
            with store.write(found.id, "test") as scope:
                yield scope
        finally:
            store.close()

    def token(self, role: Role = Role.APP, *, tenant: str = "default", **options: Any) -> str:
        """A new token's text."""
        with self.scope(tenant) as scope:
            return make_token(scope, role=role, name=f"{role}-test", **options).text

    def client(self, token: str | None = None, *, bearer: bool = False, **options: Any) -> httpx.Client:
        """A client with a token in the header that its system knows."""
        headers = {} if token is None else {"x-api-key": token}
        if bearer and token is not None:
            headers = {"authorization": f"Bearer {token}"}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False, **options
        )


@contextlib.contextmanager
def live_gateway(folder: Path, models_url: str, **environment: str) -> Iterator[Live]:
    """A gateway that runs; stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    live = Live(folder, models_url, environment)
    try:
        # One that does not start in time is stopped too: left behind, it would fail another test.
        live.start()
        yield live
    finally:
        if live.process is not None and live.process.process is not None:
            live.stop()


def photograph(seed: int = 0, *, size: int = 320, blurred: bool = False, kind: str = ".jpg") -> bytes:
    """A picture with edges and colours, which the ``photo`` quality profile takes; or a blurred one."""
    random = np.random.default_rng(seed)
    small = random.integers(40, 220, (size // 16, size // 16, 3), np.uint8)
    pixels = cv2.resize(small, (size, size), interpolation=cv2.INTER_NEAREST)
    if blurred:
        pixels = cv2.GaussianBlur(pixels, (0, 0), 12)
    written, data = cv2.imencode(kind, pixels)
    assert written
    return data.tobytes()


def form_of(data: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> dict[str, Any]:
    """httpx's ``files`` of one upload."""
    return {"file": (name, io.BytesIO(data), kind)}
