"""A real bundle, made in milliseconds: a small convolutional network written as ONNX, without torch.

Its weights are random but fixed by ``seed``; everything around them (card, golden answers, reference,
digests) is what an export writes.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from data.files import digest_json
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
    WeightsCard,
    write_bundle,
)

HEADS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "dr_grading": {"grade": ("no_dr", "mild", "moderate", "severe", "proliferative")},
    "skin_lesion": {"diagnosis": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")},
}
#: What people read for some of these classes, as a trained model's card says it.
TITLES = {
    "bcc": "Basal cell carcinoma",
    "mel": "Melanoma",
    "nv": "Melanocytic naevus",
    "vasc": "Vascular lesion",
}

_MEAN = (0.498, 0.498, 0.498)
_STD = (0.502, 0.502, 0.502)
_WIDTH = 16


def tiny_bundle(
    path: Path,
    *,
    task: str = "dr_grading",
    heads: Mapping[str, Sequence[str]] | Sequence[HeadCard] | None = None,
    seed: int = 0,
    size: tuple[int, int] = (64, 64),
    quality: str = "fundus",
    test_digest: str | None = None,
    **card: Any,
) -> Bundle:
    """Write a bundle to ``path`` and open it, verified.

    ``heads`` are names to classes, or whole ``HeadCard``s; without, the task's own, or two classes. ``seed``
    changes the weights and so the digest. ``card`` replaces fields of the card (``metrics=…``).
    """
    cards = _heads(task, heads)
    total = sum(len(head.classes) for head in cards)
    model = tiny_onnx(total, size, seed)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, *size, 3), dtype=np.uint8)
    answers = _answers(model, images)
    preprocessing = Preprocessing(size=size)
    fields: dict[str, Any] = {
        "task": task,
        "kind": "classification",
        "title": f"Tiny model for {task}",
        "created_at": "2025-01-01T00:00:00+00:00",
        "retiderm_version": "0.1.0",
        "code_digest": digest_json("code"),
        "backbone": "tiny",
        "input": InputCard(size=size, mean=_MEAN, std=_STD),
        "preprocessing": preprocessing.to_dict(),
        "preprocessing_digest": preprocessing.digest,
        "quality": PROFILES[quality].to_dict(),
        "dataset": DatasetCard(
            digest=digest_json(["data", task]),
            test_digest=test_digest or digest_json(["test", task]),
            source="synthetic",
            licences=("CC0-1.0",),
            synthetic=True,
            counts={"test": {head.name: dict.fromkeys(head.classes, 10) for head in cards}},
        ),
        "heads": cards,
        "weights": WeightsCard("none"),
        "outputs": {name: value.shape[1:] for name, value in answers.items()},
        "explanation": ExplanationCard("closed-form", max_error=0.0),
        "precisions": {"fp32": PrecisionCard("model.onnx")},
        "metrics": {
            "heads": {
                head.name: {
                    "auc": {"value": 0.8, "low": 0.75, "high": 0.85},
                    "accuracy": {"value": 0.7, "low": 0.65, "high": 0.75},
                    "balanced_accuracy": {"value": 0.6, "low": 0.55, "high": 0.65},
                }
                for head in cards
            }
        },
        "licence": "CC0-1.0",
        "intended_use": "Tests.",
        "limits": ("Answers mean nothing: the weights are random.",),
        "run_id": f"tiny-{seed}",
    }
    fields.update(card)
    files = {
        "model.onnx": model,
        GOLDEN: _npz(images=images, logits=answers["logits"]),
        REFERENCE: _npz(embedding_sample=answers["embedding"].astype(np.float16)),
    }
    write_bundle(path, Card(**fields), files)
    return Bundle.open(path)


def tiny_onnx(outputs: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> bytes:
    """The network: uint8 [N, H, W, 3] → logits [N, C], cam [N, C, h, w], embedding [N, 16]."""
    rng = np.random.default_rng([seed, outputs])
    height, width = -(-size[0] // 8), -(-size[1] // 8)
    arrays = {
        "scale": np.float32(1 / (255 * _STD[0])),
        "offset": np.float32(-_MEAN[0] / _STD[0]),
        "w1": rng.normal(0, 0.15, (8, 3, 7, 7)).astype(np.float32),
        "w2": rng.normal(0, 0.25, (_WIDTH, 8, 3, 3)).astype(np.float32),
        "w": rng.normal(0, 1.5, (outputs, _WIDTH)).astype(np.float32),
        "b": rng.normal(0, 0.3, outputs).astype(np.float32),
        "flat": np.array([0, _WIDTH, -1], np.int64),
        "map": np.array([-1, outputs, height, width], np.int64),
        "area": np.float32(height * width),
    }
    conv = {"auto_pad": "SAME_UPPER"}
    nodes = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["raw"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["raw", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["x"]),
        helper.make_node("Conv", ["x", "w1"], ["c1"], strides=[4, 4], **conv),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], **conv),
        helper.make_node("Relu", ["c2"], ["A"]),
        helper.make_node("GlobalAveragePool", ["A"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "w", "b"], ["logits"], transB=1),
        helper.make_node("Reshape", ["A", "flat"], ["positions"]),
        helper.make_node("MatMul", ["w", "positions"], ["weighted"]),
        helper.make_node("Reshape", ["weighted", "map"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("Div", ["positive", "area"], ["cam"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *size, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", outputs]),
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["N", outputs, height, width]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", _WIDTH]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def with_heads(bundle: Bundle, path: Path, **changes: Any) -> Bundle:
    """A copy of a bundle whose heads all have ``changes`` (``temperature=2.0``), at ``path``."""
    heads = tuple(dataclasses.replace(head, **changes) for head in bundle.card.heads)
    files = {name: bundle.path(name) for name in bundle.card.files}
    return write_bundle(path, dataclasses.replace(bundle.card, heads=heads), files)


def with_reference(bundle: Bundle, path: Path, **arrays: np.ndarray) -> Bundle:
    """A copy of a bundle of any kind whose ``reference.npz`` holds these arrays alone, at ``path``."""
    files: dict[str, Path | bytes] = {name: bundle.path(name) for name in bundle.card.files}
    files[REFERENCE] = _npz(**arrays)
    return write_bundle(path, bundle.card, files)


def _heads(task: str, heads: Mapping[str, Sequence[str]] | Sequence[HeadCard] | None) -> tuple[HeadCard, ...]:
    if heads is None:
        heads = HEADS.get(task, {"head": ("no", "yes")})
    if isinstance(heads, Mapping):
        return tuple(
            HeadCard(
                name,
                tuple(classes),
                tuple(TITLES.get(one, one) for one in classes),
                coverage=0.9,
                qhat=0.8,
                uncertain_below=0.3,
                calibrated_on=40,
            )
            for name, classes in heads.items()
        )
    return tuple(heads)


def _answers(model: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = ["logits", "cam", "embedding"]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
