"""What a bundle's data looked like when its model was made: the measures that a window is held against.

Bundles whose ``reference.npz`` has no ``drift.*`` arrays (made before there were any) still give sharpness,
exposure, class mix and the share of doubt; for the rest training images would be the only comparison, and a
model is surer of what it learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, UsageError
from serving.core.bundle import REFERENCE, Bundle, HeadCard
from serving.core.drift import measures as kinds
from serving.core.drift.features import Floats, neighbour_distance, principal
from serving.core.drift.measures import Measure
from serving.core.drift.null import Counts, Null
from serving.core.drift.settings import Settings
from serving.core.drift.window import Window

#: The nearest neighbour whose distance says how unusual an image is.
NEIGHBOURS = 5

_OLD = "this bundle was exported before held-out images were kept for it: export it again"
# A threshold for fewer images holds for more of them, a little too strictly.
_STEP = 10

Take = Callable[[Window], Floats | None]


@dataclass(frozen=True, slots=True)
class Reference:
    """A model's measures, opened once and kept: thresholds are found as they are asked for, and remembered.

    ``absent`` says of each measure that can't be judged why.
    """

    task: str
    digest: str
    heads: tuple[HeadCard, ...]
    metrics: Mapping[str, Any]
    measures: tuple[Measure, ...]
    absent: Mapping[tuple[str, str | None], str]
    _nulls: dict[tuple[str, str | None, int, int, int], Null | Counts] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, bundle: Bundle) -> Reference:
        """Of a bundle.

        Raises:
            BundleError: it has no reference, or its arrays don't fit together.
        """
        card = bundle.card
        return cls.of_arrays(
            bundle.arrays(REFERENCE), card.heads, kind=card.kind, task=card.task, digest=bundle.digest,
            metrics=card.metrics,
        )  # fmt: skip

    @classmethod
    def of_arrays(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        heads: tuple[HeadCard, ...],
        *,
        kind: str = "classification",
        task: str = "",
        digest: str = "",
        metrics: Mapping[str, Any] | None = None,
    ) -> Reference:
        """Of the arrays of a ``reference.npz``; ``docs/bundle.md`` lists them."""
        found = _Builder(arrays, heads if kind == "classification" else ())
        found.inputs()
        found.outputs()
        if kind == "anomaly":
            found.anomaly()
        return cls(task, digest, heads, metrics or {}, tuple(found.measures), found.absent)

    def null(self, measure: Measure, images: int, settings: Settings) -> Null | Counts:
        """What chance does to a measure in a window of ``images``."""
        # A share's count is exact for its own number of images, and costs nothing.
        size = images if measure.yes_or_no else max(settings.least, images - images % _STEP)
        key = (measure.name, measure.head, size, settings.draws, settings.seed)
        if key not in self._nulls:
            self._nulls[key] = measure.null(size, settings.draws, settings.seed)
        return self._nulls[key]


class _Builder:
    """Reads the arrays into measures, and notes what is lacking."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], heads: tuple[HeadCard, ...]) -> None:
        self.arrays, self.heads = arrays, heads
        self.measures: list[Measure] = []
        self.absent: dict[tuple[str, str | None], str] = {}
        groups = arrays.get("drift.group")
        self.groups = None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.intp)

    def inputs(self) -> None:
        """Quality scores, colours, embedding."""
        gradable = self._kept("drift.gradable")
        if gradable is None:
            self.absent["refused", None] = _OLD
        else:
            refused, groups = gradable
            self.measures.append(kinds.share(
                "refused", "inputs", 1.0 - refused, groups,
                lambda window: None if window.gradable is None else (~window.gradable).astype(np.float64),
                "were refused by the quality gate",
            ))  # fmt: skip
        for name, less, more, digits in (
            ("sharpness", "the photographs are less sharp", "the photographs are sharper", 2),
            ("exposure", "the photographs are darker", "the photographs are brighter", 0),
        ):
            kept = self._kept(f"drift.{name}") or self._spread(f"{name}_percentiles")
            if kept is None:
                self.absent[name, None] = f"the bundle's data had no {name}"
                continue
            self.measures.append(kinds.distribution(
                name, "inputs", *kept, _scores(name), name, less, more,
                digits=digits,
            ))  # fmt: skip
        kept = self._kept("drift.colour")
        if kept is None:
            self.absent["colour", None] = _OLD
        else:
            self.measures.append(kinds.colour(*kept))
        self._embedding()

    def _embedding(self) -> None:
        names = ("embedding_mean", "embedding_components", "embedding_sample")
        mean, components, sample = (self.arrays.get(name) for name in names)
        scores, distance = self._kept("drift.scores"), self._kept("drift.distance")
        if mean is None or components is None or sample is None or scores is None or distance is None:
            self.absent["embedding", None] = self.absent["unusual", None] = _OLD
            return
        centre, directions, known = (np.asarray(v, np.float64) for v in (mean, components, sample))
        if scores[0].shape[1] != len(directions) or directions.shape[1] != len(centre):
            raise BundleError(
                "The bundle's drift.scores and embedding_components don't fit together.",
                hint="Export the bundle again from its run.",
            )
        self.measures.append(kinds.embedding(*scores, lambda window: _projected(window, centre, directions)))
        self.measures.append(kinds.distribution(
            "unusual", "inputs", *distance, lambda window: _distances(window, known, len(centre)),
            "distance to what the model learned from", "the images are more usual than the reference's",
            "the images lie farther from what the model learned from", digits=3,
        ))  # fmt: skip

    def outputs(self) -> None:
        """Class mix, confidence and doubt of each head."""
        for head in self.heads:
            kept = self._kept(f"{head.name}.probabilities")
            if kept is None:
                self._old_outputs(head)
                continue
            probabilities, groups = kept
            if probabilities.shape[1] != len(head.classes):
                raise BundleError(
                    f"The bundle's reference knows {probabilities.shape[1]} classes of {head.name!r}, "
                    f"its card {len(head.classes)}.",
                    hint="Export the bundle again from its run.",
                )
            self.measures.append(kinds.class_mix(head, probabilities, groups, _answers(head)))
            self.measures.append(kinds.distribution(
                "confidence", "outputs", probabilities.max(axis=1), groups, _top(head), "confidence",
                "the model is less sure", "the model is surer", head=head.name,
            ))  # fmt: skip
            self._doubt(head, kinds.uncertain(head, probabilities), groups)

    def _old_outputs(self, head: HeadCard) -> None:
        labels = self.arrays.get(f"{head.name}.labels")
        self.absent["confidence", head.name] = _OLD
        if labels is None or not labels.sum():
            self.absent["class_mix", head.name] = self.absent["uncertain", head.name] = _OLD
            return
        sure = np.repeat(np.eye(len(labels)), np.asarray(labels, np.intp), axis=0)
        own = np.arange(len(sure))
        self.measures.append(kinds.class_mix(head, sure, own, _answers(head), labels_only=True))
        doubtful = round(float(self.arrays.get(f"{head.name}.uncertain_share", 0.0)) * len(sure))
        self._doubt(head, (own < doubtful).astype(np.float64), own)

    def _doubt(self, head: HeadCard, values: Floats, groups: NDArray[np.intp]) -> None:
        if not 0.0 < head.uncertain_below < 1.0:
            self.absent["uncertain", head.name] = "the head has no threshold of doubt"
            return

        def take(window: Window) -> Floats | None:
            found = window.probabilities.get(head.name)
            return None if found is None else kinds.uncertain(head, found)

        self.measures.append(
            kinds.share(
                "uncertain", "outputs", values, groups, take, "got an uncertain answer", head=head.name
            )
        )

    def anomaly(self) -> None:
        """The score of an anomaly model, against OK images that aren't in its memory."""
        scores = self.arrays.get("drift.normal_score")
        if scores is None:
            self.absent["score", None] = _OLD
            return
        values = np.asarray(scores, np.float64)
        self.measures.append(kinds.distribution(
            "score", "outputs", values, np.arange(len(values)), lambda window: window.score,
            "anomaly score", "the images are more normal than the reference's",
            "more images look anomalous", digits=3,
        ))  # fmt: skip

    def _kept(self, name: str) -> tuple[Floats, NDArray[np.intp]] | None:
        """An array of the held-out images without rows of NaN, and the groups of the rows that stay."""
        if name not in self.arrays or self.groups is None:
            return None
        values = np.asarray(self.arrays[name], np.float64)
        if len(values) != len(self.groups):
            raise BundleError(
                f"The bundle's reference has {len(self.groups)} drift.group and {len(values)} of {name!r}.",
                hint="Export the bundle again from its run.",
            )
        there = ~np.isnan(values.reshape(len(values), -1)).any(axis=1)
        if not there.any():
            return None
        return values[there], np.unique(self.groups[there], return_inverse=True)[1].astype(np.intp)

    def _spread(self, name: str) -> tuple[Floats, NDArray[np.intp]] | None:
        """As many values as there are training images in the sample, laid along stored percentiles."""
        percentiles = self.arrays.get(name)
        if percentiles is None:
            return None
        count = len(self.arrays.get("embedding_sample", percentiles))
        places = (np.arange(count) + 0.5) / count
        shares = np.linspace(0, 1, len(percentiles))
        return np.interp(places, shares, np.asarray(percentiles, np.float64)), np.arange(count)


def _scores(name: str) -> Take:
    return lambda window: getattr(window, name)


def _answers(head: HeadCard) -> Take:
    return lambda window: window.probabilities.get(head.name)


def _top(head: HeadCard) -> Take:
    def take(window: Window) -> Floats | None:
        found = window.probabilities.get(head.name)
        return None if found is None else found.max(axis=1)

    return take


def _projected(window: Window, mean: Floats, components: Floats) -> Floats | None:
    found = _embedding(window, len(mean))
    return None if found is None else principal(found, mean, components)


def _distances(window: Window, sample: Floats, width: int) -> Floats | None:
    found = _embedding(window, width)
    return None if found is None else neighbour_distance(found, sample, NEIGHBOURS)


def _embedding(window: Window, width: int) -> Floats | None:
    found = kinds.answered(window, window.embedding)
    if found is not None and found.shape[1] != width:
        raise UsageError(
            f"The window's embeddings have {found.shape[1]} numbers, the bundle's {width}.",
            hint="The window is of another model: judge it against that model's bundle.",
        )
    return found
