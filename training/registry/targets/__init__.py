"""Where a promotion makes a version serve: this machine's serving root, and a cluster."""

from .base import ChallengerTarget, Target, default_targets, in_order, target_from_spec
from .cluster import ClusterTarget
from .local import LocalTarget

__all__ = [
    "ChallengerTarget",
    "ClusterTarget",
    "LocalTarget",
    "Target",
    "default_targets",
    "in_order",
    "target_from_spec",
]
