"""Features as tensors, there and back."""

from __future__ import annotations

import numpy as np
import pytest

from serving.features.columns import Features, colour, read, write
from tests.unit.serving.kinds.sink import Tensors

ONE = Features(np.arange(4, dtype=np.float32), 0.25, np.arange(6, dtype=np.float32), 0.5, 120.0)
BLURRED = Features(None, None, np.ones(6, np.float32), 0.125, 64.0)
UNCHECKED = Features(np.ones(4, np.float32), None, np.ones(6, np.float32))


def same(one: Features | None, other: Features) -> bool:
    assert one is not None
    return all(
        a is b or np.array_equal(a, b)
        for a, b in (
            (getattr(one, name), getattr(other, name))
            for name in ("embedding", "unusual", "colour", "sharpness", "exposure")
        )
    )


def test_what_is_written_is_read() -> None:
    sent = Tensors()
    write(sent, [ONE, None, BLURRED, UNCHECKED], 4)
    shapes = {name: values.shape for name, values in sent.items()}
    assert shapes == {
        "embedding": (4, 4),
        "unusual": (4,),
        "colour": (4, 6),
        "sharpness": (4,),
        "exposure": (4,),
    }
    assert all(values.dtype == np.float32 for values in sent.values())
    assert same(read(sent, 0), ONE)
    assert same(read(sent, 1), Features())
    assert same(read(sent, 2), BLURRED)
    assert same(read(sent, 3), UNCHECKED)


def test_a_model_without_an_embedding_has_no_such_tensor() -> None:
    sent = Tensors()
    write(sent, [BLURRED], None)
    assert "embedding" not in sent
    assert same(read(sent, 0), BLURRED)


def test_nothing_is_read_where_nothing_was_asked() -> None:
    assert read({"verdict": [b"gradable"]}, 0) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (48, 56, 3), (224, 224, 3)])
def test_colours_are_those_of_the_reference(shape: tuple[int, int, int]) -> None:
    from training.export.reference import training_statistics  # what the card's percentiles are made by

    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    found = colour(pixels)
    values = pixels.reshape(-1, 3)
    assert found == pytest.approx(np.concatenate([values.mean(axis=0), values.std(axis=0)]), rel=1e-6)
    import pandas as pd

    kept = training_statistics(np.ones((2, 4), np.float32), np.stack([pixels, pixels]), pd.DataFrame())
    assert found[:3] == pytest.approx(kept["colour_mean_percentiles"][50], rel=1e-6)
    assert found[3:] == pytest.approx(kept["colour_std_percentiles"][50], rel=1e-6)
