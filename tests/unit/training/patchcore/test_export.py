from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import BundleError, ParityError
from data.files import sha256_file
from serving.core.patchcore.extractor import Extractor
from training.patchcore.export import export_extractor, made_up, patch_parity, write_extractor
from training.patchcore.features import PatchFeatures, build_features
from training.task import Task, load_task


def task(**changes: Any) -> Task:
    plain = {"backbone": "test_resnet", "weights": "none", "input_size": [64, 96]}
    return load_task("anomaly", overrides={**plain, **changes})


def built(of: Task) -> PatchFeatures:
    torch.manual_seed(0)
    return build_features(of)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patchcore": {"layers": [1, 2, 3], "stride": 4, "balance": True, "project": 24}},
        {"backbone": "test_vit", "input_size": [96, 160], "patchcore": {"layers": [], "stride": None}},
    ],
    ids=["cnn", "balanced-projected-upsampled", "vit"],
)
def test_the_exported_graph_gives_torchs_patches(changes: dict[str, Any], tmp_path: Path) -> None:
    of = task(**changes)
    made = built(of)
    card = export_extractor(made, of, tmp_path / "extractor")
    assert card.extra["parity"]["passed"]
    opened = Extractor.open(tmp_path / "extractor")
    assert opened.card == card
    pixels = np.random.default_rng(1).integers(0, 256, (5, *of.input_size, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = made(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(opened.embed(pixels), wanted, atol=1e-5)
    np.testing.assert_allclose(opened.embed(pixels[:1]), wanted[:1], atol=1e-5)


def test_the_card_says_what_it_is_and_equal_extractors_have_equal_bytes(tmp_path: Path) -> None:
    of = task()
    made = built(of)
    card = export_extractor(made, of, tmp_path / "one")
    again = export_extractor(made, of, tmp_path / "two")
    assert card == again
    assert (tmp_path / "one/extractor.onnx").read_bytes() == (tmp_path / "two/extractor.onnx").read_bytes()
    assert card.digest == sha256_file(tmp_path / "one/extractor.onnx")
    assert (card.backbone, card.input_size, card.grid) == ("test_resnet", (64, 96), made.grid)
    assert card.weights.source == "none"
    assert card.preprocessing == of.preprocessing.to_dict()
    text = (tmp_path / "one/extractor.json").read_text() + str((tmp_path / "one/extractor.onnx").read_bytes())
    assert str(Path(__file__).parents[4]) not in text, "no path of this machine travels"
    json.loads((tmp_path / "one/extractor.json").read_text())


def test_another_network_than_the_one_exported_is_found_out(tmp_path: Path) -> None:
    of = task()
    write_extractor(built(of), of, tmp_path)
    torch.manual_seed(1)
    other = build_features(of)
    with pytest.raises(ParityError, match=r"ONNX Runtime's patches lie up to"):
        patch_parity(other, Extractor.open(tmp_path), made_up(of.input_size))


def test_an_altered_file_is_not_opened(tmp_path: Path) -> None:
    of = task()
    export_extractor(built(of), of, tmp_path / "extractor")
    path = tmp_path / "extractor/extractor.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError):
        Extractor.open(tmp_path / "extractor")


def test_what_is_made_up_to_compare_on_is_the_same_each_time() -> None:
    one, other = made_up((40, 56)), made_up((40, 56))
    assert one.shape == (4, 40, 56, 3)
    assert np.array_equal(one, other)
    assert one.std() > 40
