"""The face-scan service's state dicts, by ``retiderm models import``: recognised, proved, judged, served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

#: Export and proofs of whole models.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]

MAKE = """
import torch
from torch import nn

torch.manual_seed(0)
layers = []
for given, wide in ((3, 32), (32, 64), (64, 128)):
    layers += [nn.Conv2d(given, wide, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.5)]
layers += [nn.Linear(512, 2)]
torch.save(nn.Sequential(*layers).state_dict(), "acne_model.pth")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from data.dataset import Head
    from data.ingest import ingest

    path = tmp_path_factory.mktemp("face")
    subprocess.run([sys.executable, "-c", MAKE], cwd=path, check=True, capture_output=True)
    task = yaml.safe_load((ROOT / "training" / "tasks" / "acne.yaml").read_text())
    task["gate"]["floors"] = {"auc": 0.01}
    (path / "acne.yaml").write_text(yaml.safe_dump(task))
    heads = [Head("acne", ("no_acne", "acne"))]
    ingest("synthetic-face?n=60&size=96", heads, path / "data", task="acne", store=path / "store")
    return path


def take_in(folder: Path, *more: str, code: int = 0) -> Any:
    environment = os.environ | {"RETIDERM_HOME": str(folder / "var"), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "pipelines.cli", "models", "import", "--task", str(folder / "acne.yaml")]
    command += ["--data", str(folder / "data"), "--json", *more]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_an_old_state_dict_becomes_a_version(folder: Path) -> None:
    found = take_in(folder, "--weights", str(folder / "acne_model.pth"), "--licence", "MIT")
    version = found["version"]
    assert (version["task"], version["origin"], version["version"]) == ("acne", "imported", "1")
    assert found["gate"]["decision"] == "accept"
    (path,) = (folder / "var").rglob("card.json")
    card = json.loads(path.read_text())
    assert card["backbone"] == "face_cnn3_avg4"
    assert card["explanation"]["method"] == "vjp"
    assert {name: proof["passed"] for name, proof in card["parity"].items()} == {
        "onnx": True,
        "cam": True,
        "served": True,
    }


def test_other_weights_are_refused_with_what_to_do(folder: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(2, 3)}, folder / "other.pth")
    told = take_in(folder, "--weights", str(folder / "other.pth"), code=2)
    assert "numbers without a model" in told
    told = take_in(folder, "--weights", str(folder / "other.pth"), "--architecture", "face_cnn", code=2)
    assert "no network of the face-scan service" in told
