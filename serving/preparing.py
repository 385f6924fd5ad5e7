"""From an image file to a model's input, with the verdict on its quality or why it can't be used."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import ImageDamaged, ImageError
from data.image import DecodeLimits
from data.preprocess import Preprocessing
from data.quality import QualityProfile, QualityVerdict, prepare
from serving.core.bundle import Card
from serving.source import Served

_LOG = logging.getLogger("retiderm.serving")

_UNCHECKED = QualityVerdict("gradable", ("not_checked",), {})


@dataclass(frozen=True, slots=True)
class Ready:
    """An image that was decoded. ``pixels`` uint8 [H, W, 3]; only a gradable one goes to the model."""

    pixels: NDArray[np.uint8]
    verdict: QualityVerdict

    @property
    def gradable(self) -> bool:
        """Whether a model may look at it."""
        return self.verdict.verdict == "gradable"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a model's card says about its input."""

    served: Served
    card: Card
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
        return Ready(prepared.pixels, prepared.verdict or _UNCHECKED)


def load_recipe(served: Served) -> Recipe:
    """Read the recipe from the card. The model's file isn't hashed here: whoever runs it does that.

    Raises:
        BundleError, IntegrityError: the card isn't the one that was meant.
    """
    card = served.open(verify=False).card
    profile = QualityProfile.from_dict(card.quality) if card.quality else None
    return Recipe(served, card, Preprocessing.from_dict(card.preprocessing), profile)
