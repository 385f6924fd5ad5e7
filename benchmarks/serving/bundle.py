"""The model that is measured: a ResNet-50 with random weights, exported as any other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from data.files import digest_json
from data.paths import home
from data.preprocess import Clahe, Preprocessing
from data.provenance import code_digest, versions
from data.quality import PROFILES

CLASSES = ("no_dr", "mild", "moderate", "severe", "proliferative")
SETTINGS = Preprocessing(size=(224, 224), crop="fundus", clahe=Clahe())
TASK = "dr_grading"


def bundle_folder() -> Path:
    """The bundle that is measured; made once for a state of the code."""
    digest = code_digest("training.export", "serving.core", "data").removeprefix("sha256:")[:12]
    folder = home().root / "bench" / f"resnet50-{digest}"
    if not folder.exists():
        _make_bundle(folder)
    return folder


def _make_bundle(folder: Path) -> None:
    import io

    import onnxruntime
    import torch

    from serving.core.bundle import Card, DatasetCard, HeadCard, InputCard, PrecisionCard, write_bundle
    from training.export import export_onnx
    from training.model import Classifier
    from training.spec.parts import HeadSpec

    torch.manual_seed(0)
    model = Classifier("resnet50", [HeadSpec("grade", CLASSES)], pretrained=False).eval()
    with tempfile.TemporaryDirectory() as temporary:
        exported = export_onnx(model, SETTINGS.size, Path(temporary) / "model.onnx")
        images = np.random.default_rng(0).integers(0, 256, (2, *SETTINGS.size, 3), dtype=np.uint8)
        session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
        golden = io.BytesIO()
        np.savez(golden, images=images, logits=session.run(["logits"], {"image": images})[0])
        none = digest_json("none")
        card = Card(
            task=TASK,
            kind="classification",
            title="ResNet-50 with random weights, to measure time",
            created_at="2025-01-01T00:00:00+00:00",
            retiderm_version=versions("retiderm").get("retiderm", ""),
            code_digest=code_digest("training"),
            backbone="resnet50",
            input=InputCard(SETTINGS.size, model.mean, model.std),
            preprocessing=SETTINGS.to_dict(),
            preprocessing_digest=SETTINGS.digest,
            quality=PROFILES["fundus"].to_dict(),
            dataset=DatasetCard(none, none, "none", synthetic=True),
            heads=(HeadCard("grade", CLASSES),),
            outputs=exported.outputs,
            explanation=exported.explanation,
            precisions={"fp32": PrecisionCard("model.onnx")},
        )
        files: dict[str, Path | bytes] = {"model.onnx": exported.path, "golden.npz": golden.getvalue()}
        write_bundle(folder, card, files)
