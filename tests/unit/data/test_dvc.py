"""``dvc repro`` in a fresh checkout: the stages run, datasets come out, and a second run does nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data.dataset import Dataset
from tests.review_exports import Exported, picture
from tests.unit.data import layouts

ROOT = Path(__file__).resolve().parents[3]
PARTS = (
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "data",
    "training/tasks",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The working tree's own files as a repository of their own, with smaller datasets and a real one."""
    root = tmp_path / "checkout"
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, root / part)
    layouts.idrid_shared(tmp_path / "idrid")
    params = yaml.safe_load((root / "params.yaml").read_text())
    for entry in params["synthetic"].values():
        entry["source"] = entry["source"].partition("?")[0] + "?n=70&seed=0&size=128"
    params["real"] = {
        "idrid": {
            "path": "../idrid",
            "source": "idrid:../idrid",
            "task_file": "training/tasks/dr_grading.yaml",
            "split": "fold:1/3",
        }
    }
    labelled = Exported(task="dr_grading")
    for seed in range(4):
        labelled.label(picture(seed, side=320), "mild", group=f"patient {seed}")
    labelled.write(tmp_path / "labels")
    params["review"] = {
        "idrid-2": {
            "export": "../labels",
            "base": "var/datasets/idrid",
            "options": "&licence=CC0-1.0",
            "task_file": "training/tasks/dr_grading.yaml",
        }
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q", root], check=True)
    return root


def dvc(checkout: Path, *arguments: str) -> str:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("RETIDERM", "DVC", "GIT"))
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(checkout.parent),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=checkout,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_stage_depends_on_all_the_code() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert all("data" in stage["do"]["deps"] for stage in stages.values())
    assert "__pycache__" in (ROOT / ".dvcignore").read_text().splitlines()


@pytest.mark.slow
def test_a_clean_checkout_reproduces_its_datasets(checkout: Path) -> None:
    dvc(checkout, "repro")
    datasets = {path.name: Dataset.open(path) for path in (checkout / "var/datasets").iterdir()}
    assert set(datasets) == {"synthetic-fundus", "synthetic-lesion", "idrid", "idrid-2"}
    for name, dataset in datasets.items():
        dataset.verify()
        assert (checkout / "var/checks" / name / "report.html").is_file()
        assert dataset.info["created_at"].startswith("2024-01-01")
    assert datasets["synthetic-lesion"].task == "skin_lesion"
    assert datasets["idrid"].info["split_rule"].startswith("fold:1/3")
    assert datasets["idrid-2"].test_digest == datasets["idrid"].test_digest
    assert datasets["idrid-2"].info["images"] == datasets["idrid"].info["images"] + 4
    assert datasets["idrid-2"].info["review"][0]["base"]["digest"] == datasets["idrid"].digest
    lock = (checkout / "dvc.lock").read_text()

    (checkout / "data/__pycache__").mkdir(exist_ok=True)
    (checkout / "data/__pycache__/field.cpython-311.pyc").write_bytes(b"made by running, no change")
    assert "up to date" in dvc(checkout, "repro")
    code = (checkout / "data/field.py").read_text()
    (checkout / "data/field.py").write_text(code + "\n# another way to find the field\n")
    stale = yaml.safe_load(dvc(checkout, "status", "--json"))
    assert set(stale) == {
        *(
            f"{stage}@{name}"
            for stage in ("draw", "check-drawn")
            for name in ("synthetic-fundus", "synthetic-lesion")
        ),
        "ingest@idrid",
        "check@idrid",
        "review@idrid-2",
        "check-review@idrid-2",
    }
    (checkout / "data/field.py").write_text(code)
    dvc(checkout, "push")
    assert any((checkout / "var/dvc-remote").rglob("*"))
    shutil.rmtree(checkout / "var/datasets")
    shutil.rmtree(checkout / ".dvc/cache")
    dvc(checkout, "pull", "-q", *(f"draw@{name}" for name in ("synthetic-fundus", "synthetic-lesion")))
    Dataset.open(checkout / "var/datasets/synthetic-fundus").verify()

    # Made again from nothing, the same bytes come out: the lock doesn't move.
    dvc(checkout, "repro", "--force", "draw@synthetic-fundus")
    assert yaml.safe_load((checkout / "dvc.lock").read_text())["stages"] == yaml.safe_load(lock)["stages"]
