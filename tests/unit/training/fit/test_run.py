"""A whole training, undisturbed, disturbed and repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from data.dataset import Dataset
from data.errors import DataError, DatasetError, UsageError
from data.files import read_json, write_json
from data.paths import Home
from tests.trainings import tiny_task
from training.fit import fit
from training.fit.checkpoint import locked
from training.model import load_model
from training.predict import predict
from training.task import Task

#: What a second run can't repeat.
_CLOCK = {"seconds", "images_per_second"}


def history(folder: Path) -> list[dict[str, Any]]:
    rows = read_json(folder / "fit.json")["history"]
    return [{key: value for key, value in row.items() if key not in _CLOCK} for row in rows]


def same_weights(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0, msg=key)


#: Ends without warning a moment after so many checkpoints: mostly in the middle of a step. From within, so
#: that it gets no further on a machine where nobody has the time to look after it.
_DYING = """
import os, random, runpy, signal, sys, threading
from training.fit import checkpoint
save, done = checkpoint.save, 0
def counted(folder, state):
    global done
    save(folder, state)
    done += 1
    if done == 18:
        threading.Timer(random.uniform(0, 0.05), os.kill, (os.getpid(), signal.SIGKILL)).start()
checkpoint.save = counted
sys.argv = sys.argv[2:]
runpy.run_module("training.cli", run_name="__main__", alter_sys=True)
"""


def start(dataset: Dataset, out: Path, task: Task, home: Home, *prefix: str) -> subprocess.Popen[str]:
    """A training in a process of its own."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".task.json"), task.to_dict())
    command = [*(prefix or (sys.executable,)), "-m", "training.cli", "fit", "--data", str(dataset.root)]
    command += ["--task", str(out.with_suffix(".task.json")), "--out", str(out), "--no-tracking"]
    environment = {**os.environ, "RETIDERM_HOME": str(home.root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_it_learns_and_leaves_a_whole_folder(tiny: Dataset, out: Path, home: Home) -> None:
    result = fit(tiny_task(epochs=8), tiny, out, tracking=False)
    assert result.val["grade"]["auc"] > 0.9
    assert result.stopped == "epochs"
    assert result.best_epoch == max(range(8), key=lambda epoch: result.history[epoch]["score"])
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "curves.png",
        "fit.json",
        "model.safetensors",
        "task.json",
    ]
    about = read_json(out / "fit.json")
    assert about["dataset_digest"] == tiny.digest
    assert about["weights"]["source"] == "none"
    assert about["images"]["train"] + about["images"]["val"] < 64
    model, task = load_model(out)
    assert task == tiny_task(epochs=8)
    found = predict(model, tiny, "val", task=task)
    right = found.logits[:, :3].argmax(1) == found.labels["grade"]
    assert right.mean() == pytest.approx(result.val["grade"]["accuracy"])


@pytest.mark.slow
def test_equal_seeds_give_equal_models_and_other_seeds_others(
    tiny: Dataset, tmp_path: Path, home: Home
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)  # what the caller drew before must not matter
        fit(
            tiny_task(epochs=1, mixup_alpha=0.4, dropout=0.3),
            tiny,
            tmp_path / name,
            seed=seed,
            tracking=False,
        )
    same_weights(tmp_path / "a", tmp_path / "b")
    assert history(tmp_path / "a") == history(tmp_path / "b")
    assert history(tmp_path / "a") != history(tmp_path / "c")


def test_the_callers_random_numbers_are_left_alone(tiny: Dataset, out: Path, home: Home) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    fit(tiny_task(epochs=1), tiny, out, tracking=False)
    torch.testing.assert_close(torch.rand(4), expected)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_where_an_undisturbed_run_ends(
    tiny: Dataset, tmp_path: Path, home: Home
) -> None:
    task = tiny_task(
        epochs=5,
        batch_size=4,
        checkpoint_seconds=0,  # after every step
        mixup_alpha=0.4,
        cutmix_alpha=0.5,
        dropout=0.2,
        drop_path=0.1,
        balance="sampler",
        freeze_backbone_epochs=1,
        augment={"erase_p": 0.3, "noise": 0.05, "blur": 0.3, "hue": 0.1},
    )
    whole = start(tiny, tmp_path / "whole", task, home)
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    broken = tmp_path / "broken"
    kills = 0
    while True:
        # It gets a little further each time.
        process = start(tiny, broken, task, home, sys.executable, "-c", _DYING)
        _, said = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        kills += 1
        assert not (broken / "fit.json").exists()
        assert kills < 30
    assert kills >= 2
    assert read_json(broken / "fit.json")["resumed"] == kills
    assert history(broken) == history(tmp_path / "whole")
    same_weights(broken, tmp_path / "whole")
    assert not list(broken.glob(".*.part"))


def test_a_polite_stop_writes_a_checkpoint_first(tiny: Dataset, tmp_path: Path, home: Home) -> None:
    out = tmp_path / "run"
    process = start(tiny, out, tiny_task(epochs=5000, early_stop_patience=0), home)
    while process.poll() is None and not (out / "checkpoint.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 143, said
    assert "start it again" in said
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["at"]["epoch"] > 0 or state["at"]["step"] > 0


def test_half_a_checkpoint_of_a_killed_run_is_removed(tiny: Dataset, out: Path, home: Home) -> None:
    out.mkdir()
    (out / ".checkpoint.pt.a1b2.part").write_bytes(b"half")
    fit(tiny_task(epochs=1), tiny, out, tracking=False)
    assert not list(out.glob(".*.part"))


def test_a_finished_folder_is_not_trained_again(tiny: Dataset, out: Path, home: Home) -> None:
    first = fit(tiny_task(epochs=1), tiny, out, tracking=False)
    changed = (out / "model.safetensors").stat().st_mtime_ns
    assert fit(tiny_task(epochs=1), tiny, out, tracking=False) == first
    assert (out / "model.safetensors").stat().st_mtime_ns == changed


def test_a_folder_of_another_run_is_refused_and_can_be_cleared(tiny: Dataset, out: Path, home: Home) -> None:
    fit(tiny_task(epochs=1), tiny, out, tracking=False)
    with pytest.raises(UsageError, match="another seed") as caught:
        fit(tiny_task(epochs=1), tiny, out, seed=9, tracking=False)
    assert "--fresh" in str(caught.value)
    with pytest.raises(UsageError, match="another task"):
        fit(tiny_task(epochs=2), tiny, out, tracking=False)
    result = fit(tiny_task(epochs=2), tiny, out, seed=9, resume=False, tracking=False)
    assert len(result.history) == 2


def test_what_is_not_about_the_weights_may_change(tiny: Dataset, out: Path, home: Home) -> None:
    task = tiny_task(epochs=1)
    fit(task, tiny, out, tracking=False)
    body = {**task.to_dict(), "gate": {"floors": {"auc": 0.9}}}
    from training.task import task_from_dict

    other = task_from_dict(body)
    fit(other, tiny, out, tracking=False)
    assert load_model(out)[1] == other


def test_two_processes_never_train_in_one_folder(tiny: Dataset, out: Path, home: Home) -> None:
    with locked(out), pytest.raises(UsageError, match=f"pid {os.getpid()}"):
        fit(tiny_task(), tiny, out, tracking=False)


def test_a_damaged_checkpoint_is_named(tiny: Dataset, out: Path, home: Home) -> None:
    out.mkdir()
    (out / "checkpoint.pt").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(UsageError, match="--fresh"):
        fit(tiny_task(), tiny, out, tracking=False)


@pytest.mark.slow
def test_it_stops_early_and_keeps_the_best(tiny: Dataset, out: Path, home: Home) -> None:
    result = fit(
        tiny_task(epochs=40, early_stop_patience=2, val_metric="grade.accuracy"), tiny, out, tracking=False
    )
    assert result.stopped == "early_stop"
    assert len(result.history) == result.best_epoch + 3
    model, task = load_model(out)
    found = predict(model, tiny, "val", task=task)
    assert (found.logits[:, :3].argmax(1) == found.labels["grade"]).mean() == pytest.approx(result.score)


def test_it_stops_when_its_time_is_up(tiny: Dataset, out: Path, home: Home) -> None:
    result = fit(tiny_task(epochs=50, max_minutes=0), tiny, out, tracking=False)
    assert (result.stopped, len(result.history)) == ("max_minutes", 1)


def test_the_last_epoch_can_be_kept(tiny: Dataset, out: Path, home: Home) -> None:
    result = fit(tiny_task(epochs=3, select="last", ema_decay=0), tiny, out, tracking=False)
    assert result.best_epoch == 2
    assert result.val == result.history[2]["val"]


@pytest.mark.parametrize(
    "recipe",
    [
        {"loss": "focal", "balance": "weights"},
        {"loss": "logit_adjusted", "cutmix_alpha": 1.0, "mixup_alpha": 0},
        {"loss": "ordinal", "emd_weight": 1.0, "layer_decay": 0.8},
        {"precision": "bf16", "freeze_norm": True, "channels_last": False, "grad_clip": 0, "mixup_alpha": 0},
    ],
)
def test_every_way_of_training_lowers_the_loss(
    recipe: dict[str, Any], tiny: Dataset, out: Path, home: Home
) -> None:
    result = fit(tiny_task(epochs=4, label_smoothing=0, dropout=0, **recipe), tiny, out, tracking=False)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert np.isfinite([row["loss"] for row in result.history]).all()


def test_a_dataset_for_another_task_is_refused(tiny: Dataset, out: Path, home: Home) -> None:
    from training.task import task_from_dict

    body = tiny_task().to_dict()
    body["heads"]["grade"]["classes"] = ["low", "mid", "high"]
    with pytest.raises(DatasetError, match="low, middle, high"):
        fit(task_from_dict(body), tiny, out, tracking=False)
    body["heads"] = {"other": {"classes": ["a", "b"]}}
    with pytest.raises(DatasetError, match="grade, side"):
        fit(task_from_dict(body), tiny, out, tracking=False)
    body["heads"] = {**tiny_task().to_dict()["heads"], "other": {"classes": ["a", "b"]}}
    with pytest.raises(DataError, match="0 images with a label for other"):
        fit(task_from_dict(body), tiny, out, tracking=False)


TOGETHER = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")


@pytest.mark.slow
def test_two_processes_train_together(tiny: Dataset, tmp_path: Path, home: Home) -> None:
    task = tiny_task(epochs=2, batch_size=16, mixup_alpha=0, dropout=0, freeze_backbone_epochs=1)
    together = tmp_path / "together"
    process = start(tiny, together, task, home, *TOGETHER)
    _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said
    about = read_json(together / "fit.json")
    assert about["processes"] == 2
    assert [len(about["history"]), about["history"][1]["loss"] < about["history"][0]["loss"]] == [2, True]
    # Only the batch statistics are each process's own, and while the backbone is frozen there are none.
    fit(task, tiny, tmp_path / "alone", tracking=False)
    alone = history(tmp_path / "alone")
    assert about["history"][0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-4)
    assert about["history"][1]["loss"] == pytest.approx(alone[1]["loss"], rel=0.15)


@pytest.mark.slow
def test_two_processes_killed_together_end_where_undisturbed_ones_end(
    tiny: Dataset, tmp_path: Path, home: Home
) -> None:
    task = tiny_task(epochs=40, batch_size=16, checkpoint_seconds=0, mixup_alpha=0.4, dropout=0.2)
    whole = start(tiny, tmp_path / "whole", task, home, *TOGETHER)
    _, said = whole.communicate(timeout=550)
    assert whole.returncode == 0, said
    broken = tmp_path / "broken"
    first = start(tiny, broken, task, home, *TOGETHER)
    while first.poll() is None and not list(broken.glob("best-*.safetensors")):
        time.sleep(0.005)
    for child in psutil.Process(first.pid).children(recursive=True):
        child.kill()
    first.communicate(timeout=180)
    assert first.returncode != 0
    second = start(tiny, broken, task, home, *TOGETHER)
    _, said = second.communicate(timeout=550)
    assert second.returncode == 0, said
    assert read_json(broken / "fit.json")["resumed"] == 1
    assert history(broken) == history(tmp_path / "whole")
    same_weights(broken, tmp_path / "whole")
