"""An anomaly model's answer: per image as the V1 document says it, per batch as tensors."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.placement import Placement
from serving.kinds.base import Sink


@dataclass(frozen=True, slots=True)
class Spot:
    """A region: ``box`` (x, y, width, height), ``area_px``, and its outline's pixels (x, y), int32 [n, 2]."""

    box: tuple[int, int, int, int]
    area_px: float
    contour: NDArray[np.int32]

    def placed(self, placement: Placement) -> Spot | None:
        """The same in the photograph; None for one that lies in what was padded."""
        box = placement.box(*self.box)
        if box is None:
            return None
        return Spot(box, placement.area(self.area_px), placement.points(self.contour))

    def to_dict(self) -> dict[str, Any]:
        """The V1 form."""
        return {"bbox": list(self.box), "area_px": self.area_px, "contour": self.contour.tolist()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Spot:
        """The inverse."""
        x, y, width, height = value["bbox"]
        contour = np.array(value["contour"], np.int32).reshape(-1, 2)
        return cls((x, y, width, height), value["area_px"], contour)


@dataclass(frozen=True, slots=True)
class AnomalyResult:
    """One image's answer. See ``serving.kinds.base.Result``.

    ``score`` and ``form.threshold`` are squared L2 distances between unit vectors, 0 to 4. ``spots`` are
    largest first, in pixels of the model's input until :meth:`placed`. ``map`` is each patch's distance,
    float32 [Ht, Wt].
    """

    form: AnomalyForm
    score: float
    label: str | None
    spots: tuple[Spot, ...]
    map: NDArray[np.float32] | None = None

    def maps(self) -> dict[str, NDArray[np.float32]]:
        """None: there is one thing to ask for."""
        return {}

    def placed(self, placement: Placement) -> AnomalyResult:
        """The same with the regions in pixels of the photograph."""
        found = (spot.placed(placement) for spot in self.spots)
        return dataclasses.replace(self, spots=tuple(spot for spot in found if spot is not None))

    def overlay(self, pixels: NDArray[np.uint8]) -> bytes | None:
        """The distances, coloured by how they compare with the threshold, and the regions' outlines."""
        if self.map is None:
            return None
        from serving.kinds.anomaly.overlay import overlay_png  # only where images are

        outlines = [spot.contour for spot in self.spots]
        return overlay_png(pixels, self.map, self.form.blur_sigma, self.form.threshold, outlines)

    def to_dict(self) -> dict[str, Any]:
        """The V1 form."""
        return {
            "anomaly": {
                "score": self.score,
                "threshold": self.form.threshold,
                "label": self.label,
                "regions": [spot.to_dict() for spot in self.spots],
            }
        }

    def counts(self) -> Iterator[tuple[str, str, bool]]:
        """The label."""
        yield "anomaly", self.label or "uncalibrated", False


@dataclass(frozen=True, slots=True)
class AnomalyForm:
    """What is the same for every image of a model. See ``serving.kinds.base.Form``.

    ``threshold`` is None for a memory without calibration; ``labels`` are what is below it and what is from
    it on; ``blur_sigma`` makes a map at the input's size of the patches' distances.
    """

    threshold: float | None
    labels: tuple[str, str]
    blur_sigma: float

    def parameters(self) -> dict[str, str]:
        """Numbers as text that reads back exactly. There are no heads, hence no columns with classes."""
        return {
            "kind": "anomaly",
            "classes": "{}",
            "labels": json.dumps(list(self.labels)),
            "threshold": "" if self.threshold is None else repr(self.threshold),
            "blur_sigma": repr(self.blur_sigma),
        }

    @classmethod
    def of_parameters(cls, given: Mapping[str, str]) -> AnomalyForm:
        """The inverse."""
        ok, ng = json.loads(given["labels"])
        threshold = float(given["threshold"]) if given["threshold"] else None
        return cls(threshold, (ok, ng), float(given["blur_sigma"]))

    def describe(self) -> dict[str, Any]:
        """For the metadata."""
        return {
            "kind": "anomaly",
            "classes": {},
            "labels": list(self.labels),
            "threshold": self.threshold,
            "distance": "squared_l2",
        }

    def tensor_types(self) -> list[dict[str, Any]]:
        """V2 metadata of the predictor; ``anomaly.map`` comes when explained."""
        return _types("score", "label", "regions")

    def answer_types(self) -> list[dict[str, Any]]:
        """V2 metadata of the transformer."""
        return _types("score", "threshold", "label", "regions")

    def read(self, tensors: Mapping[str, Any]) -> tuple[AnomalyResult, ...]:
        """One result an image."""
        maps = tensors.get("anomaly.map")
        return tuple(
            AnomalyResult(
                form=self,
                score=float(score),
                label=tensors["anomaly.label"][i].decode() or None,
                spots=tuple(Spot.from_dict(value) for value in json.loads(tensors["anomaly.regions"][i])),
                map=None if maps is None else maps[i],
            )
            for i, score in enumerate(tensors["anomaly.score"])
        )

    def write(self, sink: Sink, results: Sequence[Any]) -> None:
        """Score, threshold, label, and the regions as JSON; empty text where there is no answer."""
        there: list[AnomalyResult | None] = list(results)
        limit = math.nan if self.threshold is None else _not_below(self.threshold)
        sink.array("anomaly.score", np.array([r.score if r else math.nan for r in there], np.float32))
        sink.array("anomaly.threshold", np.array([limit if r else math.nan for r in there], np.float32))
        sink.texts("anomaly.label", [(r.label or "") if r else "" for r in there])
        sink.texts("anomaly.regions", [regions_text(r.spots) if r else "" for r in there])


def regions_text(spots: Sequence[Spot]) -> str:
    """Regions as one BYTES element."""
    return json.dumps([spot.to_dict() for spot in spots], separators=(",", ":"))


def _not_below(threshold: float) -> float:
    """The least float32 that is not below: a score in float32 is at least this or not, as decided."""
    near = np.float32(threshold)
    # In float64: numpy would round the threshold to compare it.
    return float(near if float(near) >= threshold else np.nextafter(near, np.float32(np.inf)))


def _types(*names: str) -> list[dict[str, Any]]:
    numbers = ("score", "threshold")
    return [
        {"name": f"anomaly.{name}", "datatype": "FP32" if name in numbers else "BYTES", "shape": [-1]}
        for name in names
    ]
