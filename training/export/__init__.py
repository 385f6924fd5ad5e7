"""From a trained model to a bundle that is proved equal to it: ONNX, parity, reference."""

from training.export.build import build_bundle, package
from training.export.graph import Exported, export_onnx

__all__ = ["Exported", "build_bundle", "export_onnx", "package"]
