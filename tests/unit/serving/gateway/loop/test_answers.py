"""One way to read what classifiers and anomaly models have said."""

from __future__ import annotations

from typing import Any

import pytest

from serving.gateway.loop.answers import classes_of, heads_of, labels_of
from serving.gateway.loop.policy import disagree

LESION: dict[str, Any] = {"label": "nv", "probabilities": {"mel": 0.2, "nv": 0.8}, "set": ["nv"]}


def part(label: str | None) -> dict[str, Any]:
    return {"heads": {}, "anomaly": {"score": 0.2, "threshold": 0.1, "label": label, "regions": []}}


def test_a_classifiers_heads() -> None:
    document = {"heads": {"diagnosis": LESION}}
    assert heads_of(document) == {"diagnosis": LESION}
    assert classes_of(document) == {"diagnosis": ("mel", "nv")}
    assert labels_of(document) == {"diagnosis": "nv"}


@pytest.mark.parametrize("label", ["ok", "ng", None])
def test_a_part_is_ok_or_not(label: str | None) -> None:
    assert heads_of(part(label))["status"]["label"] == label
    assert classes_of(part(label)) == {"status": ("ok", "ng")}
    assert labels_of(part(label)) == ({"status": label} if label else {})


def test_what_has_no_answer_has_no_heads() -> None:
    for document in ({"heads": {}}, {}):
        assert heads_of(document) == classes_of(document) == labels_of(document) == {}


def test_two_memories_disagree_as_two_classifiers_do() -> None:
    assert disagree(labels_of(part("ok")), labels_of(part("ng")))
    assert not disagree(labels_of(part("ok")), labels_of(part("ok")))
    assert not disagree(labels_of(part("ok")), labels_of(part(None)))
