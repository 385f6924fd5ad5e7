"""A real extractor in a few kilobytes: one convolution over patches, in the form that exported ones have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from data.files import sha256_file
from serving.core.patchcore.extractor import CARD_FILE, MODEL_FILE, ExtractorCard, Weights, write_card


def tiny_extractor(
    folder: Path,
    *,
    side: int = 64,
    patch: int = 8,
    dim: int = 16,
    seed: int = 0,
    name: str = "tiny_patch8",
    preprocessing: Mapping[str, Any] | None = None,
) -> ExtractorCard:
    """Write ``extractor.onnx`` and ``extractor.json`` into ``folder``; other seeds are other extractors."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    kernel = draw.normal(0, 1 / patch, (dim, 3, patch, patch)).astype(np.float32)
    bias = draw.normal(0, 0.2, dim).astype(np.float32)
    grid = side // patch
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "full"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["maps"], strides=[patch, patch]),
        helper.make_node("Transpose", ["maps"], ["rows"], perm=[0, 2, 3, 1]),
        helper.make_node("ReduceL2", ["rows", "last"], ["lengths"], keepdims=1),
        helper.make_node("Div", ["rows", "lengths"], ["patches"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["N", grid, grid, dim])],
        [
            numpy_helper.from_array(np.float32(255), "full"),
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array([-1], np.int64), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / MODEL_FILE))
    card = ExtractorCard(
        name=name,
        backbone=name,
        layers=("conv",),
        input_size=(side, side),
        grid=(grid, grid),
        dim=dim,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        weights=Weights("drawn by a seed, for tests", "Apache-2.0"),
        digest=sha256_file(folder / MODEL_FILE),
        preprocessing=dict(preprocessing or {}),
    )
    write_card(folder, card)
    assert (folder / CARD_FILE).is_file()
    return card
