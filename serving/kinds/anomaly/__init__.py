"""Anomaly: a score, a threshold, and the regions that are not as the OK images are. Never a probability."""

from serving.kinds.anomaly.kind import KIND

__all__ = ["KIND"]
