"""The outputs of a batch."""

from __future__ import annotations

import numpy as np
from kserve import InferRequest

from serving.answer import ImageAnswer
from serving.identity import ModelInfo
from serving.kinds.classification.answers import HeadsForm
from serving.transformer.outputs import tensors


def test_maps_of_another_shape_than_the_cards_are_those_that_came() -> None:
    model = ModelInfo("t", "2", "sha256:0", "fp32")
    answers = [ImageAnswer(model), ImageAnswer(model, map=np.ones((5, 6), np.float32))]
    found = tensors(answers, HeadsForm({}), explain="map", map_shape=(2, 2))
    answer = found.respond(InferRequest("t", []), version="2", parameters={})
    values = next(item for item in answer.outputs if item.name == "map")
    assert values.shape == [2, 5, 6]
    assert np.isnan(values.as_numpy()[0]).all()
    assert values.as_numpy()[1].min() == 1
