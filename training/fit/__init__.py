"""Training: from a task and a dataset to a model, resumable at any moment."""

from training.fit.result import FitResult
from training.fit.run import fit

__all__ = ["FitResult", "fit"]
