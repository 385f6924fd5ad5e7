"""Classification: one or more heads, each with calibrated probabilities, a label and a conformal set."""

from serving.kinds.classification.kind import KIND

__all__ = ["KIND"]
