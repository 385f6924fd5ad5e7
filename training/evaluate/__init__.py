"""What a model is worth on test data, with intervals, slices and pictures."""

from training.evaluate.report import Predicted, evaluate

__all__ = ["Predicted", "evaluate"]
