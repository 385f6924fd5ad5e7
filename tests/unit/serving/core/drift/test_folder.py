from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import DataError, UsageError
from serving.core.drift import Window, WindowInfo, read_window, write_window
from tests.drift_windows import window

INFO = WindowInfo(
    "demo", "sha256:" + "1" * 64, started_at="2026-01-01T00:00:00Z", version="3", source="gateway"
)


def test_a_window_survives_the_disk(tmp_path: Path) -> None:
    made = window(30, labelled=True, refused=0.2)
    write_window(tmp_path / "one", made, INFO)
    found, info = read_window(tmp_path / "one")
    assert info == INFO
    assert found.images == 30
    assert (found.gradable == made.gradable).all()
    assert found.embedding == pytest.approx(made.embedding, rel=1e-6, nan_ok=True)
    assert found.probabilities["grade"] == pytest.approx(made.probabilities["grade"], rel=1e-5, nan_ok=True)
    assert (found.truth["grade"] == made.truth["grade"]).all()
    assert found.score is None


def test_a_window_of_nothing_is_one(tmp_path: Path) -> None:
    write_window(tmp_path / "one", Window(images=0), INFO)
    assert read_window(tmp_path / "one")[0].images == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"images": True}, "isn't what a window says"),
        ({"more": "x"}, "isn't what a window says"),
        ({"task": None}, "isn't what a window says"),
        ({"version": 3}, "isn't what a window says"),
    ],
)
def test_another_description_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write_window(tmp_path / "one", window(5), INFO)
    file = tmp_path / "one" / "window.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=says):
        read_window(tmp_path / "one")


def test_what_is_no_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no window\.json"):
        read_window(tmp_path)
    write_window(tmp_path / "one", window(5), INFO)
    (tmp_path / "one" / "window.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="plain arrays"):
        read_window(tmp_path / "one")
    np.savez(tmp_path / "one" / "window.npz", surprise=np.zeros(3))
    with pytest.raises(DataError, match="surprise"):
        read_window(tmp_path / "one")
    np.savez(tmp_path / "one" / "window.npz", sharpness=np.array([object()] * 5))
    with pytest.raises(DataError, match="plain arrays"):
        read_window(tmp_path / "one")
    np.savez(tmp_path / "one" / "window.npz", sharpness=np.zeros(3))
    with pytest.raises(UsageError, match="5 rows"):
        read_window(tmp_path / "one")
    (tmp_path / "one" / "window.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_window(tmp_path / "one")
