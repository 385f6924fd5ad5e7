from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import UsageError
from data.paths import Home
from serving.patchcore.settings import Limits, Settings


def test_the_defaults_are_the_contracts(home: Home) -> None:
    settings = Settings.from_env({})
    assert settings.models_dir == Path("models")
    assert settings.coreset_rate == 0.02
    assert settings.device == "auto"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert not settings.debug
    assert settings.extractor_folder == home.root / "extractors" / "vit_small_patch14_dinov2.lvd142m-448"


def test_the_old_services_names_are_read() -> None:
    settings = Settings.from_env(
        {
            "MODEL_NAME": "vit_base_patch16_dinov3",
            "DEVICE": "CPU",
            "INPUT_SIZE": "450",
            "CORESET_RATE": "0.1",
            "MODELS_DIR": "/data/models",
            "HOST": "",
            "PORT": " 9000 ",
            "PATCHCORE_MAX_ROIS": "3",
            "PATCHCORE_INFER_S": "2.5",
            "PATCHCORE_DEBUG": "yes",
        }
    )
    assert settings.device == "cpu"
    assert settings.snapped == 448
    assert settings.coreset_rate == 0.1
    assert settings.models_dir == Path("/data/models")
    assert (settings.host, settings.port) == ("127.0.0.1", 9000)
    assert settings.limits == Limits(max_rois=3, infer_s=2.5)
    assert settings.debug


@pytest.mark.parametrize(
    ("name", "size", "snapped"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 448, 448),
        ("vit_small_patch14_dinov2.lvd142m", 450, 448),
        ("vit_small_patch14_dinov2.lvd142m", 384, 378),
        ("vit_small_patch14_dinov2.lvd142m", 512, 518),
        ("vit_small_patch14_dinov2.lvd142m", 8, 14),
        (None, 450, 448),
        ("vit_base_patch16_224", 450, 448),
        ("tf_efficientnet_lite0", 450, 450),
        ("tf_efficientnet_lite0", None, None),
    ],
)
def test_sizes_are_snapped_to_the_patches(name: str | None, size: int | None, snapped: int | None) -> None:
    assert Settings(model_name=name, input_size=size).snapped == snapped


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEVICE", "tpu"), ("INPUT_SIZE", "4.5"), ("INPUT_SIZE", "5000"), ("CORESET_RATE", "0"),
        ("CORESET_RATE", "nan"), ("CORESET_RATE", "2"), ("PORT", "http"), ("PORT", "70000"),
        ("PATCHCORE_DEBUG", "maybe"), ("PATCHCORE_MAX_ROIS", "0"), ("PATCHCORE_MAX_ROIS", "1.5"),
        ("PATCHCORE_FIT_S", "inf"), ("PATCHCORE_THREADS", "0"), ("PATCHCORE_BLUR_SIGMA", "-1"),
    ],
)  # fmt: skip
def test_a_value_that_cant_be_used_says_which(name: str, value: str) -> None:
    with pytest.raises(
        UsageError, match=name.removeprefix("PATCHCORE_").lower()[:5] + "|" + name + "|Threads"
    ):
        Settings.from_env({name: value})
