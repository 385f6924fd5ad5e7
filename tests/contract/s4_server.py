"""A real server of the S4 service, and its clients."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from tests.extractors import tiny_extractor
from tests.integration.serving.harness import PATIENCE_S

ROLE, ROI = "Master1", "Pattern"
WIDTH, HEIGHT = 96, 64


class S4Server:
    """One process of ``python -m serving.patchcore``."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, **extractor: Any) -> None:
        self.models = folder / "models"
        self.extractor = folder / "extractor"
        self.card = tiny_extractor(self.extractor, **extractor)
        self.log = folder / "server.log"
        self.ready = folder / "ready.json"
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client()

    def start(self) -> S4Server:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATCHCORE_THREADS": "1",
            "MODELS_DIR": str(self.models),
            "PATCHCORE_EXTRACTOR": str(self.extractor),
            **self.environment,
        }
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "serving.patchcore", "serve", "--port", "0",
                 "--ready-file", str(self.ready), "--die-with-parent"],
                stdout=stream,
                stderr=stream,
                env=environment,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while not self.ready.exists():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)
        url = json.loads(self.ready.read_text())["url"]
        self.client = httpx.Client(base_url=url, timeout=3 * PATIENCE_S)
        return self

    def kill(self) -> None:
        """kill -9; nothing is tidied up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.ready.unlink(missing_ok=True)
        self.client.close()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self.client.close()
        return code

    @contextlib.contextmanager
    def running(self) -> Iterator[S4Server]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    @property
    def fits(self) -> int:
        """How many are in it, from before their body is read."""
        lines = self.client.get("/metrics").text.splitlines()
        name = 'retiderm_in_flight{queue="patchcore-fit"} '
        return next((round(float(line.removeprefix(name))) for line in lines if line.startswith(name)), 0)

    def fit(
        self,
        images: Sequence[bytes],
        role: str = ROLE,
        roi: str = ROI,
        mm_per_px: str | float = 0.2,
        **fields: str,
    ) -> httpx.Response:
        return self.client.post(
            "/fit_ok",
            data={"role_id": role, "roi_id": roi, "mm_per_px": str(mm_per_px), **fields},
            files=[("images", (f"ok-{n}.png", image, "image/png")) for n, image in enumerate(images)],
        )

    def infer(
        self,
        image: bytes,
        role: str = ROLE,
        roi: str = ROI,
        mm_per_px: str | float = 0.2,
        shape: Any = None,
    ) -> httpx.Response:
        fields = {"role_id": role, "roi_id": roi, "mm_per_px": str(mm_per_px)}
        if shape is not None:
            fields["shape"] = shape if isinstance(shape, str) else json.dumps(shape)
        return self.client.post("/infer", data=fields, files={"image": ("roi.png", image, "image/png")})

    def calibrate(
        self, ok: Any, ng: Any = None, role: str = ROLE, roi: str = ROI, **others: Any
    ) -> httpx.Response:
        body = {"role_id": role, "roi_id": roi, "mm_per_px": 0.2, "ok_scores": ok, **others}
        if ng is not None:
            body["ng_scores"] = ng
        return self.client.post("/calibrate_ng", json=body)


def ok_pixels(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A part that is OK: a soft pattern of its place, and a little noise. RGB."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    base = np.stack([100 + 40 * np.sin(x / 9), 110 + 30 * np.cos(y / 7), 90 + 0.3 * x], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 3, base.shape)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def ng_pixels(seed: int, left: int, top: int, side: int = 12, **size: int) -> np.ndarray:
    """The same with a scratched square."""
    pixels = ok_pixels(seed, **size)
    pixels[top : top + side, left : left + side] = (250, 10, 10)
    return pixels


def png(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1] if rgb.ndim == 3 else rgb)[1].tobytes()


def ok_images(count: int, start: int = 0, **size: int) -> list[bytes]:
    return [png(ok_pixels(start + n, **size)) for n in range(count)]


def slow_fit() -> list[bytes]:
    """Images of which a fit at a coreset rate of 0.9 takes many seconds, in half a megabyte."""
    draw = np.random.default_rng(0)
    return [png(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(1500)]
