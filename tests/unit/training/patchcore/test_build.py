from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data.dataset import Dataset
from data.errors import DatasetError, IntegrityError, TaskError
from data.files import read_json
from data.paths import Home
from serving.core.patchcore.extractor import Extractor
from serving.core.patchcore.memory import read_memory
from serving.core.patchcore.search import open_index
from tests.anomaly_sets import parts_dataset, small_task
from tests.extractors import tiny_extractor
from training.patchcore.build import Patches, choose, collect, copies_of, network, save_memory, seeded
from training.spec.patchcore import PatchAugment
from training.task import load_task


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Extractor:
    folder = tmp_path_factory.mktemp("extractor")
    tiny_extractor(folder, preprocessing=small_task().preprocessing.to_dict())
    return Extractor.open(folder, threads=1)


def test_only_ok_training_images_are_remembered_all_of_them(
    parts: Dataset, extractor: Extractor, tmp_path: Path, home: Home
) -> None:
    found = collect(small_task(), parts, extractor, tmp_path / "patches", seed=0)
    images = len(parts.split("train"))
    assert (found.images, found.copies, found.made, len(found)) == (images, images, images * 64, images * 64)
    assert found.grid == (8, 8)
    np.testing.assert_allclose(np.linalg.norm(found.array, axis=1), 1, atol=1e-5)
    again = Patches.open(tmp_path / "patches")
    np.testing.assert_array_equal(again.array, found.array)


def test_a_smaller_share_is_drawn_from_every_image_alike_and_by_the_seed(
    parts: Dataset, extractor: Extractor, tmp_path: Path, home: Home
) -> None:
    images = len(parts.split("train"))
    task = small_task(**{"patchcore.max_patches": images * 10 + 3})
    whole = collect(small_task(), parts, extractor, tmp_path / "whole", seed=0).array.reshape(images, 64, -1)
    drawn = [
        collect(task, parts, extractor, tmp_path / f"{n}", seed=seed) for n, seed in enumerate((0, 0, 1))
    ]
    assert len(drawn[0]) == images * 10
    np.testing.assert_array_equal(drawn[0].array, drawn[1].array)
    assert not np.array_equal(drawn[0].array, drawn[2].array)
    for of, some in zip(whole, drawn[0].array.reshape(images, 10, -1), strict=True):
        assert (np.abs(of[None] - some[:, None]).max(axis=2).min(axis=1) == 0).all()


def test_fewer_patches_than_images_is_refused(
    parts: Dataset, extractor: Extractor, tmp_path: Path, home: Home
) -> None:
    with pytest.raises(TaskError, match="fewer than the"):
        collect(small_task(**{"patchcore.max_patches": 2}), parts, extractor, tmp_path / "p", seed=0)
    assert not (tmp_path / "p").exists()


