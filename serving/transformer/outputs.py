"""A batch's answers as V2 tensors (contract S5), with NaN and empty text where there is no answer."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from serving.answer import ImageAnswer
from serving.features.columns import write as write_features
from serving.identity import ModelInfo
from serving.kinds.base import Form
from serving.kserve_ext.tensors import Outputs
from serving.transformer.observed import Observed


def tensors(
    answers: Sequence[ImageAnswer],
    form: Form,
    *,
    explain: str,
    map_shape: tuple[int, int] | None,
    features: Observed | None = None,
) -> Outputs:
    """The outputs of S5, and two of ours: ``reasons`` (a JSON list) and ``error`` (a JSON object or "").

    ``map_shape`` is (h, w) of the model's maps, None for a model without them. A model with several heads
    gives ``<head>.map`` beside ``map``, which is the first head's. ``features`` where they were asked for.
    """
    outputs = Outputs()
    outputs.texts("verdict", [a.verdict.verdict if a.verdict else "" for a in answers])
    outputs.texts("reasons", [json.dumps(list(a.verdict.reasons)) if a.verdict else "[]" for a in answers])
    outputs.texts("error", [_error(answer) for answer in answers])
    form.write(outputs, [answer.result for answer in answers])
    if explain == "overlay":
        outputs.blobs("overlay", [answer.overlay or b"" for answer in answers])
    elif explain == "view":
        outputs.blobs("view", [answer.view or b"" for answer in answers])
    elif explain == "map" and map_shape is not None:
        # While versions replace each other, the maps may be another version's than ``map_shape``.
        shape = next((answer.map.shape for answer in answers if answer.map is not None), map_shape)
        nothing = np.full(shape, np.nan, np.float32)
        outputs.array("map", np.stack([nothing if a.map is None else a.map for a in answers]))
        maps = [{} if a.map is None or a.result is None else a.result.maps() for a in answers]
        for head in dict.fromkeys(name for found in maps for name in found):
            outputs.array(f"{head}.map", np.stack([found.get(head, nothing) for found in maps]))
    if features is not None:
        write_features(outputs, features.images, features.dim)
    return outputs


def response_parameters(
    model: ModelInfo, form: Form, unexplained: str | None, features: Observed | None = None
) -> dict[str, str]:
    """Who answered and what the columns mean."""
    found = {**model.parameters(), **form.parameters()}
    if unexplained is not None:
        found["explanation_unavailable"] = unexplained
    if features is not None and features.unavailable is not None:
        found["features_unavailable"] = features.unavailable
    return found


def _error(answer: ImageAnswer) -> str:
    return json.dumps(answer.to_dict()["error"]) if answer.error is not None else ""
