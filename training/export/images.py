"""A dataset's images as the model takes them, for the checks and statistics of an export."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.image import STORED_LIMITS
from data.provenance import cpu_quota

if TYPE_CHECKING:
    import pandas as pd

    from data.dataset import Dataset
    from data.preprocess import Preprocessing


def load_pixels(dataset: Dataset, rows: pd.DataFrame, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode and preprocess the rows' images, as serving does: uint8 [N, H, W, 3]."""

    def load(path: str) -> NDArray[np.uint8]:
        return preprocessing(preprocessing.decode(dataset.image_path(path).read_bytes(), STORED_LIMITS))

    with ThreadPoolExecutor(cpu_quota()) as pool:
        return np.stack(list(pool.map(load, rows["path"])))


def sample(frame: pd.DataFrame, count: int, seed: int, what: str) -> pd.DataFrame:
    """At most ``count`` rows, chosen by ``seed`` over the rows in the order of their ids.

    Raises:
        DataError: there is no row.
    """
    if not len(frame):
        raise DataError(
            f"The dataset has no {what} images.", hint="Ingest it with a split rule that gives some."
        )
    ordered = frame.sort_values("id", kind="stable")
    if len(ordered) <= count:
        return ordered.reset_index(drop=True)
    chosen = np.random.default_rng(seed).choice(len(ordered), count, replace=False)
    return ordered.iloc[np.sort(chosen)].reset_index(drop=True)
