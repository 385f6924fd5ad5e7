from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import BundleError, ParityError
from serving.core.bundle import Card, HeadCard
from serving.core.bundle.card import check_name
from tests.bundles import tiny_bundle


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("card") / "b")
    return json.loads((bundle.root / "card.json").read_text())


def test_a_card_comes_back_equal(plain: dict[str, Any]) -> None:
    card = Card.from_dict(plain)
    assert card.to_dict() == plain
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_the_format_stands_first(plain: dict[str, Any]) -> None:
    assert next(iter(plain)) == "format"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"format": None}, "format None"),
        ({"wings": 2}, "unknown entries: wings"),
        ({"kind": "oracle"}, "Unknown kind"),
        ({"task": "../other"}, "can't be a task's name"),
        ({"title": 7}, "card.title should be str"),
        ({"heads": []}, "needs a head"),
        ({"heads": {}}, "card.heads should be a list"),
        ({"preprocessing_digest": "abc"}, "Not a digest"),
        ({"outputs": {"logits": ["5"]}}, r"card.outputs.logits\[0\] should be int"),
        ({"outputs": {"logits": [True]}}, r"card.outputs.logits\[0\] should be int, is bool"),
    ],
)
def test_a_wrong_card_is_refused_by_name(plain: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        Card.from_dict({**plain, **change})


def test_a_missing_entry_is_named(plain: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="card lacks 'backbone'"):
        Card.from_dict({key: value for key, value in plain.items() if key != "backbone"})


@pytest.mark.parametrize("value", [[], None, "card", 3])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(BundleError, match="should be an object"):
        Card.from_dict(value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ("a",)}, "at least two classes"),
        ({"classes": ("a", "a")}, "names a class twice"),
        ({"titles": ("A",)}, "one title a class"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"bias": (1.0,)}, "one finite bias"),
        ({"bias": (1.0, float("inf"))}, "one finite bias"),
        ({"qhat": 1.1}, "qhat"),
        ({"uncertain_below": -0.1}, "uncertain_below"),
        ({"coverage": 1.0}, "coverage"),
    ],
)
def test_a_wrong_head_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        HeadCard(**{"name": "h", "classes": ("a", "b"), **change})


def test_titles_default_to_classes() -> None:
    assert HeadCard("h", ("a", "b")).titles == ("a", "b")


@pytest.mark.parametrize("name", ["model.onnx", "a/b.bin", "a/b/c.xml", "_x"])
def test_plain_names_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/x",
        "a/../x",
        "a//x",
        ".hidden",
        "a/.x",
        "",
        "card.json",
        "a\\b",
        "a/b/c/d",
        "x\n",
        "a/",
        "C:x",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(BundleError, match="can't be a file's name"):
        check_name(name)


def test_slices_follow_the_heads(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b", task="skin_profile", heads={"type": list("abc"), "hair": list("xy")})
    assert bundle.card.slices == {"type": slice(0, 3), "hair": slice(3, 5)}
    assert bundle.card.head("hair").classes == ("x", "y")
    with pytest.raises(BundleError, match="no head 'eyes'"):
        bundle.card.head("eyes")


def test_parity_must_be_whole(plain: dict[str, Any]) -> None:
    passed = {"passed": True}
    Card.from_dict({**plain, "parity": dict.fromkeys(("onnx", "cam", "served"), passed)}).require_parity()
    for parity in (
        {},
        {"onnx": passed, "cam": passed},
        {"onnx": passed, "cam": passed, "served": {"passed": False}},
    ):
        with pytest.raises(ParityError, match=r"no proof of: .*served"):
            Card.from_dict({**plain, "parity": parity}).require_parity()


def test_each_kind_has_proofs_of_its_own(plain: dict[str, Any]) -> None:
    passed = {"passed": True}
    anomaly = {**plain, "kind": "anomaly"}
    Card.from_dict({**anomaly, "parity": dict.fromkeys(("features", "served"), passed)}).require_parity()
    with pytest.raises(ParityError, match="no proof of: features, served"):
        Card.from_dict({**anomaly, "parity": {"onnx": passed, "cam": passed}}).require_parity()
