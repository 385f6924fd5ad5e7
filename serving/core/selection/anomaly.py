"""Anomaly scores, so that strategies made for classes can rank them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from serving.core.selection.pool import Floats


def sides(scores: NDArray[np.floating], threshold: float) -> Floats:
    """OK and NG, float32 [n, 2], for anomaly scores [n] of 0 and more: s / (s + threshold) is NG.

    The two are level at the threshold, and the farther a score is from it, in ratio, the less doubtful. It is
    a ranking for :class:`~serving.core.selection.pool.Pool` and no probability, so nobody is to be shown it.
    NaN stays NaN.

    Raises:
        UsageError: the threshold isn't above 0; a memory without calibration has no doubt to rank by.
    """
    if not threshold > 0:
        raise UsageError(
            f"A threshold of {threshold} divides nothing.",
            hint="Calibrate the memory, or choose by random or k_center.",
        )
    values = np.asarray(scores, np.float64)
    ng = values / (values + threshold)
    return np.column_stack([1.0 - ng, ng]).astype(np.float32)
