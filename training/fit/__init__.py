"""Training: from a task and a dataset to a model, resumable at any moment."""

from training.fit.run import FitResult, fit

__all__ = ["FitResult", "fit"]
