from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from data.errors import TaskError
from data.files import sha256_file
from training import weights
from training.spec.parts import WeightsSpec
from training.weights import WeightsInfo, lite0_key, lite0_state, package_file, start


def test_every_key_of_the_package_has_its_place_in_timm() -> None:
    model = timm.create_model("tf_efficientnet_lite0")
    state = lite0_state()
    assert state.keys() == model.state_dict().keys()
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert lite0_key("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
    assert lite0_key("_blocks.4._bn1.bias") == "blocks.2.1.bn2.bias"
    assert lite0_key("_blocks.15._project_conv.weight") == "blocks.6.0.conv_pwl.weight"


def test_the_default_weights_know_a_screw(shared_data: Path) -> None:
    """ImageNet's class 783 is a screw: equal shapes in the wrong places would not see one."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(lite0_state())
    paths = sorted((shared_data / "mvtec" / "screw" / "train" / "good").iterdir())[:6]
    images = [cv2.resize(cv2.imread(str(path))[..., ::-1], (224, 224), interpolation=3) for path in paths]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        chances = model((pixels - 127) / 128).softmax(1)
    assert (chances.argmax(1) == 783).all()
    assert chances[:, 783].mean() > 0.6


def test_default_gives_the_normalisation_that_the_weights_were_trained_with() -> None:
    begun = start("tf_efficientnet_lite0", WeightsSpec())
    assert begun.mean == pytest.approx((127 / 255,) * 3)
    assert begun.std == pytest.approx((128 / 255,) * 3)
    assert begun.info.licence == "Apache-2.0"
    assert begun.info.sha256 == sha256_file(package_file())
    assert begun.info.forbids == ()
    torch.testing.assert_close(
        begun.backbone.state_dict()["conv_stem.weight"], lite0_state()["conv_stem.weight"]
    )


def test_another_backbone_without_a_hub_starts_from_random_weights_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = start("test_resnet", WeightsSpec())
    assert begun.info.source == "none"
    assert begun.info.note is not None
    assert "test_resnet" in begun.info.note
    assert "random" in capsys.readouterr().err
    assert WeightsInfo.from_dict(begun.info.to_dict()) == begun.info


def test_none_and_untrained_load_nothing() -> None:
    assert start("test_resnet", WeightsSpec("none")).info == WeightsInfo("none")
    assert start("tf_efficientnet_lite0", WeightsSpec(), pretrained=False).info == WeightsInfo("none")


def test_a_hub_out_of_reach_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *, pretrained: bool = False, **options: object) -> None:
        raise OSError("cannot reach it\nand a long trace")

    monkeypatch.setattr(weights, "create", refuse)
    with pytest.raises(TaskError, match="cannot reach it") as caught:
        start("resnet50", WeightsSpec("hub"))
    assert "default, none or a local file" in str(caught.value)
    assert "long trace" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".wrapped.pth"])
def test_a_local_file_is_loaded_whole_and_its_classifier_left(suffix: str, tmp_path: Path) -> None:
    donor = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(donor.state_dict(), path)
    elif suffix == ".pth":
        torch.save(donor.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, path)
    spec = WeightsSpec(str(path), licence="CC BY-NC 4.0", forbids=("commercial",))
    begun = start("test_resnet", spec)
    for key, value in begun.backbone.state_dict().items():
        torch.testing.assert_close(value, donor.state_dict()[key])
    assert begun.info == WeightsInfo(path.name, "CC BY-NC 4.0", sha256_file(path), ("commercial",))
    assert start("test_resnet", WeightsSpec(str(path), sha256=sha256_file(path))).info.sha256
    with pytest.raises(TaskError, match="another file"):
        start("test_resnet", WeightsSpec(str(path), sha256="0" * 64))


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    first = next(iter(state))
    for change, said in (
        ({key: value for key, value in state.items() if key != first}, "1 missing"),
        ({**state, "extra": torch.zeros(1)}, "1 unknown"),
        ({**state, first: torch.zeros(2)}, "1 of another shape"),
    ):
        path = tmp_path / "weights.pth"
        torch.save(change, path)
        with pytest.raises(TaskError, match=said):
            start("test_resnet", WeightsSpec(str(path)))


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran",))


@pytest.mark.parametrize("name", ["code.pth", "damaged.pth", "damaged.safetensors", "list.pth"])
def test_a_file_with_code_or_damage_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if name == "code.pth":
        torch.save({"a": _Runs()}, path)
    elif name == "list.pth":
        torch.save([1, 2], path)
    else:
        path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not weights")
    with pytest.raises(TaskError, match=name):
        start("test_resnet", WeightsSpec(str(path)))
    assert "code ran" not in capsys.readouterr().out


def test_a_missing_file_and_a_missing_backbone(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no file"):
        start("test_resnet", WeightsSpec(str(tmp_path / "none.pth")))
    with pytest.raises(TaskError, match="resnet50"):
        start("resnet5", WeightsSpec("none"))


def test_stochastic_depth_is_dropped_where_a_backbone_has_none() -> None:
    assert start("test_resnet", WeightsSpec("none"), drop_path_rate=0.1).backbone is not None
    assert start("vgg11", WeightsSpec("none"), pretrained=False, drop_path_rate=0.1).backbone is not None
