"""The smaller parts: rates, averages, the pixel cache, devices, checkpoints, curves."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from data.dataset import Dataset
from data.errors import DatasetError, UsageError
from data.paths import Home
from data.preprocess import Preprocessing
from tests.trainings import tiny_task
from training.fit import cache, checkpoint
from training.fit.cache import load_pixels
from training.fit.curves import draw_curves
from training.fit.device import autocast, choose_device, choose_precision, spare_depthwise, steady
from training.fit.ema import Ema
from training.fit.optimise import make_optimiser, rate_factor, set_rates
from training.model import build_model
from training.spec.recipe import Recipe
from training.task import load_task

CPU = torch.device("cpu")


def test_the_rate_rises_then_falls_to_its_end() -> None:
    recipe = Recipe(epochs=10, warmup_epochs=2, final_lr=0.1)
    rates = [rate_factor(step, 5, recipe) for step in range(50)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1
    assert all(one < two for one, two in pairwise(rates[:11]))
    assert all(one > two for one, two in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rate_factor(0, 1, Recipe(epochs=1, warmup_epochs=5)) == 1


def test_head_backbone_and_layers_have_their_rates_and_norms_no_decay() -> None:
    recipe = replace(tiny_task().train, lr=1e-2, backbone_lr=1e-3, layer_decay=0.5, weight_decay=0.1)
    model = build_model(tiny_task())
    optimiser = make_optimiser(model, recipe, CPU)
    groups = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert len(groups) == len(named)
    assert groups[id(named["head.weight"])]["peak"] == 1e-2
    assert groups[id(named["head.bias"])]["weight_decay"] == 0
    assert groups[id(named["backbone.conv_stem.weight"])]["weight_decay"] == 0.1
    assert groups[id(named["backbone.conv_stem.weight"])]["peak"] < 1e-3
    assert (
        max(
            g["peak"]
            for p, g in groups.items()
            if p not in {id(named["head.weight"]), id(named["head.bias"])}
        )
        <= 1e-3
    )
    set_rates(optimiser, 0.5)
    assert groups[id(named["head.weight"])]["lr"] == 5e-3


def test_the_average_follows_quickly_at_first_and_copies_counters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = Ema(model, 0.99)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        ema.model[0].weight.fill_(0.0)  # type: ignore[index]
    model[1](torch.randn(4, 2))
    ema.update()
    assert float(ema.model[0].weight[0, 0]) == pytest.approx(1 - 2 / 11)  # type: ignore[index]
    assert int(ema.model[1].num_batches_tracked) == 1  # type: ignore[index]
    for _ in range(2000):
        ema.update()
    torch.testing.assert_close(ema.model[0].weight, model[0].weight)  # type: ignore[index]


# -- pixels --------------------------------------------------------------------------------------------------


def test_pixels_are_what_serving_would_make_of_each_image(tiny: Dataset, home: Home) -> None:
    preprocessing = Preprocessing(size=(32, 48))
    pixels = load_pixels(tiny, preprocessing)
    frame = tiny.frame()
    assert pixels.array.shape == (len(frame), 32, 48, 3)
    for row in frame.sample(5, random_state=0).itertuples():
        data = tiny.image_path(row.path).read_bytes()
        place = int(pixels.where([row.sha256])[0])
        np.testing.assert_array_equal(pixels.array[place], preprocessing(preprocessing.decode(data)))


def test_pixels_are_made_once_even_by_several_at_once(
    tiny: Dataset, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = cache._make
    monkeypatch.setattr(cache, "_make", lambda *a: (made.append(1), real(*a)))
    threads = [
        threading.Thread(target=load_pixels, args=(tiny, Preprocessing(size=(32, 32)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load_pixels(tiny, Preprocessing(size=(32, 32)))
    assert len(made) == 1
    load_pixels(tiny, Preprocessing(size=(32, 32), fit="center"))
    assert len(made) == 2


def test_a_damaged_cache_is_made_again(tiny: Dataset, home: Home) -> None:
    preprocessing = Preprocessing(size=(32, 32))
    before = np.array(load_pixels(tiny, preprocessing).array)
    path = next((home.root / "cache" / "pixels").glob("*/pixels.npy"))
    path.write_bytes(path.read_bytes()[:2000])
    np.testing.assert_array_equal(load_pixels(tiny, preprocessing).array, before)


def test_an_altered_or_missing_image_is_named(tiny: Dataset, tmp_path: Path, home: Home) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(tiny.root, copy)
    dataset = Dataset.open(copy)
    first = dataset.image_path(dataset.frame()["path"].iloc[0])
    content = first.read_bytes()
    first.unlink()
    with pytest.raises(DatasetError, match="can't be read"):
        load_pixels(dataset, Preprocessing(size=(32, 32)))
    first.write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    with pytest.raises(DatasetError, match="not the image that was ingested"):
        load_pixels(dataset, Preprocessing(size=(32, 32)))
    first.write_bytes(content)
    assert len(load_pixels(dataset, Preprocessing(size=(32, 32))).rows) == len(dataset.frame())


def test_the_cache_forgets_what_was_unused_for_longest(
    tiny: Dataset, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETIDERM_CACHE_GIB", "0.0004")  # room for two of 196 kB
    for side in (30, 31, 32):
        load_pixels(tiny, Preprocessing(size=(side, 32)))
    kept = {np.load(p, mmap_mode="r").shape[1] for p in (home.root / "cache" / "pixels").glob("*/pixels.npy")}
    assert kept == {31, 32}
    monkeypatch.setenv("RETIDERM_CACHE_GIB", "much")
    with pytest.raises(UsageError, match="RETIDERM_CACHE_GIB"):
        load_pixels(tiny, Preprocessing(size=(32, 32)))


def test_what_killed_processes_left_of_a_cache_is_removed(
    tiny: Dataset, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, preprocessing = home.root / "cache" / "pixels", Preprocessing(size=(32, 32))
    load_pixels(tiny, preprocessing)
    (own,) = (path.name for path in root.iterdir() if path.is_dir())
    for name in (f".{own}.ab_1.part", f".{own}.ab_2.old", ".gone.ab_3.part", ".busy.ab_4.part"):
        (root / name).mkdir()
        (root / name / "pixels.npy").write_bytes(b"0" * 100)
    with cache._locked(root / ".busy.lock"):
        load_pixels(tiny, preprocessing)
        assert [path.name for path in cache._unfinished(root)] == [".busy.ab_4.part"]
        monkeypatch.setenv("RETIDERM_CACHE_GIB", "0")
        load_pixels(tiny, Preprocessing(size=(30, 32)))
        assert (root / ".busy.ab_4.part").is_dir(), "another process is making it"
    load_pixels(tiny, preprocessing)
    assert not cache._unfinished(root)


# -- device --------------------------------------------------------------------------------------------------


def test_devices_and_precisions() -> None:
    assert choose_device("cpu") == CPU
    assert choose_precision("auto", CPU) in {"fp32", "bf16"}
    assert choose_precision("bf16", CPU) == "bf16"
    for wrong in ("gpu", "mps"):
        with pytest.raises(UsageError, match=wrong):
            choose_device(wrong)
    with pytest.raises(UsageError, match="GPU"):
        choose_precision("fp16", CPU)
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(UsageError, match="--device cpu"):
            choose_device("cuda")


def test_depthwise_convolutions_stay_in_full_precision_within_bf16() -> None:
    model = build_model(tiny_task()).train()
    seen: list[torch.dtype] = []
    spare_depthwise(model, CPU, "bf16")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    images = torch.randn(4, 3, 32, 32)
    with autocast(CPU, "bf16"):
        low = model(images)
    low.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert set(seen) == {torch.bfloat16}, "what follows a depthwise convolution still gets bf16"
    model.eval()
    with torch.inference_mode():
        full = model(images)
        with autocast(CPU, "bf16"):
            low = model(images)
    assert full.dtype == torch.float32
    torch.testing.assert_close(low.float(), full, atol=0.05, rtol=0.1)


def test_what_training_changes_of_the_process_is_put_back() -> None:
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    with steady(CPU):
        assert torch.backends.cudnn.deterministic
    assert (torch.get_num_threads(), torch.backends.cudnn.deterministic) == (threads, deterministic)


# -- files ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, {"at": {"epoch": 1}})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["at"] == {"epoch": 1}
    torch.save({"format": 99}, tmp_path / checkpoint.NAME)
    with pytest.raises(UsageError, match="99"):
        checkpoint.load(tmp_path)


def test_curves_are_a_picture_even_of_one_epoch(tmp_path: Path) -> None:
    row = {"epoch": 0, "loss": 1.0, "val": {"grade": {"auc": 0.5, "nll": 1.2}}}
    path = tmp_path / "curves.png"
    draw_curves([row], 0, path, title=load_task("dr_grading").title)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[0] >= 300
    draw_curves([{**row, "val": {}}], 0, path, title="no validation")
