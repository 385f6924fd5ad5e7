"""A batch's answers as V2 tensors (contract S5), with NaN and empty text where there is no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.answer import HeadResult, ImageAnswer
from serving.identity import ModelInfo
from serving.kserve_ext.tensors import Outputs


def tensors(
    answers: Sequence[ImageAnswer],
    classes: Mapping[str, Sequence[str]],
    *,
    explain: str,
    map_shape: tuple[int, int] | None,
) -> Outputs:
    """The outputs of S5, and two of ours: ``reasons`` (a JSON list) and ``error`` (a JSON object or "").

    ``map_shape`` is (h, w) of the model's maps, None for a model without them.
    """
    outputs = Outputs()
    outputs.texts("verdict", [a.verdict.verdict if a.verdict else "" for a in answers])
    outputs.texts("reasons", [json.dumps(list(a.verdict.reasons)) if a.verdict else "[]" for a in answers])
    outputs.texts("error", [_error(answer) for answer in answers])
    for head, names in classes.items():
        results = [answer.heads.get(head) for answer in answers]
        _head(outputs, head, results, len(names))
    if explain == "overlay":
        outputs.blobs("overlay", [answer.overlay or b"" for answer in answers])
    elif explain == "map" and map_shape is not None:
        # While versions replace each other, the maps may be another version's than ``map_shape``.
        shape = next((answer.map.shape for answer in answers if answer.map is not None), map_shape)
        nothing = np.full(shape, np.nan, np.float32)
        outputs.array("map", np.stack([nothing if a.map is None else a.map for a in answers]))
    return outputs


def response_parameters(
    model: ModelInfo, classes: Mapping[str, Sequence[str]], unexplained: str | None
) -> dict[str, str]:
    """Who answered and what the columns mean. V2's parameters are plain, so the classes are JSON text."""
    found = {**model.to_dict(), "classes": json.dumps({head: list(names) for head, names in classes.items()})}
    if unexplained is not None:
        found["explanation_unavailable"] = unexplained
    return found


def _head(outputs: Outputs, head: str, results: Sequence[HeadResult | None], count: int) -> None:
    size = (len(results), count)
    probabilities: NDArray[np.float32] = np.full(size, np.nan, np.float32)
    members: NDArray[np.bool_] = np.zeros(size, np.bool_)
    for i, result in enumerate(results):
        if result is not None:
            probabilities[i], members[i] = result.probabilities, result.members
    outputs.array(f"{head}.probabilities", probabilities)
    outputs.texts(f"{head}.label", [r.classes[r.label] if r else "" for r in results])
    # Without an answer nothing is certain.
    outputs.array(f"{head}.uncertain", np.array([r.uncertain if r else True for r in results], np.bool_))
    outputs.array(f"{head}.set", members)


def _error(answer: ImageAnswer) -> str:
    return json.dumps(answer.to_dict()["error"]) if answer.error is not None else ""
