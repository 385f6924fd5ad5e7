"""``retiderm models import``: one small network in each form becomes a version with the same answers."""

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
HEADS = ("no_dr", "mild", "moderate", "severe", "proliferative")

# Its own process: torch's exporter for TorchScript warns that it is old.
MAKE = """
import sys, timm, torch, warnings

warnings.simplefilter("ignore")
torch.manual_seed(0)
model = timm.create_model("resnet10t", num_classes=5).eval()
images = torch.rand(2, 3, 64, 64)
torch.save(model.state_dict(), "state.pth")
torch.jit.save(torch.jit.trace(model, images), "script.pt")
torch.onnx.export(model, (images,), "model.onnx", dynamo=False, input_names=["x"], output_names=["y"],
                  opset_version=17, dynamic_axes={"x": {0: "N"}, "y": {0: "N"}})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in three forms, a task at its size with floors that noise passes, and a drawn data set."""
    from data.dataset import Head
    from data.ingest import ingest

    path = tmp_path_factory.mktemp("import")
    subprocess.run([sys.executable, "-c", MAKE], cwd=path, check=True, capture_output=True)
    task = yaml.safe_load((ROOT / "training" / "tasks" / "dr_grading.yaml").read_text())
    task |= {"input_size": 64, "gate": {"floors": {"auc": 0.1}}}
    (path / "task.yaml").write_text(yaml.safe_dump(task))
    heads = [Head("grade", HEADS)]
    ingest("synthetic-fundus?n=80&size=128", heads, path / "data", task="dr_grading", store=path / "store")
    return path


def run(folder: Path, *line: str, code: int = 0) -> Any:
    environment = os.environ | {"RETIDERM_HOME": str(folder / "var"), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "pipelines.cli", "models", *line]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads(done.stdout) if code == 0 else done.stderr


def take_in(folder: Path, *more: str, code: int = 0) -> Any:
    task, data = str(folder / "task.yaml"), str(folder / "data")
    return run(
        folder, "import", "--task", task, "--data", data, "--licence", "MIT", "--json", *more, code=code
    )


@pytest.fixture(scope="module")
def graph(folder: Path) -> Any:
    return take_in(folder, "--weights", str(folder / "model.onnx"))


def test_onnx_becomes_a_version_with_its_proofs(folder: Path, graph: Any) -> None:
    version = graph["version"]
    assert (version["version"], version["origin"], version["aliases"]) == ("1", "imported", ["challenger"])
    assert graph["gate"]["decision"] == "accept"
    shown = run(folder, "show", "dr_grading", "1", "--json")
    card = shown["card"]
    assert {name: proof["passed"] for name, proof in card["parity"].items()} == {
        "onnx": True,
        "cam": True,
        "served": True,
    }
    assert card["parity"]["served"]["max_difference"] <= 1e-3
    assert card["explanation"]["method"] == "closed-form"
    assert card["weights"]["source"] == "imported: model.onnx"
    assert "MIT" in card["licence"]
    assert card["heads"][0]["calibrated_on"] > 0


def test_it_can_be_promoted_and_the_history_says_where_it_came_from(folder: Path, graph: Any) -> None:
    assert run(folder, "promote", "dr_grading", "1", "--json")["changed"]
    assert run(folder, "verify", "--json") == {"ok": True, "findings": []}
    imported = [entry for entry in run(folder, "history", "--all", "--json") if entry["event"] == "import"]
    assert imported[0]["why"] == "onnx model.onnx"


def test_torchscript_needs_trust(folder: Path) -> None:
    told = take_in(folder, "--weights", str(folder / "script.pt"), code=2)
    assert "loading it runs code that is inside the file" in told


def test_a_state_dict_needs_its_architecture(folder: Path) -> None:
    weights = ("--weights", str(folder / "state.pth"))
    assert "--architecture resnet50" in take_in(folder, *weights, code=2)
    told = take_in(folder, *weights, "--architecture", "resnet18", code=2)
    assert "is not a resnet18" in told


def test_all_forms_answer_alike(folder: Path, graph: Any) -> None:
    state = take_in(folder, "--weights", str(folder / "state.pth"), "--architecture", "resnet10t")
    script = take_in(folder, "--weights", str(folder / "script.pt"), "--trust")
    metrics = [found["version"]["metrics"]["grade"]["auc"]["value"] for found in (graph, state, script)]
    assert metrics == pytest.approx([metrics[0]] * 3, abs=1e-3)
    explained = run(folder, "show", "dr_grading", state["version"]["version"], "--json")["card"][
        "explanation"
    ]
    assert explained["method"] == "closed-form"


def test_lost_predictions_are_made_again_from_the_bundle(folder: Path, graph: Any) -> None:
    """The champion's stored answers are gone: the gate asks its bundle, if it is given the data set."""
    run(folder, "promote", "dr_grading", "1", "--json")
    version = take_in(folder, "--weights", str(folder / "state.pth"), "--architecture", "resnet10t")[
        "version"
    ]
    for path in (folder / "var").rglob("*.npz"):
        if path.name == "test.npz" or path.parent.name == "predictions":
            path.unlink()
    line = ("promote", "dr_grading", version["version"], "--judge", "--json")
    assert "Give the gate the data set" in run(folder, *line, code=1)
    assert run(folder, *line, "--data", str(folder / "data"))["before"] == "1"


def test_another_order_of_classes_is_the_same_model(folder: Path, graph: Any) -> None:
    """Named in another order the same outputs mean other classes, so the answers move with the names."""
    turned = ",".join(reversed(HEADS))
    weights = ("--weights", str(folder / "model.onnx"), "--classes", turned)
    found = take_in(folder, *weights)
    assert found["version"]["digest"] != graph["version"]["digest"]
    told = take_in(folder, "--weights", str(folder / "model.onnx"), "--classes", "a,b", code=2)
    assert "lacks mild" in told
