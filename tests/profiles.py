"""Tiny bundles of S1's and S3's models, without torch: real files whose answers mean nothing."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from serving.core.bundle import GOLDEN, Bundle, ExplanationCard, PrecisionCard, write_bundle
from serving.profile import HEADS, TASK
from serving.scan.answer import Asked
from tests.bundles import tiny_bundle
from tests.lite import tiny_tflite

Picture = np.ndarray


def profile_bundle(path: Path, *, tflite: bool = False, **changes: Any) -> Bundle:
    """A skin and hair profile as ONNX; with ``tflite`` as TFLite too, whose answers are then golden."""
    if not tflite:
        return tiny_bundle(path, task=TASK, heads=HEADS, quality="photo", **changes)
    plain = tiny_bundle(path.with_name(f"{path.name}-plain"), task=TASK, heads=HEADS, quality="photo")
    total = sum(map(len, HEADS.values()))
    weight = np.random.default_rng(1).normal(0, 0.02, (total, 3))
    images = plain.arrays(GOLDEN)["images"]
    stream = io.BytesIO()
    logits = (images.mean(axis=(1, 2)) @ weight.T).astype(np.float32)
    np.savez_compressed(stream, images=images, logits=logits)
    fields: dict[str, Any] = {
        "outputs": {"logits": (total,)},
        "explanation": ExplanationCard(reason="The tiny model has no map."),
        "precisions": {
            "fp32": PrecisionCard("model.onnx", tolerance=1.0),
            "tflite": PrecisionCard("model.tflite", format="tflite"),
        },
    }
    files: dict[str, Path | bytes] = {name: plain.path(name) for name in plain.card.files}
    files |= {GOLDEN: stream.getvalue(), "model.tflite": tiny_tflite(weight, plain.card.input.size)}
    return write_bundle(path, dataclasses.replace(plain.card, **{**fields, **changes}), files)


def face_bundle(path: Path, asked: Asked, **changes: Any) -> Bundle:
    """One of S3's two models."""
    return tiny_bundle(path, **{"task": asked.task, "heads": {asked.head: asked.classes}, **changes})


def jpeg(picture: Picture, quality: int = 95) -> bytes:
    """RGB as a JPEG."""
    return bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def png(picture: Picture) -> bytes:
    """RGB as a PNG."""
    return bytes(cv2.imencode(".png", picture[..., ::-1])[1])
