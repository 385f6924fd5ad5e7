"""What ``retiderm serve`` says when it is ready."""

from __future__ import annotations

import pytest

from serving.cli import _show
from serving.supervise import Endpoints

HERE = Endpoints("http://h:1", "h:2", "http://h:3", ("acne",), "http://h:8000")


@pytest.mark.parametrize(
    ("systems", "shown"), [("", True), ("s0, review", True), ("s0,s2", False), (" , ", True)]
)
def test_the_readers_page_is_named_where_there_is_one(
    systems: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_SYSTEMS", systems)
    _show(HERE)
    assert ("review   http://h:8000/review/\n" in capsys.readouterr().out) is shown