def test_without_ok_images_there_is_nothing_to_remember(
    extractor: Extractor, tmp_path: Path, home: Home, parts: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.patchcore import build

    read = build.read_rows

    def none_ok(*arguments: object) -> object:
        rows = read(*arguments)  # type: ignore[arg-type]
        return dataclasses.replace(
            rows, labels={name: values * 0 + 1 for name, values in rows.labels.items()}
        )

    monkeypatch.setattr(build, "read_rows", none_ok)
    with pytest.raises(DatasetError, match="no OK training images"):
        collect(small_task(), parts, extractor, tmp_path / "p", seed=0)


def test_a_memory_says_how_it_was_made_and_is_the_same_made_again(
    parts: Dataset, extractor: Extractor, tmp_path: Path, home: Home
) -> None:
    patches = collect(small_task(), parts, extractor, tmp_path / "patches", seed=0)
    for name in ("one", "two"):
        built = choose(patches, 0.05, seed=3)
        save_memory(built, patches, extractor.card, tmp_path / name, rate=0.05, seed=3)
    one, two = (read_memory(tmp_path / name / "memory.npz") for name in ("one", "two"))
    np.testing.assert_array_equal(one.emb, two.emb)
    assert one.info is not None
    assert two.info is not None
    assert one.info.generation == two.info.generation
    assert one.info.extractor_digest == extractor.card.digest
    assert one.info.n_embeddings == len(patches)
    told = read_json(tmp_path / "one" / "built.json")
    assert told["coreset"] == len(one.emb) == -(-len(patches) // 20)
    distance, _ = open_index(tmp_path / "one" / "index.faiss").search(np.ascontiguousarray(patches.array))
    assert float(distance.max()) == pytest.approx(told["cover_radius"], abs=1e-6)


def test_patches_of_another_extractor_are_refused(
    parts: Dataset, extractor: Extractor, tmp_path: Path, home: Home
) -> None:
    patches = collect(small_task(), parts, extractor, tmp_path / "patches", seed=0)
    other = dataclasses.replace(extractor.card, digest="0" * 64)
    with pytest.raises(IntegrityError, match="another extractor"):
        save_memory(choose(patches, 0.05, seed=0), patches, other, tmp_path / "m", rate=0.05, seed=0)


def test_damaged_patches_are_refused(
    parts: Dataset, extractor: Extractor, tmp_path: Path, home: Home
) -> None:
    folder = tmp_path / "patches"
    collect(small_task(), parts, extractor, folder, seed=0)
    data = (folder / "patches.npy").read_bytes()
    (folder / "patches.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match="no patches"):
        Patches.open(folder)
    (folder / "patches.json").unlink()
    with pytest.raises(IntegrityError, match="no patches"):
        Patches.open(folder)


def test_copies_turn_by_quarters_exactly_and_mirror() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    found = list(copies_of(image, PatchAugment(turns=4, mirror=True)))
    assert len(found) == 8
    np.testing.assert_array_equal(found[0], image)
    np.testing.assert_array_equal(found[1][0], np.rot90(image[0]))
    np.testing.assert_array_equal(found[4][0], image[0][:, ::-1])


def test_other_angles_keep_the_size_and_fill_corners_from_the_edge() -> None:
    image = np.full((1, 40, 60, 3), 200, np.uint8)
    found = list(copies_of(image, PatchAugment(turns=6)))
    assert [one.shape for one in found] == [image.shape] * 6
    assert all((one == 200).all() for one in found)


def test_random_weights_are_the_same_each_time(home: Home) -> None:
    import torch

    task = small_task()
    states = [network(task).state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other = network(seeded(task, 1)).state_dict()
    assert any(not torch.equal(states[0][key], other[key]) for key in other)


def test_another_kind_of_task_has_no_memory() -> None:
    with pytest.raises(TaskError, match="only an anomaly task"):
        seeded(load_task("dr_grading"), 1)


def test_a_set_without_validation_images_has_no_threshold(tmp_path: Path, home: Home) -> None:
    from training.patchcore.scoring import calibrate_memory, open_scorer

    dataset = parts_dataset(tmp_path, train=6, ok=3, ng=3)
    folder = tmp_path / "extractor"
    tiny_extractor(folder, preprocessing=small_task().preprocessing.to_dict())
    opened = Extractor.open(folder, threads=1)
    patches = collect(small_task(), dataset, opened, tmp_path / "patches", seed=0)
    save_memory(choose(patches, 0.05, seed=0), patches, opened.card, tmp_path / "m", rate=0.05, seed=0)
    scorer = open_scorer(small_task(), folder, tmp_path / "m")

    class Without:
        """The dataset as if nobody had set validation images aside."""

        def __getattr__(self, name: str) -> object:
            return getattr(dataset, name)

        def split(self, name: str) -> object:
            return dataset.split(name).iloc[:0] if name == "val" else dataset.split(name)

    with pytest.raises(DatasetError, match="no OK validation images"):
        calibrate_memory(scorer, Without(), small_task(), tmp_path / "scores")  # type: ignore[arg-type]
