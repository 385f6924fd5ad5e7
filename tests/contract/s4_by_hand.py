"""What S4 must answer, from the extractor's file and the ROI's files alone."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import onnxruntime

from tests.contract import s4_files
from tests.contract.s4_server import ROLE, S4Server


def picture_of(answer: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(answer["heatmap_png_base64"], validate=True)
    assert data.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def patches_of(server: S4Server, rgb: np.ndarray) -> np.ndarray:
    """[Ht, Wt, D] by the extractor's file alone."""
    session = onnxruntime.InferenceSession(str(server.extractor / "extractor.onnx"))
    side = session.get_inputs()[0].shape[1]
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    return session.run(["patches"], {"images": small[None]})[0][0]


def map_by_hand(server: S4Server, roi: str, rgb: np.ndarray) -> np.ndarray:
    """Distances by FAISS from the files, upsampled and blurred as the contract says."""
    patches = patches_of(server, rgb)
    stored = s4_files.read_roi(server.models, ROLE, roi)
    found = s4_files.distances(stored, patches.reshape(-1, patches.shape[-1]))
    grid = found.reshape(patches.shape[:2]).astype(np.float32)
    upsampled = cv2.resize(grid, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(upsampled, (0, 0), 1.0)
