"""What is measured of a window, and how each of it is put into words.

Every effect is on one scale, 0 to 1: the share of images that would have to change for the window to look
like the reference again (a total variation distance, or a lower bound of it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle.card import HeadCard
from serving.core.drift.features import Floats, below, cuts_of, deviations, tones
from serving.core.drift.null import Counts, Null, count, draw
from serving.core.drift.window import Window


@dataclass(frozen=True, slots=True)
class Told:
    """A difference for people: the reference's figure, the window's, the effect (0 to 1), one sentence."""

    reference: float
    now: float
    effect: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that may shift. ``values`` [n, v] are the reference's; no row holds a NaN.

    ``take`` gives a window's own [m, v] (None where nobody collected them, NaN rows where there are none),
    ``columns`` makes of values what is compared [., f], ``tell`` puts (reference, window) values into words.
    ``groups`` [n] numbers what belongs together, 0 to G - 1. ``unseen`` [e, f] are columns of images that the
    reference might as well have held: without them, what never happened in it could not happen by chance.
    ``yes_or_no``: one column of zeros and ones.
    """

    name: str
    family: str
    head: str | None
    values: Floats
    groups: NDArray[np.intp]
    take: Callable[[Window], Floats | None]
    columns: Callable[[Floats], Floats]
    tell: Callable[[Floats, Floats], Told]
    unseen: Floats | None = None
    yes_or_no: bool = False
    own: Floats = field(init=False)
    weights: Floats = field(init=False)

    def __post_init__(self) -> None:
        own = self.columns(self.values)
        # What was never seen in n images may still be as common as 3 in n ("rule of three").
        rare = min(0.25, 3.0 / len(own))
        spread = self._might(own).var(axis=0)
        weights = 1.0 / (own.shape[1] * np.maximum(spread, rare * (1.0 - rare)))
        object.__setattr__(self, "own", own)
        object.__setattr__(self, "weights", weights)

    def null(self, images: int, draws: int, seed: int) -> Null | Counts:
        """What chance does to the statistic in windows of ``images``."""
        if self.yes_or_no:
            return count(self.own[:, 0], float(self.weights[0]), self.groups, images)
        columns = self._might(self.own)
        added = self.groups.max() + 1 + np.arange(len(columns) - len(self.own))
        groups = np.concatenate([self.groups, added])
        return draw(columns, self.weights, groups, images, draws, seed)

    def _might(self, own: Floats) -> Floats:
        """The reference's columns, and those that it might as well have held."""
        return own if self.unseen is None else np.concatenate([own, self.unseen])

    def of(self, window: Window) -> Floats | None:
        """The window's values without the rows that have none; None where nobody collected them."""
        found = self.take(window)
        return None if found is None else found[~np.isnan(found).any(axis=1)]


def distribution(
    name: str,
    family: str,
    values: Floats,
    groups: NDArray[np.intp],
    take: Callable[[Window], Floats | None],
    what: str,
    less: str,
    more: str,
    *,
    head: str | None = None,
    digits: int = 2,
) -> Measure:
    """A number an image [n]. ``what`` it is called, and what its going down and up mean (``the photographs
    are less sharp``)."""
    cuts = cuts_of(values)

    def column(window: Window) -> Floats | None:
        found = take(window)
        return None if found is None else found[:, None]

    def tell(reference: Floats, window: Floats) -> Told:
        before, now = float(np.median(reference)), float(np.median(window))
        effect = _apart(reference[:, 0], window[:, 0], cuts)
        figures = f"median {what} {now:.{digits}f} against {before:.{digits}f}"
        if abs(now - before) < 0.1 * float(reference.std()):
            return Told(before, now, effect, f"{what[0].upper()}{what[1:]} is spread otherwise: {figures}")
        change = less if now < before else more
        return Told(before, now, effect, f"{change[0].upper()}{change[1:]}: {figures}")

    return Measure(
        name, family, head, values[:, None], groups, column, lambda given: below(given[:, 0], cuts), tell,
        _extremes(len(cuts)),
    )  # fmt: skip


def colour(values: Floats, groups: NDArray[np.intp]) -> Measure:
    """The images' tones, from means and deviations [n, 6] of their channels."""
    own = tones(values)
    cuts = [cuts_of(own[:, i]) for i in range(own.shape[1])]
    words = (
        ("bluer", "redder"),
        ("more purple", "greener"),
        ("darker", "brighter"),
        ("flatter", "richer in contrast"),
    )

    def columns(given: Floats) -> Floats:
        found = tones(given)
        return np.concatenate([below(found[:, i], cut) for i, cut in enumerate(cuts)], axis=1)

    def tell(reference: Floats, window: Floats) -> Told:
        before, now = tones(reference), tones(window)
        effects = [_apart(before[:, i], now[:, i], cut) for i, cut in enumerate(cuts)]
        most = int(np.argmax(effects))
        one, other = float(np.median(before[:, most])), float(np.median(now[:, most]))
        change = words[most][int(other > one)]
        figures = _tone(most, one, other)
        return Told(one, other, effects[most], f"The images are {change}: {figures}")

    def take(window: Window) -> Floats | None:
        return answered(window, window.colour)

    unseen = _extremes(sum(len(cut) for cut in cuts))
    return Measure("colour", "inputs", None, values, groups, take, columns, tell, unseen)


