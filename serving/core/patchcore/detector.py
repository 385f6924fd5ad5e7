"""An anomaly bundle that answers: extractor, memory, threshold and score rule together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, IntegrityError, RequestError, ServingError
from data.files import read_json
from serving.core.bundle import GOLDEN, Bundle, Card
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.extractor import Extractor
from serving.core.patchcore.memory import read_memory
from serving.core.patchcore.rule import CALIBRATION, INDEX, KEY, MEMORY, SCORE_TOLERANCE, Settings
from serving.core.patchcore.score import Region, anomaly_map, regions
from serving.core.patchcore.search import Index, open_index

#: Images at once: a larger batch's activations and patches would grow the process without end.
_CHUNK = 8


@dataclass(frozen=True, slots=True)
class Scores:
    """What a memory says about N images.

    ``score`` float32 [N]; ``distances`` float32 [N, Ht, Wt], squared L2 to the nearest vector of the memory
    (0 to 4); ``maps`` float32 [N, h, w], the same at the size of the model's input, and ``embedding`` float32
    [N, D], the mean of each image's patches, where asked for.
    """

    score: NDArray[np.float32]
    distances: NDArray[np.float32]
    maps: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Warmth:
    """How a detector did on the golden images: the largest difference of a score, and decisions changed."""

    images: int
    max_difference: float
    labels_changed: int


@dataclass(frozen=True, slots=True)
class Scorer:
    """Extractor, memory and score rule, before there is a threshold. May be used from several threads."""

    settings: Settings
    extractor: Extractor
    index: Index

    def score(self, images: NDArray[np.uint8], *, maps: bool = False, embeddings: bool = False) -> Scores:
        """Score preprocessed images, uint8 [N, H, W, 3].

        Raises:
            RequestError: the images have another shape or type.
            ServingError: the extractor gave something that is not a number.
        """
        height, width = self.extractor.card.input_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
            raise RequestError(
                f"The model takes uint8 [N, {height}, {width}, 3], not {images.dtype} {list(images.shape)}.",
                hint="Preprocess the image as the card says: Preprocessing.from_dict(card.preprocessing).",
            )
        parts, means = [], []
        for start in range(0, len(images), _CHUNK):
            patches = self.extractor.embed(images[start : start + _CHUNK])
            parts.append(self.score_patches(patches, maps=maps))
            if embeddings:
                means.append(np.asarray(patches.mean(axis=(1, 2)), np.float32))
        if not parts:
            return Scores(np.zeros(0, np.float32), np.zeros((0, *self.settings.grid), np.float32))
        return Scores(
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.distances for part in parts]),
            np.concatenate([part.maps for part in parts if part.maps is not None]) if maps else None,
            np.concatenate(means) if means else None,
        )

    def score_patches(self, patches: NDArray[np.float32], *, maps: bool = False) -> Scores:
        """Score patch embeddings [N, Ht, Wt, D], whatever made them: the proof of parity gives torch's."""
        count, *grid, dim = patches.shape
        if not np.isfinite(patches).all():
            raise ServingError(
                "The extractor gave a value that is not a finite number, so there is no answer.",
                hint="Check the bundle's golden answers (retiderm models verify).",
            )
        found, _ = self.index.search(np.ascontiguousarray(patches.reshape(-1, dim)))
        distances = np.asarray(found, np.float32).reshape(count, *grid)
        needed = maps or self.settings.score.kind == "percentile"
        made = [self.map(one) if needed else None for one in distances]
        scores = [self.settings.score(one, its) for one, its in zip(distances, made, strict=True)]
        return Scores(
            np.array(scores, np.float32),
            distances,
            np.stack([one for one in made if one is not None]) if maps and count else None,
        )

    def map(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """One image's distances [Ht, Wt] at the size of the model's input, blurred: float32 [h, w]."""
        return anomaly_map(distances, self.extractor.card.input_size, self.settings.blur_sigma)


@dataclass(frozen=True, slots=True)
class Detector:
    """A loaded anomaly bundle: a scorer, and the threshold that decides. May be used from several threads."""

    card: Card
    scorer: Scorer
    calibration: Calibration

    @property
    def threshold(self) -> float:
        """From this score on an image is not OK, and from this value on a place of its map is in a region."""
        return self.calibration.threshold

    @property
    def labels(self) -> tuple[str, str]:
        """The classes' names: of what is below the threshold, and of what is from it on."""
        ok, ng = self.card.heads[0].classes
        return ok, ng

    def label(self, score: float) -> str:
        """The decision on one score."""
        return self.labels[int(float(score) >= self.threshold)]

    def score(self, images: NDArray[np.uint8], *, maps: bool = False, embeddings: bool = False) -> Scores:
        """As :meth:`Scorer.score`."""
        return self.scorer.score(images, maps=maps, embeddings=embeddings)

    def regions(self, map_: NDArray[np.float32]) -> tuple[Region, ...]:
        """Where a map reaches the threshold, largest first, in pixels of the model's input."""
        whole = np.ones(map_.shape, bool)
        return regions(
            map_,
            whole,
            self.threshold,
            self.calibration.mm_per_px or 1.0,
            self.calibration.area_mm2_thr,
        )


def open_detector(
    bundle: Bundle, *, threads: int | None = None, warm: bool = True, index: bool = True
) -> Detector:
    """Load an anomaly bundle and, by default, hold its scores against the golden ones.

    ``threads`` defaults to the CPU quota of this process. ``index`` False searches the plain memory, for a
    bundle whose index is not trusted.

    Raises:
        BundleError: it isn't an anomaly bundle, or its parts don't fit each other.
        IntegrityError: the scores aren't the golden ones within ``SCORE_TOLERANCE``.
    """
    card = bundle.card
    if card.kind != "anomaly":
        raise BundleError(
            f"The bundle of {card.task!r} is of kind {card.kind}, not anomaly.", hint="Name another bundle."
        )
    settings = Settings.from_dict(card.extra.get(KEY))
    extractor = Extractor.open(bundle.root, threads=threads)
    memory = read_memory(bundle.path(MEMORY))
    grid = (memory.token_h, memory.token_w)
    if memory.emb.shape[1] != settings.dim or grid != settings.grid or extractor.card.grid != settings.grid:
        raise BundleError(
            f"The memory of {card.task!r} ({grid[0]}×{grid[1]} patches of {memory.emb.shape[1]}) is not of "
            f"its extractor.",
            hint="Export the bundle again from its run.",
        )
    where: Path | NDArray[np.float32] = bundle.path(INDEX) if index and INDEX in card.files else memory.emb
    calibration = Calibration.from_dict(read_json(bundle.path(CALIBRATION)))
    detector = Detector(card, Scorer(settings, extractor, open_index(where)), calibration)
    if warm:
        result = warm_up(detector, bundle)
        if not result.max_difference <= SCORE_TOLERANCE:
            raise IntegrityError(
                f"The golden images of {card.task!r} score {result.max_difference:.2e} differently from when "
                f"the bundle was made; {SCORE_TOLERANCE:.0e} is allowed.",
                hint="Another build of the runtime, or another processor, is at fault: don't serve with it.",
            )
    return detector


def warm_up(detector: Detector, bundle: Bundle) -> Warmth:
    """Score the bundle's golden images, together and one alone, and compare with what was stored."""
    golden = bundle.arrays(GOLDEN)
    images, wanted = golden["images"], golden["scores"]
    given = np.concatenate([detector.score(images).score, detector.score(images[:1]).score])
    expected = np.concatenate([wanted, wanted[:1]])
    if given.shape != expected.shape or not np.isfinite(given).all():
        return Warmth(len(images), float("inf"), len(images))
    changed = sum(
        detector.label(float(one)) != detector.label(float(other))
        for one, other in zip(given, expected, strict=True)
    )
    return Warmth(len(images), float(np.abs(given - expected).max(initial=0.0)), changed)
