"""From a checked dataset to a memory of what is normal: the OK training images' patches, then a coreset."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import DatasetError, IntegrityError, TaskError
from data.files import atomic_dir, read_json, sha256_bytes, write_json
from data.progress import track
from serving.core.patchcore.coreset import Coreset, coreset_size, select
from serving.core.patchcore.extractor import Extractor, ExtractorCard
from serving.core.patchcore.memory import DISTANCE, Memory, MemoryInfo, now, write_memory
from serving.core.patchcore.rule import INDEX, MEMORY
from serving.core.patchcore.search import build_index
from training.labels import Rows, read_rows

if TYPE_CHECKING:
    from data.dataset import Dataset
    from data.preprocess import Preprocessing
    from training.patchcore.features import PatchFeatures
    from training.spec.patchcore import PatchAugment, PatchCoreSpec
    from training.task import Task

#: The files of a folder of patches; how a memory was made, beside it.
PATCHES, ABOUT, BUILT = "patches.npy", "patches.json", "built.json"

#: Places of the head's classes: what the memory is made of, and what is looked for.
OK, NG = 0, 1

#: Images that are embedded together.
BATCH = 8


@dataclass(frozen=True, slots=True)
class Patches:
    """Patches of OK images on disk: ``array`` float32 [n, D], mapped from the file, and where they came from.

    ``images`` counts the OK training images, ``copies`` the turned and mirrored ones as well, ``made`` the
    patches before sampling.
    """

    array: NDArray[np.float32]
    images: int
    copies: int
    made: int
    grid: tuple[int, int]
    extractor_digest: str

    def __len__(self) -> int:
        return len(self.array)

    @classmethod
    def open(cls, folder: Path) -> Patches:
        """What :func:`collect` wrote; :class:`IntegrityError` when it is not that."""
        try:
            about = read_json(folder / ABOUT)
            array = np.load(folder / PATCHES, mmap_mode="r", allow_pickle=False)
            about["grid"] = tuple(about["grid"])
            found = cls(array, **about)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise IntegrityError(f"{folder} holds no patches: {error}", hint="Run again.") from error
        if array.ndim != 2 or array.dtype != np.float32:
            raise IntegrityError(f"{folder} holds no patches.", hint="Run again.")
        return found


@dataclass(frozen=True, slots=True)
class Built:
    """A memory's coreset, and what it cost: ``seconds`` of choosing, ``coreset`` what was chosen."""

    emb: NDArray[np.float32]
    coreset: Coreset
    seconds: float


def of_class(rows: Rows, head: str, which: int) -> NDArray[np.intp]:
    """The places of a class's images among the rows."""
    return np.flatnonzero(rows.labels[head] == which)


def pixels_of(
    dataset: Dataset, preprocessing: Preprocessing, rows: Rows, chosen: NDArray[np.intp]
) -> Iterator[NDArray[np.uint8]]:
    """The chosen rows' preprocessed images, uint8 [n, H, W, 3], in batches and in order."""
    from training.fit.cache import load_pixels

    pixels = load_pixels(dataset, preprocessing)
    places = pixels.where([rows.sha256[i] for i in chosen])
    for start in range(0, len(places), BATCH):
        yield np.asarray(pixels.array[places[start : start + BATCH]])


def a_few(dataset: Dataset, task: Task) -> NDArray[np.uint8]:
    """The first OK training images, uint8 [n, H, W, 3], that an extractor is compared on.

    Raises:
        DatasetError: there is none.
    """
    return next(pixels_of(dataset, task.preprocessing, *_ok_training(dataset, task)))


