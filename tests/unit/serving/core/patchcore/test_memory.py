"""``memory.npz`` of this version and older ones, and which extractor a memory belongs to."""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import IntegrityError, RequestError
from serving.core.patchcore.extractor import ExtractorCard, Weights
from serving.core.patchcore.memory import Memory, MemoryInfo, read_memory, unit, write_memory


def rows(n: int = 12, dim: int = 6, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def card(**changes: Any) -> ExtractorCard:
    values: dict[str, Any] = {
        "name": "lite0",
        "backbone": "tf_efficientnet_lite0",
        "layers": ("1", "2"),
        "input_size": (448, 448),
        "grid": (3, 4),
        "dim": 6,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "weights": Weights("package", "Apache-2.0"),
        "digest": "ab" * 32,
    }
    return ExtractorCard(**{**values, **changes})


INFO = MemoryInfo(
    extractor="lite0",
    extractor_digest="ab" * 32,
    input_size=(448, 448),
    coreset_rate=0.02,
    coreset_rate_applied=0.0201,
    count_images=3,
    n_embeddings=600,
    radius=0.25,
    seed=0,
    created_at="2030-01-01T00:00:00+00:00",
    distance="squared_l2",
    generation="g1",
    extra={"mm_per_px": 0.2},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    memory = Memory(rows(), 3, 4, INFO)
    write_memory(tmp_path / "memory.npz", memory)
    found = read_memory(tmp_path / "memory.npz")
    assert (found.emb == memory.emb).all()
    assert (found.grid, found.info) == ((3, 4), INFO)


def test_a_plain_reader_reads_what_we_write(tmp_path: Path) -> None:
    write_memory(tmp_path / "memory.npz", Memory(rows(), 3, 4, INFO))
    with np.load(tmp_path / "memory.npz", allow_pickle=False) as stored:
        assert stored["emb"].dtype == np.float32
        assert (int(stored["token_h"]), int(stored["token_w"])) == (3, 4)
        metadata = json.loads(str(stored["metadata"].item()))
    assert metadata["extractor"] == "lite0"
    assert metadata["input_size"] == [448, 448]
    assert metadata["format"] == 2


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "grid", [(3, 4), (np.int32(3), np.int64(4)), (np.array([3]), np.array([4])), (3.0, 4.0)], ids=str
)
def test_older_writers_files_are_read(tmp_path: Path, save: Any, grid: tuple[Any, Any]) -> None:
    save(tmp_path / "memory.npz", emb=rows(), token_h=grid[0], token_w=grid[1])
    found = read_memory(tmp_path / "memory.npz")
    assert (found.grid, found.info) == ((3, 4), None)


@pytest.mark.parametrize("wrap", [str, lambda text: np.array([text]), lambda text: text.encode()])
def test_older_metadata_is_read(tmp_path: Path, wrap: Any) -> None:
    text = json.dumps({"coreset_rate": 0.1, "applied_rate": 0.0972, "input_size": 448, "note": [1]})
    np.savez(tmp_path / "memory.npz", emb=rows(), token_h=3, token_w=4, metadata=wrap(text))
    info = read_memory(tmp_path / "memory.npz").info
    assert info == MemoryInfo(
        format=1, coreset_rate=0.1, coreset_rate_applied=0.0972, input_size=(448, 448), generation=None
    )


def test_an_older_writer_s_odd_values_are_passed_over() -> None:
    info = MemoryInfo.from_dict({"created_at": 1_700_000_000.5, "seed": "x", "format_version": "1.0"})
    assert info == MemoryInfo(format=1)


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        {"extractor": 3},
        {"input_size": "448"},
        {"input_size": [448]},
        {"input_size": [448, True]},
        {"format": 99},
        {"distance": "cosine"},
        {"generation": "g", "seed": "x"},
        {"generation": "g", "radius": "wide"},
    ],
)
def test_metadata_that_would_be_guessed_at_is_refused(metadata: Any) -> None:
    with pytest.raises(IntegrityError):
        MemoryInfo.from_dict(metadata)


def spoiled(**changes: Any) -> dict[str, Any]:
    return {"emb": rows(), "token_h": 3, "token_w": 4, **changes}


