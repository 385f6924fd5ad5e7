"""The drift step in this process: what it needs, makes and says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.drift import drift
from data.errors import RegistryError
from data.files import read_json
from data.paths import Home
from serving.core.drift import Window, WindowInfo, write_window
from tests.bundles import tiny_bundle, with_reference
from tests.drift_windows import HEAD, METRICS, arrays, window
from training.registry.client import Registry


def run(windows: Path, out: Path, figures: dict[str, float]) -> bool:
    artifact: Any = SimpleNamespace(path=str(out), metadata={}, log_metric=figures.__setitem__)
    return bool(
        drift.python_func(
            task="demo", windows=str(windows), level=0.01, size=200, report=artifact, figures=artifact
        )
    )


def test_the_champions_newest_window_decides(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_bundle(tmp_path / "plain", task="demo", heads=[HEAD], metrics=METRICS)
    bundle = with_reference(plain, tmp_path / "known", **{k: np.asarray(v) for k, v in arrays().items()})
    monkeypatch.setattr(Registry, "champion", lambda self, task: "champion" if task == "demo" else None)
    monkeypatch.setattr(Registry, "bundle", lambda self, version: bundle)
    for name, moved in (("1", 0.0), ("2", 3.0)):
        info = WindowInfo("demo", bundle.digest, started_at=f"2026-01-0{name}")
        write_window(tmp_path / "windows" / name, window(200, 100, moved=moved), info)
    figures: dict[str, float] = {}
    assert run(tmp_path / "windows", tmp_path / "out", figures) is True
    assert read_json(tmp_path / "out" / "latest.json")["window"] == "2"
    assert read_json(tmp_path / "out" / "1" / "report.json")["alarm"] is False
    assert (tmp_path / "out" / "2" / "page.html").is_file()
    assert figures["alarm"] == 1.0
    assert figures["embedding"] > 1.0


def test_without_a_champion_it_says_so(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "champion", lambda self, task: None)
    with pytest.raises(RegistryError, match="No version of demo serves"):
        run(tmp_path, tmp_path / "out", {})


def test_an_alarm_stands_until_a_newer_whole_window_is_without_one(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_bundle(tmp_path / "plain", task="demo", heads=[HEAD], metrics=METRICS)
    bundle = with_reference(plain, tmp_path / "known", **{k: np.asarray(v) for k, v in arrays().items()})
    monkeypatch.setattr(Registry, "champion", lambda self, task: "champion")
    monkeypatch.setattr(Registry, "bundle", lambda self, version: bundle)

    def keep(name: str, given: Window) -> None:
        write_window(tmp_path / "windows" / name, given, WindowInfo("demo", bundle.digest, started_at=name))

    keep("1", window(200, 100, moved=3.0))
    keep("2", window(100, 101))
    figures: dict[str, float] = {}
    assert run(tmp_path / "windows", tmp_path / "out", figures) is True
    assert read_json(tmp_path / "out" / "latest.json")["window"] == "1"
    keep("2", window(200, 101))
    assert run(tmp_path / "windows", tmp_path / "out", figures) is False
    assert read_json(tmp_path / "out" / "latest.json")["window"] == "2"
    # What labels say is judged apart: the windows of images have no say in it, nor the other way round.
    said = window(80, 102, labelled=True, wrong=1.0)
    keep("3", Window(images=80, probabilities=said.probabilities, truth=said.truth))
    assert run(tmp_path / "windows", tmp_path / "out", figures) is True
    assert read_json(tmp_path / "out" / "latest.json")["window"] == "3"
    assert not (tmp_path / "out" / "3" / "page.html").exists()