def collect(task: Task, dataset: Dataset, extractor: Extractor, out: Path, *, seed: int) -> Patches:
    """Embed the OK training images and keep at most ``max_patches`` of their patches in ``out``.

    Where there are more, each image gives as many as any other, drawn by ``seed`` and the image's content.

    Raises:
        DatasetError: there is no OK training image.
    """
    spec = settings_of(task)
    rows, chosen = _ok_training(dataset, task)
    height, width = extractor.card.grid
    dim, each = extractor.card.dim, height * width
    turned = spec.augment.turns * (2 if spec.augment.mirror else 1)
    made = len(chosen) * turned * each
    keep = min(each, spec.max_patches // (len(chosen) * turned))
    if not keep:
        raise TaskError(
            f"`patchcore.max_patches` is {spec.max_patches}, fewer than the {len(chosen) * turned} images.",
            hint="Raise it, or leave images or turned copies out.",
        )
    with atomic_dir(out) as temporary:
        array = np.lib.format.open_memmap(
            temporary / PATCHES, mode="w+", dtype=np.float32, shape=(len(chosen) * turned * keep, dim)
        )
        at, image = 0, 0
        batches = pixels_of(dataset, extractor.preprocessing, rows, chosen)
        for batch in track(batches, "Embedding OK images", total=math.ceil(len(chosen) / BATCH)):
            for copy, copies in enumerate(copies_of(batch, spec.augment)):
                patches = extractor.embed(copies).reshape(len(batch), each, dim)
                for i, one in enumerate(patches):
                    key = rows.sha256[chosen[image + i]]
                    array[at : at + keep] = one[_drawn(each, keep, seed, key, copy)]
                    at += keep
            image += len(batch)
        array.flush()
        del array
        write_json(
            temporary / ABOUT,
            {
                "images": len(chosen),
                "copies": len(chosen) * turned,
                "made": made,
                "grid": [height, width],
                "extractor_digest": extractor.card.digest,
            },
        )
    return Patches.open(out)


def choose(patches: Patches, rate: float, *, seed: int) -> Built:
    """The coreset of the patches: k-center greedy, exact and seeded, in steps that are shown."""
    count = coreset_size(len(patches), rate)
    since = time.perf_counter()
    shown = _Shown(count)
    coreset = select(patches.array, count, seed=seed, progress=shown)
    return Built(
        np.ascontiguousarray(patches.array[coreset.indices]), coreset, round(time.perf_counter() - since, 3)
    )


class _Shown:
    """The coreset's progress as sparse lines: it may take minutes, and a pipeline's step shows its lines."""

    def __init__(self, total: int) -> None:
        self._total, self._last = total, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last > 10:
            self._last = now
            print(f"coreset {done:,} of {total:,}", flush=True)


def _drawn(each: int, keep: int, seed: int, key: str, copy: int) -> NDArray[np.intp]:
    if keep >= each:
        return np.arange(each)
    rng = np.random.default_rng([seed, copy, int(key[:16], 16)])
    return np.sort(rng.choice(each, keep, replace=False))


def _ok_training(dataset: Dataset, task: Task) -> tuple[Rows, NDArray[np.intp]]:
    rows = read_rows(dataset, "train", task.heads)
    chosen = of_class(rows, task.heads[0].name, OK)
    if not len(chosen):
        raise DatasetError(
            "The dataset has no OK training images, so there is nothing normal to remember.",
            hint="Give OK images to the train split: retiderm data ingest says how splits are made.",
        )
    return rows, chosen


def settings_of(task: Task) -> PatchCoreSpec:
    """The task's ``patchcore:``; :class:`TaskError` for a task of another kind."""
    if task.patchcore is None:
        raise TaskError(f"Task {task.name} is of kind {task.kind}; only an anomaly task has a memory.")
    return task.patchcore


def seeded(task: Task, seed: int) -> Task:
    """The task with a run's own seed."""
    return dataclasses.replace(task, patchcore=dataclasses.replace(settings_of(task), seed=seed))


def network(task: Task) -> PatchFeatures:
    """The task's frozen network, the same each time it is made, random weights too."""
    import torch

    from training.patchcore.features import build_features

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings_of(task).seed)
        return build_features(task)


def copies_of(images: NDArray[np.uint8], augment: PatchAugment) -> Iterator[NDArray[np.uint8]]:
    """The images [n, H, W, 3] themselves, then turned by each further step of the circle, mirrored ones last.

    Turning by an angle that is no quarter (or of an image that is no square) leaves corners, which the
    nearest edge fills.
    """
    for source in (images, images[:, :, ::-1]) if augment.mirror else (images,):
        for turn in range(augment.turns):
            yield np.stack([_turned(image, turn / augment.turns) for image in source])


def _turned(image: NDArray[np.uint8], part: float) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if height == width and (4 * part).is_integer():
        return np.rot90(image, int(4 * part))
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 360 * part, 1.0)
    turned = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(turned, np.uint8)


def save_memory(
    built: Built, patches: Patches, extractor: ExtractorCard, out: Path, *, rate: float, seed: int
) -> None:
    """Write ``memory.npz``, ``index.faiss`` and how they were made, whole or not at all.

    Raises:
        IntegrityError: the patches are another extractor's.
    """
    if patches.extractor_digest != extractor.digest:
        raise IntegrityError("The patches were made by another extractor.", hint="Run again with --no-cache.")
    height, width = patches.grid
    # By content: the same memory made again is the same generation.
    generation = sha256_bytes(built.emb.tobytes() + extractor.digest.encode())[:32]
    info = MemoryInfo(
        extractor=extractor.name,
        extractor_digest=extractor.digest,
        input_size=extractor.input_size,
        coreset_rate=rate,
        coreset_rate_applied=len(built.emb) / len(patches),
        count_images=patches.images,
        n_embeddings=len(patches),
        radius=built.coreset.radius,
        seed=seed,
        created_at=now(),
        distance=DISTANCE,
        generation=generation,
    )
    with atomic_dir(out) as temporary:
        write_memory(temporary / MEMORY, Memory(built.emb, height, width, info))
        (temporary / INDEX).write_bytes(build_index(built.emb))
        write_json(
            temporary / BUILT,
            {
                "images": patches.images,
                "copies": patches.copies,
                "patches_made": patches.made,
                "patches": len(patches),
                "coreset": len(built.emb),
                "coreset_rate": rate,
                "cover_radius": built.coreset.radius,
                "seed": seed,
                "seconds": built.seconds,
            },
        )
