from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.core.patchcore.extractor import Extractor
from serving.core.patchcore.memory import Memory, MemoryInfo, unit
from serving.patchcore import fitting
from serving.patchcore.desk import Deadline
from serving.patchcore.fitting import Fitter
from tests.extractors import tiny_extractor


@pytest.fixture
def fitter(tmp_path: Path) -> Fitter:
    tiny_extractor(tmp_path)
    return Fitter(Extractor.open(tmp_path).card, 2**24)


def patches(fitter: Fitter, seed: int, count: int) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, fitter.card.dim)))


def test_every_embedding_is_kept_without_choosing(fitter: Fitter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fitting, "select")  # which for n of n rows would take n² steps
    found = fitter.first(patches(fitter, 0, 50), 1.0, 2, Deadline(60))
    assert np.allclose(found.memory.emb, patches(fitter, 0, 50), atol=1e-6)
    assert found.memory.info is not None
    assert found.memory.info.radius == 0.0
    assert found.answer()["coreset_rate_applied"] == 1.0


@pytest.mark.parametrize(
    ("info", "ever"),
    [
        (None, 5000),
        (MemoryInfo(), 5000),
        (MemoryInfo(coreset_rate=0.1), 1000),
        (MemoryInfo(coreset_rate=0.1, coreset_rate_applied=0.05), 2000),
        (MemoryInfo(n_embeddings=4000, coreset_rate_applied=0.05), 4000),
    ],
)
def test_a_memory_that_does_not_tell_its_embeddings_counts_as_made_at_its_rate(
    fitter: Fitter, info: MemoryInfo | None, ever: int
) -> None:
    memory = Memory(patches(fitter, 0, 100), *fitter.card.grid, info)
    for turn in (1, 2):
        pool = np.concatenate([memory.emb, patches(fitter, turn, 50)])
        found = fitter.joined(memory, pool, 0.02, 1, Deadline(60))
        assert found.n_embeddings == ever + 50 * turn
        assert len(found.memory.emb) == -(-found.n_embeddings // 50)
        memory = found.memory
