"""Which cases a person should label next: strategies behind one call, in numpy alone.

>>> from serving.core.selection import Pool, select
>>> import numpy as np
>>> pool = Pool(ids=("a", "b"), probabilities=np.array([[0.9, 0.1], [0.6, 0.4]], np.float32))
>>> select(pool, "margin", 1, seed=0).ids
('b',)
"""

from serving.core.selection.anomaly import sides
from serving.core.selection.base import Choice, Strategy
from serving.core.selection.choosing import Selection, select
from serving.core.selection.pool import Candidates, Pool
from serving.core.selection.registry import MIXES, STRATEGIES, strategy
from serving.core.selection.vectors import comparable

__all__ = [
    "MIXES",
    "STRATEGIES",
    "Candidates",
    "Choice",
    "Pool",
    "Selection",
    "Strategy",
    "comparable",
    "select",
    "sides",
    "strategy",
]
