"""Ids that become parts of paths: what passes, and every trick that doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from serving.core.patchcore.names import check_token


@pytest.mark.parametrize("name", ["Master1", "Pattern", "a", "A-b_c.9", "_x", "-x", "a.b", "0", "x" * 64])
def test_a_token_passes(name: str) -> None:
    assert check_token(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a\\b",
        "C:x",
        "a..b",
        ".hidden",
        "a\0b",
        "a\n",
        "a\r",
        "a\tb",
        "a b",
        " a",
        "a%2fb",
        "~",
        "é",
        "Маster1",  # Cyrillic letters that look Latin
        "ａ",  # full width
        "a\u2024b",  # one dot leader
        "a\u2215b",  # division slash
        "a\u200bb",  # zero width space
        "a\u202eb",  # right to left
        "١",  # a digit, but not 0–9
        "x" * 65,
        "x" * 300,
        None,
        3,
        b"a",
        ["a"],
    ],
)
def test_everything_else_is_refused_and_not_mended(name: Any) -> None:
    with pytest.raises(RequestError, match="path-safe"):
        check_token(name)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_what_passes_is_one_part_of_a_path_below_its_folder(name: str) -> None:
    try:
        check_token(name)
    except RequestError:
        return
    path = Path("/root-of-all") / name
    assert path.parent == Path("/root-of-all")
    assert path.name == name
    assert not name.startswith(".")
    assert name.isascii()
    assert len(name) <= 64
