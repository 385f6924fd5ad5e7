from __future__ import annotations

from pathlib import Path

import pytest

from data.dataset import Head
from data.errors import SourceError
from data.sources import KINDS, class_name, open_source, parse_spec
from tests.unit.data.layouts import DX, GRADE


@pytest.mark.parametrize(
    ("spec", "kind", "path", "options"),
    [
        ("idrid:/data/idrid", "idrid", "/data/idrid", {}),
        (
            "labels:/data/x?licence=CC BY 4.0&forbids=",
            "labels",
            "/data/x",
            {"licence": "CC BY 4.0", "forbids": ""},
        ),
        ("medmnist:a:b.npz", "medmnist", "a:b.npz", {}),
        ("synthetic", "synthetic", ".", {}),
        ("synthetic?n=20&seed=3", "synthetic", ".", {"n": "20", "seed": "3"}),
        ("synthetic-lesion:?n=20", "synthetic-lesion", ".", {"n": "20"}),
    ],
)
def test_specs(spec: str, kind: str, path: str, options: dict[str, str]) -> None:
    parsed = parse_spec(spec)
    assert (parsed.kind, parsed.path, parsed.options) == (kind, Path(path), options)


def test_a_home_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/one")
    assert parse_spec("idrid:~/idrid").path == Path("/people/one/idrid")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "Unknown kind"),
        ("idrd:/x", "did you mean idrid"),
        ("idrid", "names no path"),
        ("idrid:", "names no path"),
        ("idrid:/x?oops", "options 'oops' can't be read"),
    ],
)
def test_specs_that_are_none(spec: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        parse_spec(spec)


def test_a_path_without_its_kind(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a path without its kind"):
        parse_spec(str(tmp_path))


def test_every_kind_says_what_it_is() -> None:
    for kind, source in KINDS.items():
        assert source.kind == kind
        assert source.title
        assert source.layout
        assert source.licence.name
        assert source.profile in {"fundus", "dermoscopy", "thumbnail", "photo"}
    assert {
        "aptos",
        "eyepacs",
        "messidor2",
        "idrid",
        "labels",
        "ham10000",
        "medmnist",
        "folders",
        "dataset",
    } <= set(KINDS)
    assert KINDS["ham10000"].licence.forbids == ("commercial",)


def test_synthetic_draws_what_the_task_looks_at() -> None:
    assert open_source("synthetic", task="dr_grading").kind == "synthetic-fundus"
    assert open_source("synthetic", task="skin_lesion").kind == "synthetic-lesion"
    assert open_source("synthetic", heads=(GRADE,)).kind == "synthetic-fundus"
    assert open_source("synthetic", heads=(DX,)).kind == "synthetic-lesion"
    with pytest.raises(SourceError, match="What to draw"):
        open_source("synthetic", task="acne", heads=(Head("acne", ("no", "yes")),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("n=0", "at least 1"),
        ("n=ten", "whole number"),
        ("size=8", "at least 32"),
        ("format=gif", "one of jpeg, png"),
        ("colour=red", "no option colour"),
    ],
)
def test_synthetic_options_are_checked(options: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(f"synthetic-fundus?{options}")


def test_synthetic_fits_only_heads_of_its_classes() -> None:
    with pytest.raises(SourceError, match="no class that fits"):
        list(open_source("synthetic-fundus?n=5").samples((DX,)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mild", "mild"),
        ("No DR", "no_dr"),
        ("4", "proliferative"),
        ("4.0", "proliferative"),
        (0, "no_dr"),
        ("5", None),
        (-1, None),
        ("-1", None),
        ("1.5", None),
        ("worse", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_what_a_label_means(value: str | int, expected: str | None) -> None:
    assert class_name(GRADE, value) == expected


def test_a_class_that_is_called_like_a_number() -> None:
    assert class_name(Head("stage", ("1", "2", "3")), "1") == "1"
