"""The S4 service on an extractor as training exports it: a small transformer, not square, random weights."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import torch

from serving.patchcore.settings import Settings
from tests.contract.s4_server import ng_pixels, ok_pixels, png
from training.patchcore.export import export_extractor
from training.patchcore.features import build_features, embed
from training.task import load_task

FIELDS = {"role_id": "Role", "roi_id": "Roi", "mm_per_px": "0.2"}


@pytest.mark.slow
def test_an_exported_extractor_fits_and_infers(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from serving.patchcore.app import create_app

    torch.manual_seed(0)
    task = load_task(
        "anomaly",
        overrides={
            "backbone": "test_vit",
            "input_size": [96, 160],
            "patchcore": {"layers": [], "stride": None, "neighbourhood": 1},
        },
    )
    features = build_features(task, pretrained=False)
    card = export_extractor(features, task, tmp_path / "extractor")

    def ask(client: TestClient, rgb: np.ndarray) -> dict[str, object]:
        answer: httpx.Response = client.post(
            "/infer", data=FIELDS, files={"image": ("a.png", png(rgb), "image/png")}
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    settings = Settings(models_dir=tmp_path / "models", extractor=tmp_path / "extractor", threads=1)
    with TestClient(create_app(settings)) as client:
        assert client.get("/health").json()["model"] == "test_vit"
        files = [("images", (f"{n}.png", png(ok_pixels(n, 200, 120)), "image/png")) for n in range(4)]
        fitted = client.post("/fit_ok", data={**FIELDS, "memory_fit": "true"}, files=files).json()
        assert fitted["token_shape"] == list(card.grid) == [6, 10]
        assert fitted["n_embeddings"] == fitted["coreset_size"] == 4 * 60
        marked = ng_pixels(9, left=150, top=20, side=30, width=200, height=120)
        answer, clean = ask(client, marked), ask(client, ok_pixels(9, 200, 120))

    assert answer["score"] > clean["score"]  # type: ignore[operator]
    data = base64.b64decode(str(answer["heatmap_png_base64"]))
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (120, 200)

    # The same by torch: distances of its patches to the nearest of the four images' patches.
    def patches(rgb: np.ndarray) -> np.ndarray:
        small = cv2.resize(rgb, (160, 96), interpolation=cv2.INTER_AREA)
        return next(iter(embed(features, [small[None]], device="cpu")))[0]

    memory = np.concatenate([patches(ok_pixels(n, 200, 120)).reshape(-1, card.dim) for n in range(4)])
    query = patches(marked).reshape(-1, card.dim)
    grid = ((query[:, None] - memory[None]) ** 2).sum(-1).min(1).reshape(6, 10).astype(np.float32)
    upsampled = cv2.resize(grid, (200, 120), interpolation=cv2.INTER_LINEAR)
    by_torch = np.percentile(cv2.GaussianBlur(upsampled, (0, 0), 1.0), 99)
    assert answer["score"] == pytest.approx(by_torch, abs=1e-3)
