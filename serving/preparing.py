"""From an image file to a model's input, with the verdict on its quality or why it can't be used."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import ImageDamaged, ImageError
from data.image import DecodeLimits, read_header
from data.placement import Placement, placement
from data.preprocess import Preprocessing
from data.quality import QualityProfile, QualityVerdict, prepare
from serving.core.bundle import Card
from serving.kinds import Kind, kind_of
from serving.kinds.base import Explanation, Form
from serving.source import Served

_LOG = logging.getLogger("retiderm.serving")

_UNCHECKED = QualityVerdict("gradable", ("not_checked",), {})


@dataclass(frozen=True, slots=True)
class Ready:
    """An image that was decoded. ``pixels`` uint8 [H, W, 3]; only a gradable one goes to the model.

    ``placement`` is where they lie in the photograph, for models whose answers name places.
    """

    pixels: NDArray[np.uint8]
    verdict: QualityVerdict
    placement: Placement | None = None

    @property
    def gradable(self) -> bool:
        """Whether a model may look at it."""
        return self.verdict.verdict == "gradable"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a model's bundle says about its input, and how its answers look."""

    served: Served
    card: Card
    kind: Kind
    form: Form
    explanation: Explanation
    preprocessing: Preprocessing
    profile: QualityProfile | None

    def prepare(self, data: bytes, limits: DecodeLimits | None = None) -> Ready | ImageError:
        """Decode, judge and preprocess. An unusable image is a result: others of the batch go on."""
        try:
            prepared = prepare(data, self.preprocessing, self.profile, limits)
        except ImageError as error:
            return error
        except cv2.error as error:
            # What OpenCV can't work on is the picture's fault, and other requests are none the worse for it.
            _LOG.warning("an image can't be prepared: %s", error)
            return ImageDamaged(
                "The image can't be prepared: its shape or size can't be worked on.",
                hint="Send the photograph as the camera made it.",
            )
        where = None
        if self.kind.locates:
            header = read_header(data, limits)
            where = placement(self.preprocessing, prepared.decoded, prepared.field, header)
        return Ready(prepared.pixels, prepared.verdict or _UNCHECKED, where)


def load_recipe(served: Served) -> Recipe:
    """Read the recipe from the card. The model's file isn't hashed here: whoever runs it does that.

    Raises:
        BundleError, IntegrityError: the card isn't the one that was meant.
    """
    bundle = served.open(verify=False)
    card, kind = bundle.card, kind_of(bundle.card.kind)
    profile = QualityProfile.from_dict(card.quality) if card.quality else None
    preprocessing = Preprocessing.from_dict(card.preprocessing)
    shown = kind.explanation(card)
    return Recipe(served, card, kind, kind.form(bundle), shown, preprocessing, profile)