def embedding(scores: Floats, groups: NDArray[np.intp], take: Callable[[Window], Floats | None]) -> Measure:
    """Where images lie to the model: scores [n, k] along the principal directions."""
    centre = scores.mean(axis=0)
    spread = np.maximum(scores.std(axis=0), 1e-6 + 1e-3 * float(scores.std()))

    def columns(given: Floats) -> Floats:
        return deviations(given, centre, spread)

    def tell(reference: Floats, window: Floats) -> Told:
        one, other = columns(reference), columns(window)
        moved = float(((other.mean(axis=0) - one.mean(axis=0)) ** 2).sum())
        # What chance alone moves means of so many directions by.
        chance = one.shape[1] * (1.0 / len(one) + 1.0 / len(other))
        far = math.sqrt(max(0.0, moved - chance))
        # Two unit normals at this distance differ in so much of their mass.
        effect = math.erf(far / (2.0 * math.sqrt(2.0)))
        text = f"The images' centre, as the model sees them, has moved by {far:.2f} deviations"
        return Told(0.0, far, effect, text)

    return Measure("embedding", "inputs", None, scores, groups, take, columns, tell)


def share(
    name: str,
    family: str,
    values: Floats,
    groups: NDArray[np.intp],
    take: Callable[[Window], Floats | None],
    what: str,
    *,
    head: str | None = None,
) -> Measure:
    """A yes or no an image [n], as 1 or 0; ``what`` finishes "30 % of the images …"."""

    def column(window: Window) -> Floats | None:
        found = take(window)
        return None if found is None else found[:, None]

    def tell(reference: Floats, window: Floats) -> Told:
        before, now = float(reference.mean()), float(window.mean())
        text = f"{now:.1%} of the images {what}, against {before:.1%}"
        return Told(before, now, abs(now - before), text)

    return Measure(
        name, family, head, values[:, None], groups, column, lambda given: given, tell,
        yes_or_no=True,
    )  # fmt: skip


def class_mix(
    head: HeadCard,
    probabilities: Floats,
    groups: NDArray[np.intp],
    take: Callable[[Window], Floats | None],
    *,
    labels_only: bool = False,
) -> Measure:
    """How common each class is among the answers, from probabilities [n, C].

    The mean probability of each class is compared rather than how often it is the answer: that is the score
    of the likelihood under another class mix where probabilities are calibrated, and a rare class moves it
    before it is ever the answer. ``labels_only`` compares the answers, where no more is known.
    """

    def called(given: Floats) -> Floats:
        return np.asarray(np.eye(given.shape[1])[given.argmax(axis=1)], dtype=np.float64)

    def columns(given: Floats) -> Floats:
        return called(given) if labels_only else given

    def tell(reference: Floats, window: Floats) -> Told:
        # Told in answers, which people count, whatever is compared.
        before, now = called(reference).mean(axis=0), called(window).mean(axis=0)
        moved = now - before
        most = int(np.argmax(np.abs(moved)))
        text = (
            f"{head.titles[most]} is {'more' if moved[most] > 0 else 'less'} common among the answers: "
            f"{now[most]:.1%} against {before[most]:.1%}"
        )
        return Told(float(before[most]), float(now[most]), float(np.abs(moved).sum() / 2), text)

    unseen = np.eye(len(head.classes))
    return Measure("class_mix", "outputs", head.name, probabilities, groups, take, columns, tell, unseen)


def uncertain(head: HeadCard, probabilities: Floats) -> Floats:
    """Whether each answer is uncertain by its head's card, as 1 or 0 [n]; NaN where there is no answer."""
    top = probabilities.max(axis=1)
    doubtful = (top < head.uncertain_below) | (head.uncertain_below >= 1.0)
    return np.asarray(np.where(np.isnan(top), np.nan, doubtful), dtype=np.float64)


def _extremes(columns: int) -> Floats:
    """An image beyond every cut, and one before every cut."""
    return np.stack([np.zeros(columns), np.ones(columns)])


def answered(window: Window, values: Floats | None) -> Floats | None:
    """Values [n, v] with NaN for images that the quality gate refused, as the reference has them."""
    if values is None or window.gradable is None:
        return values
    return np.where(window.gradable[:, None], values, np.nan)


def _apart(reference: Floats, window: Floats, cuts: Floats) -> float:
    """The largest difference of two distributions' shares below a cut, 0 to 1."""
    return float(np.abs(below(reference, cuts).mean(axis=0) - below(window, cuts).mean(axis=0)).max())


def _tone(which: int, before: float, now: float) -> str:
    if which == 0:
        return f"red over blue {math.exp(now):.2f} against {math.exp(before):.2f}"
    if which == 1:
        return f"green over red and blue {math.exp(now):.2f} against {math.exp(before):.2f}"
    name: Sequence[str] = ("mean grey level", "spread of the grey levels")
    return f"{name[which - 2]} {now:.0f} against {before:.0f}"
