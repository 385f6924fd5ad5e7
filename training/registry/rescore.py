"""Asks a bundle itself, whatever its kind: about its golden images, or about a data set's test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.core.bundle import Bundle

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.predict import Predictions


def rescore(bundle: Bundle, dataset: Dataset) -> Predictions:
    """Ask a bundle about a data set's test images through ONNX Runtime, as serving would."""
    if bundle.card.kind == "anomaly":
        from training.patchcore.scoring import bundle_predictions

        return bundle_predictions(bundle, dataset, "test")
    from serving.core.runtimes import open_runtime
    from training.predict import predict

    runtime = open_runtime(bundle)
    try:
        return predict(runtime, dataset, "test", card=bundle.card)
    finally:
        runtime.close()


def hold_to_golden(bundle: Bundle) -> None:
    """Load a bundle as serving would, and hold its answers to the golden images against the stored ones.

    Raises:
        IntegrityError: they aren't the same.
    """
    if bundle.card.kind == "anomaly":
        from serving.core.patchcore.detector import open_detector

        open_detector(bundle)
        return
    from serving.core.runtimes import open_runtime

    open_runtime(bundle).close()
