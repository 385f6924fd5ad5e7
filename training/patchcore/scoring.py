"""A memory's scores on a split of a dataset, and what registry and gate read them as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import DatasetError, IntegrityError
from data.files import atomic_path, read_json
from data.progress import track
from serving.core.bundle import Bundle
from serving.core.patchcore.calibrate import Calibration, calibrate
from serving.core.patchcore.detector import Scorer, Scores, open_detector
from serving.core.patchcore.extractor import Extractor
from serving.core.patchcore.memory import read_memory
from serving.core.patchcore.rule import INDEX, MEMORY, ScoreRule, Settings
from serving.core.patchcore.search import open_index
from training.labels import Rows, read_rows
from training.patchcore.build import BATCH, BUILT, NG, OK, of_class, pixels_of, settings_of
from training.predict import Predictions
from training.spec.parts import HeadSpec

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task

#: How steep the stored answers are: ``logit = STEEPNESS · (score − threshold)``. Scores lie in 0 to 4, so
#: that even the farthest answers stay apart in a float64 softmax, and rank as the scores do.
STEEPNESS = 4.0

_ARRAYS = ("ids", "label", "score", "distances", "embedding")
_SLICE = "slice."

# From the threshold on it is not OK: an image that scores just that must not tie with OK's 0.
_AT_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Scored:
    """What a memory says of N images of a split, in the order of :func:`training.labels.read_rows`.

    ``score`` float32 [N] and ``distances`` float32 [N, Ht, Wt] in squared L2; ``label`` 0 is OK, 1 is not,
    -1 unknown; ``embedding`` float32 [N, D] is the mean of an image's patches; ``slices`` by column [N], ""
    where an image has none, for the gate's rule on groups.
    """

    ids: NDArray[np.str_]
    label: NDArray[np.int64]
    score: NDArray[np.float32]
    distances: NDArray[np.float32]
    embedding: NDArray[np.float32]
    slices: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, label: int) -> NDArray[np.float32]:
        """The scores of one class's images."""
        return np.asarray(self.score[self.label == label])

    def columns(self) -> dict[str, NDArray[Any]]:
        """Every array, all of them [N, …], by the name that it is stored under."""
        return {
            **{name: getattr(self, name) for name in _ARRAYS},
            **{_SLICE + name: values for name, values in self.slices.items()},
        }

    def take(self, chosen: NDArray[np.intp]) -> Scored:
        """The chosen images."""
        return Scored(
            **{name: getattr(self, name)[chosen] for name in _ARRAYS},
            slices={name: values[chosen] for name, values in self.slices.items()},
        )

    def save(self, path: Path) -> None:
        """Write an ``.npz``, whole or not at all."""
        arrays = self.columns()
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Scored:
        """Read what :meth:`save` wrote; no code in it is run. :class:`IntegrityError` when it is not that."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                slices = {
                    name.removeprefix(_SLICE): stored[name]
                    for name in stored.files
                    if name.startswith(_SLICE)
                }
                found = cls(**{name: stored[name] for name in _ARRAYS}, slices=slices)
        except Exception as error:  # a damaged archive fails in many ways
            raise IntegrityError(f"{path} can't be read: {error}", hint="Score again.") from error
        if len({len(values) for values in found.columns().values()}) != 1:
            raise IntegrityError(f"{path} holds arrays of unlike lengths.", hint="Score again.")
        return found


#: From images uint8 [n, H, W, 3] to patches float32 [n, Ht, Wt, D]: the exported extractor's, or torch's.
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def score_rows(
    scorer: Scorer,
    dataset: Dataset,
    rows: Rows,
    chosen: NDArray[np.intp] | None = None,
    *,
    embed: Embed | None = None,
    what: str = "images",
) -> Scored:
    """Score the chosen rows (all of them when not given) with a memory, as its extractor prepares images.

    ``embed`` takes the place of the exported extractor, for the proof that torch's features score alike.
    """
    picked = np.arange(len(rows)) if chosen is None else chosen
    embed = embed or scorer.extractor.embed
    scores: list[Scores] = []
    means: list[NDArray[np.float32]] = []
    batches = pixels_of(dataset, scorer.extractor.preprocessing, rows, picked)
    for batch in track(batches, f"Scoring {what}", total=-(-len(picked) // BATCH)):
        patches = embed(batch)
        scores.append(scorer.score_patches(patches))
        means.append(np.asarray(patches.mean(axis=(1, 2)), np.float32))
    grid, dim = scorer.settings.grid, scorer.settings.dim
    return Scored(
        ids=np.array([rows.ids[i] for i in picked], dtype=np.str_),
        label=next(iter(rows.labels.values()))[picked],
        score=np.concatenate([np.zeros(0, np.float32), *(part.score for part in scores)]),
        distances=np.concatenate([np.zeros((0, *grid), np.float32), *(part.distances for part in scores)]),
        embedding=np.concatenate([np.zeros((0, dim), np.float32), *means]),
        slices={name: values[picked] for name, values in rows.slices.items()},
    )


def score_split(scorer: Scorer, dataset: Dataset, heads: Sequence[HeadSpec], split: str) -> Scored:
    """Score every image of a split; ``heads`` is the task's only one."""
    return score_rows(scorer, dataset, read_rows(dataset, split, heads), what=f"{split} images")


