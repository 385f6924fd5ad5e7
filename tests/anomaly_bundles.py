"""A real anomaly bundle, made in milliseconds: the tiny extractor, and a memory of a drawn surface.

What is OK is a chequered surface with a little noise; an NG one has a bright blot on it.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import digest_json, sha256_file
from data.preprocess import Preprocessing
from data.quality import PROFILES
from serving.core.bundle import (
    GOLDEN,
    REFERENCE,
    Bundle,
    Card,
    DatasetCard,
    ExplanationCard,
    HeadCard,
    InputCard,
    PrecisionCard,
    write_bundle,
)
from serving.core.patchcore import rule
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.detector import Scorer
from serving.core.patchcore.extractor import Extractor
from serving.core.patchcore.memory import Memory, MemoryInfo, write_memory
from serving.core.patchcore.search import build_index, open_index
from tests.extractors import tiny_extractor

SIDE, PATCH = 64, 8


def surface(side: int = SIDE, seed: int = 0) -> NDArray[np.uint8]:
    """An OK image, RGB [side, side, 3]: squares of an eighth of its width, and noise."""
    rows, columns = np.indices((side, side)) * 8 // side
    grey = np.where((rows + columns) % 2, 170, 90)[..., None] + np.array([10, 0, -10])
    noise = np.random.default_rng(seed).integers(-6, 7, grey.shape)
    return (grey + noise).astype(np.uint8)


def with_blot(image: NDArray[np.uint8], x: float, y: float, radius: float = 0.06) -> NDArray[np.uint8]:
    """An NG image: a bright green blot at (x, y), all as shares of the width."""
    side = image.shape[1]
    centre = (round(x * side), round(y * image.shape[0]))
    return np.asarray(cv2.circle(image.copy(), centre, max(1, round(radius * side)), (40, 255, 40), -1))


def file(image: NDArray[np.uint8]) -> bytes:
    """A PNG."""
    return bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


def tiny_anomaly_bundle(
    path: Path,
    *,
    task: str = "anomaly",
    seed: int = 0,
    score: rule.ScoreRule | None = None,
    preprocessing: Preprocessing | None = None,
    change: Mapping[str, Any] | None = None,
    **card: Any,
) -> Bundle:
    """Write one to ``path`` and open it, verified.

    ``seed`` changes the extractor and so the digest; ``change`` replaces arrays of ``golden.npz``, ``card``
    fields of the card.
    """
    score = score or rule.ScoreRule("top_mean", top=3)
    preprocessing = preprocessing or Preprocessing(size=(SIDE, SIDE))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        made = tiny_extractor(work, side=SIDE, patch=PATCH, seed=seed)
        extractor = Extractor.open(work, threads=1)
        ok = np.stack([surface(seed=i) for i in range(12)])
        patches = extractor.embed(ok[:6]).reshape(-1, made.dim)
        memory = Memory(patches[::2].copy(), *made.grid, MemoryInfo(extractor=made.name))
        write_memory(work / rule.MEMORY, memory)
        settings = rule.Settings(made.grid, made.dim, score, blur_sigma=2.0)
        scorer = Scorer(settings, extractor, open_index(memory.emb))
        usual = scorer.score(ok[6:]).score
        threshold = float(usual.max()) * 3
        golden = np.stack([ok[6], ok[7], with_blot(ok[8], 0.4, 0.6), with_blot(ok[9], 0.8, 0.2)])
        found = scorer.score(golden)
        arrays = {"images": golden, "scores": found.score, "distances": found.distances, **(change or {})}
        calibration = Calibration(threshold, float(usual.max()), None, 1.0, area_mm2_thr=4.0)
        files: dict[str, Path | bytes] = {
            rule.EXTRACTOR: work / rule.EXTRACTOR,
            rule.EXTRACTOR_CARD: work / rule.EXTRACTOR_CARD,
            rule.MEMORY: work / rule.MEMORY,
            rule.INDEX: build_index(memory.emb),
            rule.CALIBRATION: json.dumps(calibration.to_dict()).encode(),
            GOLDEN: _npz(arrays),
            REFERENCE: _npz({"embedding_sample": patches[:8].astype(np.float16)}),
        }
        fields: dict[str, Any] = {
            "task": task,
            "kind": "anomaly",
            "title": f"Tiny memory for {task}",
            "created_at": "2025-01-01T00:00:00+00:00",
            "retiderm_version": "0.1.0",
            "code_digest": digest_json("code"),
            "backbone": made.backbone,
            "input": InputCard(size=made.input_size, mean=made.mean, std=made.std, name="images"),
            "preprocessing": preprocessing.to_dict(),
            "preprocessing_digest": preprocessing.digest,
            "quality": PROFILES["photo"].to_dict(),
            "dataset": DatasetCard(
                digest=digest_json(["data", task]),
                test_digest=digest_json(["test", task]),
                source="synthetic",
                licences=("CC0-1.0",),
                synthetic=True,
            ),
            "heads": (HeadCard("status", ("ok", "ng")),),
            "outputs": {"patches": (*made.grid, made.dim)},
            "explanation": ExplanationCard("none", reason="The map of distances is the explanation."),
            "precisions": {"fp32": PrecisionCard(rule.EXTRACTOR)},
            "licence": "CC0-1.0",
            "extra": {rule.KEY: settings.to_dict()},
        }
        fields.update(card)
        write_bundle(path, Card(**fields), files)
        assert sha256_file(path / rule.EXTRACTOR) == made.digest
    return Bundle.open(path)


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