@pytest.mark.parametrize(
    "arrays",
    [
        {"emb": rows()},
        {"token_h": 3, "token_w": 4},
        spoiled(emb=rows() * 2),
        spoiled(emb=np.zeros((4, 6), np.float32)),
        spoiled(emb=np.full((4, 6), np.nan, np.float32)),
        spoiled(emb=rows()[0]),
        spoiled(emb=np.zeros((0, 6), np.float32)),
        spoiled(emb=np.array(["a"])),
        spoiled(emb=np.ones((2, 1), np.int64)),
        spoiled(emb=np.array([{}], object)),
        spoiled(token_h=0),
        spoiled(token_h=-3),
        spoiled(token_h=2.5),
        spoiled(token_h="3"),
        spoiled(token_h=[3, 4]),
        spoiled(metadata="{"),
        spoiled(metadata=7),
        spoiled(metadata=["a", "b"]),
        spoiled(metadata=np.array({"a": 1}, object)),
    ],
)
def test_a_file_that_is_no_memory_is_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "memory.npz", **arrays)
    with pytest.raises(IntegrityError):
        read_memory(tmp_path / "memory.npz")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps({"emb": 1}), b"\x93NUMPY"])
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "memory.npz").write_bytes(data)
    with pytest.raises(IntegrityError):
        read_memory(tmp_path / "memory.npz")


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    write_memory(tmp_path / "whole.npz", Memory(rows(), 3, 4, INFO))
    whole = (tmp_path / "whole.npz").read_bytes()
    for part in range(0, len(whole) - 1, 37):
        with pytest.raises(IntegrityError):
            read_memory(whole[:part])


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_memory(tmp_path / "memory.npz")


def test_float64_and_float16_of_others_become_float32(tmp_path: Path) -> None:
    np.savez(tmp_path / "memory.npz", **spoiled(emb=rows().astype(np.float64)))
    assert read_memory(tmp_path / "memory.npz").emb.dtype == np.float32


@pytest.mark.parametrize(
    "info",
    [
        None,
        MemoryInfo(),
        INFO,
        MemoryInfo(extractor="tf_efficientnet_lite0", input_size=(448, 448)),
        MemoryInfo(extractor_digest="ab" * 32, extractor="renamed since"),
    ],
)
def test_a_memory_of_the_extractor_is_taken(info: MemoryInfo | None) -> None:
    Memory(rows(), 3, 4, info).require(card())


@pytest.mark.parametrize(
    ("memory", "ours"),
    [
        (Memory(rows(dim=5), 3, 4), card()),
        (Memory(rows(), 4, 3), card()),
        (Memory(rows(), 3, 4, MemoryInfo(extractor="dinov2")), card()),
        (Memory(rows(), 3, 4, INFO), card(digest="cd" * 32)),
        (Memory(rows(), 3, 4, MemoryInfo(input_size=(224, 224))), card()),
        (Memory(rows(), 3, 4, MemoryInfo(extractor="lite0", input_size=(224, 224))), card()),
    ],
)
def test_a_memory_of_another_extractor_is_refused(memory: Memory, ours: ExtractorCard) -> None:
    with pytest.raises(RequestError, match="another extractor"):
        memory.require(ours)


def test_unit() -> None:
    made = unit(np.array([[3.0, 4.0], [1e-20, 0.0]]))
    assert np.allclose(made, [[0.6, 0.8], [1.0, 0.0]])
    for bad in ([[0.0, 0.0]], [[np.nan, 1.0]], [[np.inf, 1.0]]):
        with pytest.raises(IntegrityError):
            unit(np.array(bad))


def test_damage_anywhere_in_a_packed_file_is_refused_or_harmless(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "packed.npz", emb=rows(), token_h=3, token_w=4)
    whole = (tmp_path / "packed.npz").read_bytes()
    for place in range(len(whole)):
        for bit in (1, 32):
            spoilt = bytearray(whole)
            spoilt[place] ^= bit
            with contextlib.suppress(IntegrityError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numpy, about a header that it then refuses
                assert np.array_equal(read_memory(bytes(spoilt)).emb, rows())
