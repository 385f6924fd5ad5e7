"""Profiles by name and from files, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from data.errors import UsageError
from data.quality import PROFILES, QualityProfile, load_profile


def test_profiles_go_to_a_card_and_back() -> None:
    assert set(PROFILES) == {"fundus", "dermoscopy", "thumbnail", "photo"}
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert QualityProfile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile
        assert load_profile(name) is profile


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_a_profile_comes_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    values = {"name": "mine", "min_sharpness": 0.5, "field": "optional"}
    path.write_text(json.dumps(values) if suffix == ".json" else yaml.safe_dump(values))
    assert load_profile(str(path)) == QualityProfile("mine", min_sharpness=0.5, field="optional")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: x\nsharpness: 1", "sharpness"),
        ("min_sharpness: 1", "name"),
        ("- 1", "mapping"),
        ("name: x\nfield: maybe", "maybe"),
        ("name: x\nmin_sharpness: high", "min_sharpness"),
        ("name: x\nmin_sharpness: .nan", "min_sharpness"),
        ("name: x\nmeasure_size: 4000", "measure_size"),
        ("name: [", "can't be read"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named):
        load_profile(str(path))


def test_an_unknown_name_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="dermoscopy"):
        load_profile("fundas")
