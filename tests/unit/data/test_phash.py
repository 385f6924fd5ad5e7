from __future__ import annotations

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.phash import near_pairs, phash
from data.synthetic import pixels, plan


@pytest.mark.parametrize("subject", ["fundus", "lesion"])
@pytest.mark.parametrize("size", [32, 96, 200])
def test_it_is_imagehash_bit_for_bit(subject: str, size: int) -> None:
    for drawing in plan(subject, 6, size=size):
        rgb = pixels(drawing)
        assert phash(rgb) == str(imagehash.phash(Image.fromarray(rgb)))


def test_a_large_image_hashes_like_its_small_copy() -> None:
    large = pixels(plan("fundus", 1, size=512)[0])
    small = np.asarray(Image.fromarray(large).resize((256, 256), Image.Resampling.BOX))
    assert (int(phash(large), 16) ^ int(phash(small), 16)).bit_count() <= 4


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(0, 64), st.integers(1, 7))
def test_near_pairs_are_all_pairs(words: list[int], limit: int, block: int) -> None:
    found = near_pairs([f"{word:016x}" for word in words], limit, block=block)
    wanted = [
        [i, j]
        for i in range(len(words))
        for j in range(i + 1, len(words))
        if (words[i] ^ words[j]).bit_count() <= limit
    ]
    assert sorted(found.tolist()) == wanted
