"""What an anomaly model is to the servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from data.errors import BundleError
from serving.core.bundle import Bundle, Card
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.rule import CALIBRATION, KEY, Settings
from serving.kinds.anomaly.answers import AnomalyForm
from serving.kinds.base import Explanation
from serving.source import Served

if TYPE_CHECKING:
    from serving.kinds.anomaly.engine import AnomalyEngine


class AnomalyKind:
    """See ``serving.kinds.base.Kind``."""

    #: Regions are told in pixels of the photograph.
    locates = True

    def load(self, served: Served, *, precision: str, threads: int | None) -> AnomalyEngine:
        """Open, verify, load, and hold the scores against the golden ones."""
        # Runtime and index are heavy, and a transformer, which knows kinds too, has neither.
        from serving.kinds.anomaly.engine import load_anomaly

        return load_anomaly(served, precision=precision, threads=threads)

    def form(self, bundle: Bundle) -> AnomalyForm:
        """By the bundle's calibration and settings."""
        calibration = Calibration.from_dict(json.loads(bundle.read(CALIBRATION)))
        classes = [head.classes for head in bundle.card.heads]
        if [len(names) for names in classes] != [2]:
            raise BundleError(
                f"The anomaly bundle of {bundle.card.task!r} has the classes {classes}, not one pair.",
                hint="Its one head has two: what is as it should be, and what isn't. Export it again.",
            )
        ((ok, ng),) = classes
        return AnomalyForm(calibration.threshold, (ok, ng), _settings(bundle.card).blur_sigma)

    def form_of_response(self, parameters: Mapping[str, str]) -> AnomalyForm:
        """As ``AnomalyForm.parameters`` says it."""
        return AnomalyForm.of_parameters(parameters)

    def explanation(self, card: Card) -> Explanation:
        """The patches' own distances: nothing has to be derived for it."""
        return Explanation(_settings(card).grid, None, "distances")

    def embedding(self, card: Card) -> int:
        """The mean of an image's patches, as ``reference.npz`` has it."""
        return _settings(card).dim


def _settings(card: Card) -> Settings:
    return Settings.from_dict(card.extra.get(KEY))


KIND = AnomalyKind()
