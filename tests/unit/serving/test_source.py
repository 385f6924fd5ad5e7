"""What is read as "this serves now"."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import BundleError, IntegrityError, UsageError
from serving.core.challenger import challenger_file, remove_challenger
from serving.core.pointer import pointer_file
from serving.source import UNREGISTERED, RootSource, champions, open_source
from tests.bundles import tiny_bundle
from tests.integration.serving.harness import challenge, promote


def test_a_root_gives_every_task(tmp_path: Path) -> None:
    for task in ("dr_grading", "acne"):
        promote(tmp_path / "root", tiny_bundle(tmp_path / task, task=task), "3")
    found = open_source(tmp_path / "root", None).scan()
    assert {task: served.version for task, served in found.items()} == {"dr_grading": "3", "acne": "3"}
    assert found["acne"].open(verify=True).card.task == "acne"


def test_a_damaged_or_missing_pointer_keeps_what_was(tmp_path: Path) -> None:
    promote(tmp_path / "root", tiny_bundle(tmp_path / "a"), "3")
    source = RootSource(tmp_path / "root")
    before = source.scan()
    path = pointer_file(tmp_path / "root", "dr_grading")
    path.write_text("{")
    assert source.scan() == before
    path.unlink()
    assert source.scan() == before


def test_a_damaged_pointer_does_not_hide_another_task(tmp_path: Path) -> None:
    for task in ("dr_grading", "acne"):
        promote(tmp_path / "root", tiny_bundle(tmp_path / task, task=task), "3")
    pointer_file(tmp_path / "root", "acne").write_text("")
    assert set(RootSource(tmp_path / "root").scan()) == {"dr_grading"}


def test_an_empty_or_missing_root_has_nothing(tmp_path: Path) -> None:
    assert RootSource(tmp_path).scan() == {}
    assert RootSource(tmp_path / "gone").scan() == {}


def test_one_bundle_serves_under_its_tasks_name(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b", task="acne")
    (served,) = open_source(None, bundle.root).scan().values()
    assert (served.task, served.version, served.digest) == ("acne", UNREGISTERED, bundle.digest)
    assert open_source(None, bundle.root, "12").scan()["acne"].version == "12"


def test_another_bundle_in_its_place_is_refused(tmp_path: Path) -> None:
    promote(tmp_path / "root", tiny_bundle(tmp_path / "a"), "3")
    (served,) = RootSource(tmp_path / "root").scan().values()
    tiny_bundle(served.folder, seed=5)
    with pytest.raises(IntegrityError, match="holds dr_grading"):
        served.open(verify=True)


def test_both_or_none_is_a_usage_error(tmp_path: Path) -> None:
    for root, bundle in ((None, None), (tmp_path, tmp_path)):
        with pytest.raises(UsageError):
            open_source(root, bundle)
    with pytest.raises(BundleError):
        open_source(None, tmp_path / "gone")


def test_a_challenger_is_named_beside_its_champion_until_it_is_withdrawn(tmp_path: Path) -> None:
    root = tmp_path / "root"
    promote(root, tiny_bundle(tmp_path / "a"), "3")
    source = RootSource(root)
    assert list(source.scan()) == ["dr_grading"]
    challenge(root, tiny_bundle(tmp_path / "b", seed=5), "4", "shadow")
    found = source.scan()
    served = found["dr_grading-challenger"]
    assert (served.name, served.task, served.version) == ("dr_grading-challenger", "dr_grading", "4")
    assert (served.mode, served.share) == ("shadow", 0.0)
    assert served.open(verify=True).card.task == "dr_grading"
    assert champions(found) == {"dr_grading": found["dr_grading"]}
    challenge(root, tiny_bundle(tmp_path / "b", seed=5), "4", "share", 0.25)
    again = source.scan()["dr_grading-challenger"]
    assert again != served
    assert again.same_model(served)
    assert (again.mode, again.share) == ("share", 0.25)
    remove_challenger(root, "dr_grading")
    assert list(source.scan()) == ["dr_grading"]


def test_a_damaged_challenger_or_a_root_that_is_away_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    promote(root, tiny_bundle(tmp_path / "a"), "3")
    challenge(root, tiny_bundle(tmp_path / "b", seed=5), "4", "share", 0.5)
    source = RootSource(root)
    before = source.scan()
    assert len(before) == 2
    whole = challenger_file(root, "dr_grading").read_text()
    challenger_file(root, "dr_grading").write_text("{")
    assert source.scan() == before
    challenger_file(root, "dr_grading").write_text(whole)
    root.rename(tmp_path / "away")
    assert source.scan() == before
    assert RootSource(root).scan() == {}


def test_a_task_that_is_called_like_a_challenger_keeps_its_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    promote(root, tiny_bundle(tmp_path / "a", task="acne"), "3")
    promote(root, tiny_bundle(tmp_path / "b", task="acne-challenger"), "1")
    challenge(root, tiny_bundle(tmp_path / "c", task="acne", seed=5), "4", "shadow")
    found = RootSource(root).scan()
    assert {name: (item.task, item.mode) for name, item in found.items()} == {
        "acne": ("acne", ""),
        "acne-challenger": ("acne-challenger", ""),
    }


def test_one_bundle_can_be_a_challenger(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b", task="acne")
    (served,) = open_source(None, bundle.root, "12", "share", 0.2).scan().values()
    assert (served.name, served.mode, served.share) == ("acne-challenger", "share", 0.2)
    with pytest.raises(UsageError, match="between 0 and 1"):
        open_source(None, bundle.root, "12", "share", 0.0)
    with pytest.raises(UsageError):
        open_source(None, bundle.root, "12", "", 0.2)
