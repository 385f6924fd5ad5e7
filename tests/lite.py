"""A tiny real TFLite model, written in milliseconds without a converter: mean colour and a linear head."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from serving.core.bundle import GOLDEN, Bundle, ExplanationCard, PrecisionCard, write_bundle
from tests.bundles import tiny_bundle


def tiny_tflite(weight: np.ndarray, size: tuple[int, int], outputs: tuple[str, ...] = ("logits",)) -> bytes:
    """uint8 ``image`` [1, H, W, 3] to float ``logits`` [1, C]: the mean colour (0 to 255) times ``weight``.

    ``weight`` is [C, 3]. ``outputs`` renames what the signature gives, so that a card doesn't fit.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as tfl

    def tensor(name: str, shape: list[int], kind: int, buffer: int = 0) -> tfl.TensorT:
        made = tfl.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, kind, buffer
        return made

    def code(builtin: int, version: int = 1) -> tfl.OperatorCodeT:
        made = tfl.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = builtin, builtin, version
        return made

    def operator(
        index: int, inputs: list[int], outputs: list[int], kind: int, options: object
    ) -> tfl.OperatorT:
        made = tfl.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = index, inputs, outputs
        made.builtinOptionsType, made.builtinOptions = kind, options
        return made

    def buffer(array: np.ndarray | None = None) -> tfl.BufferT:
        made = tfl.BufferT()
        if array is not None:
            made.data = np.frombuffer(array.tobytes(), np.uint8)
        return made

    classes = len(weight)
    float32, integer = tfl.TensorType.FLOAT32, tfl.TensorType.INT32
    graph = tfl.SubGraphT()
    graph.name = "main"
    graph.tensors = [
        tensor("image", [1, *size, 3], tfl.TensorType.UINT8),
        tensor("pixels", [1, *size, 3], float32),
        tensor("axes", [2], integer, 1),
        tensor("mean", [1, 3], float32),
        tensor("weight", [classes, 3], float32, 2),
        tensor("logits", [1, classes], float32),
    ]
    reducer = tfl.ReducerOptionsT()
    reducer.keepDims = False
    graph.operators = [
        operator(0, [0], [1], tfl.BuiltinOptions.CastOptions, tfl.CastOptionsT()),
        operator(1, [1, 2], [3], tfl.BuiltinOptions.ReducerOptions, reducer),
        operator(2, [3, 4, -1], [5], tfl.BuiltinOptions.FullyConnectedOptions, tfl.FullyConnectedOptionsT()),
    ]
    graph.inputs, graph.outputs = [0], [5]

    def named(name: str, index: int) -> tfl.TensorMapT:
        made = tfl.TensorMapT()
        made.name, made.tensorIndex = name, index
        return made

    signature = tfl.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [named("image", 0)]
    signature.outputs = [named(name, 5) for name in outputs]
    model = tfl.ModelT()
    model.version = 3
    model.description = "tiny"
    model.subgraphs = [graph]
    model.operatorCodes = [
        code(tfl.BuiltinOperator.CAST),
        code(tfl.BuiltinOperator.MEAN),
        code(tfl.BuiltinOperator.FULLY_CONNECTED),
    ]
    model.buffers = [buffer(), buffer(np.array([1, 2], np.int32)), buffer(weight.astype(np.float32))]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def lite_bundle(path: Path, **changes: Any) -> Bundle:
    """A bundle with ``fp32`` (a tiny ONNX network) and ``tflite`` (the mean colour): two answers.

    Its golden answers are the TFLite model's; fp32 is let off by its tolerance. ``changes`` replace fields of
    the card.
    """
    plain = tiny_bundle(path.with_name(f"{path.name}-plain"))
    size, classes = plain.card.input.size, len(plain.card.heads[0].classes)
    weight = np.random.default_rng(0).normal(0, 0.02, (classes, 3))
    images = plain.arrays(GOLDEN)["images"]
    logits = (images.mean(axis=(1, 2)) @ weight.T).astype(np.float32)
    stream = io.BytesIO()
    np.savez_compressed(stream, images=images, logits=logits)
    card = dataclasses.replace(
        plain.card,
        **{
            "outputs": {"logits": (classes,)},
            "explanation": ExplanationCard(reason="The tiny model has no map."),
            "precisions": {
                "fp32": PrecisionCard("model.onnx", tolerance=1.0),
                "tflite": PrecisionCard("model.tflite", format="tflite"),
            },
            **changes,
        },
    )
    files: dict[str, Path | bytes] = {name: plain.path(name) for name in plain.card.files}
    files |= {GOLDEN: stream.getvalue(), "model.tflite": tiny_tflite(weight, size)}
    return write_bundle(path, card, files)