def predictions(scored: Scored, threshold: float, head: str) -> Predictions:
    """The scores as the two logits ``[0, STEEPNESS · (score − threshold)]`` that registry and gate work on.

    They rank as the scores do, and the second is the larger from the threshold on. They are no probabilities,
    and nothing calibrates them.
    """
    # In float64, as the decision itself: numpy would round the threshold to the scores' float32.
    score = scored.score.astype(np.float64)
    logit = STEEPNESS * (score - threshold)
    logit = np.where(score >= threshold, np.maximum(logit, _AT_LEAST), logit)
    return Predictions(
        ids=scored.ids,
        logits=np.stack([np.zeros_like(logit), logit], axis=1).astype(np.float32),
        labels={head: scored.label},
        embedding=scored.embedding,
        slices=scored.slices,
    )


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold, and how many OK and NG images it rests on."""

    calibration: Calibration
    ok: int
    ng: int


def bundle_predictions(bundle: Bundle, dataset: Dataset, split: str) -> Predictions:
    """What a bundle says about a split, as serving would: for a gate whose stored answers are missing."""
    detector = open_detector(bundle)
    head = HeadSpec(bundle.card.heads[0].name, bundle.card.heads[0].classes)
    scored = score_split(detector.scorer, dataset, [head], split)
    return predictions(scored, detector.threshold, head.name)


def open_scorer(task: Task, extractor: Path, memory: Path) -> Scorer:
    """An extractor's and a memory's folders, with the task's score rule, ready to score.

    Raises:
        RequestError: the memory is another extractor's.
    """
    spec = settings_of(task)
    opened, kept = Extractor.open(extractor), read_memory(memory / MEMORY)
    kept.require(opened.card)
    settings = Settings(
        grid=kept.grid,
        dim=opened.card.dim,
        score=ScoreRule(spec.score.kind, spec.score.percentile, spec.score.top),
        blur_sigma=spec.blur_sigma,
        memory=read_json(memory / BUILT),
    )
    return Scorer(settings, opened, open_index(memory / INDEX))


def calibrate_memory(scorer: Scorer, dataset: Dataset, task: Task, out: Path) -> Calibrated:
    """The threshold by contract S4's rule; what it rests on goes to ``out``.

    OK scores are those of the validation split, since the memory holds the training split's images. Images
    that are not OK count from both: the memory holds none of them.

    Raises:
        DatasetError: there is no OK validation image.
    """
    head = task.heads[0].name
    val = score_split(scorer, dataset, task.heads, "val")
    rows = read_rows(dataset, "train", task.heads)
    unseen = of_class(rows, head, NG)
    ok, ng = val.of(OK), val.of(NG)
    val.save(out / "val.npz")
    if len(unseen):
        more = score_rows(scorer, dataset, rows, unseen, what="NG training images")
        more.save(out / "train_ng.npz")
        ng = np.concatenate([ng, more.score])
    if not len(ok):
        raise DatasetError(
            "The dataset has no OK validation images, so there is no threshold.",
            hint="Give the val split OK images that the train split doesn't have.",
        )
    # A bundle knows no camera: areas are in pixels of the model's input.
    percentile = task.patchcore.score.percentile if task.patchcore is not None else 99.0
    found = calibrate(ok, ng, mm_per_px=1.0, score_percentile=percentile)
    return Calibrated(found, len(ok), len(ng))
