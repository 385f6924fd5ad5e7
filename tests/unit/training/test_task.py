from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import TaskError, UsageError
from training.spec.explain import explain
from training.spec.patchcore import PatchCoreSpec
from training.spec.recipe import Recipe
from training.task import (
    Task,
    load_task,
    merge,
    parse_settings,
    profile_names,
    task_from_dict,
    task_names,
    undot,
)

SMALL: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "heads": {"kind": {"classes": ["a", "b"]}},
}


def small(**changes: Any) -> Task:
    return task_from_dict(merge(SMALL, changes))


def refused(match: str, **changes: Any) -> str:
    with pytest.raises(TaskError, match=match) as caught:
        small(**changes)
    return str(caught.value)


@pytest.mark.parametrize("name", task_names())
def test_the_tasks_that_come_along_are_whole(name: str) -> None:
    for profile in (None, *profile_names(name)):
        task = load_task(name, profile=profile)
        assert task.name == name
        assert task.intended_use
        assert task.limits
        assert all(head.titles for head in task.heads)
        assert task.gate.floors
        assert (task.patchcore is not None) == (task.kind == "anomaly")
        assert task.kind == "anomaly" or task.step("train").gpu == 1
        assert task.step("gate") == task.steps["default"]


def test_the_two_tasks_have_the_classes_that_others_rely_on() -> None:
    grade = load_task("dr_grading").heads[0]
    assert grade.classes == ("no_dr", "mild", "moderate", "severe", "proliferative")
    assert grade.ordinal
    assert load_task("skin_lesion").heads[0].classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert [head.name for head in load_task("skin_profile").heads] == ["skin_type", "hair_type", "condition"]


@pytest.mark.parametrize("name", task_names())
def test_a_written_task_reads_back_equal(name: str, tmp_path: Path) -> None:
    task = load_task(name, profile="thumbnail", overrides={"train.val_metric": {"auc": 1, "accuracy": 0.5}})
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task.to_dict()))
    assert load_task(path) == task
    written = yaml.safe_dump(task.to_dict(), sort_keys=False)  # the heads' order is the logits'
    assert task_from_dict(yaml.safe_load(written)).digest == task.digest


def test_profile_and_overrides_are_laid_over_the_file_in_that_order() -> None:
    task = load_task(
        "dr_grading",
        profile="thumbnail",
        overrides={
            "train.epochs": 3,
            "train": {"lr": "3e-4"},
            "backbone": "resnet50",
            "input_size": [64, 96],
        },
    )
    assert task.quality.name == "thumbnail"
    assert task.preprocessing.crop == "none"
    assert task.preprocessing.size == task.input_size == (64, 96)
    assert (task.train.epochs, task.train.lr, task.backbone) == (3, 3e-4, "resnet50")
    assert task.train.augment.vflip, "a profile changes what it names and nothing else"
    assert task.profile == "thumbnail"


def test_a_profile_that_the_file_does_not_know_changes_nothing_but_its_name() -> None:
    with_profile, plain = load_task("dr_grading", profile="photo"), load_task("dr_grading")
    assert with_profile.profile == "photo"
    assert with_profile.training_digest == plain.training_digest


def test_digests_cover_what_they_say() -> None:
    task = small()
    assert small(title="Other", steps={"train": {"gpu": 2}}).digest == task.digest
    assert small(gate={"floors": {"auc": 0.9}}).digest != task.digest
    assert small(gate={"floors": {"auc": 0.9}}).training_digest == task.training_digest
    assert small(train={"checkpoint_seconds": 1, "seed": 4}).training_digest == task.training_digest
    assert small(train={"augment": {"hflip": False}}).training_digest != task.training_digest
    assert small(input_size=225).training_digest != task.training_digest
    assert small(train={"max_minutes": 5}).training_digest != task.training_digest


def test_the_order_of_heads_and_the_content_of_a_weights_file_are_in_the_digests(tmp_path: Path) -> None:
    one, two = {"classes": ["a", "b"]}, {"classes": ["c", "d"]}
    for digest in ("digest", "training_digest"):
        there, back = small(heads={"x": one, "y": two}), small(heads={"y": two, "x": one})
        assert getattr(there, digest) != getattr(back, digest)
        path = tmp_path / "weights.pth"
        path.write_bytes(b"one")
        task = small(weights=str(path))
        first = getattr(task, digest)
        assert getattr(task.pinned(), digest) == first
        path.write_bytes(b"two")
        assert getattr(task, digest) != first
    assert small().pinned() == small()


@pytest.mark.parametrize(
    ("changes", "place", "meant"),
    [
        ({"backbon": "x"}, "`backbon`", "'backbone'"),
        ({"train": {"epoch": 3}}, "`train.epoch`", "'epochs'"),
        ({"train": {"augment": {"rotate": 3}}}, "`train.augment.rotate`", "'rotate_degrees'"),
        ({"train": {"loss": "focall"}}, "`train.loss`", "'focal'"),
        ({"train": {"balance": "weigths"}}, "`train.balance.kind`", "'weights'"),
        ({"train": {"val_metric": "kapa"}}, "`train.val_metric`", "'kappa'"),
        ({"train": {"val_metric": "kinds.auc"}}, "`train.val_metric`", "'kind'"),
        ({"preprocessing": {"corp": "none"}}, "`preprocessing.corp`", "'crop'"),
        ({"preprocessing": {"size": 64}}, "`preprocessing.size`", "`input_size`"),
        ({"preprocessing": {"crop": "square"}}, "`preprocessing`", "none, fundus"),
        ({"quality": "fundas"}, "`quality`", "'fundus'"),
        ({"quality": {"base": "photo", "min_sharpnes": 1}}, "`quality`", "min_sharpnes"),
        ({"gate": {"floors": {"aucc": 0.5}}}, "`gate.floors`", "'auc'"),
        ({"gate": {"margin": {"metric": "acuracy"}}}, "`gate.margin.metric`", "'accuracy'"),
        ({"steps": {"trian": {}}}, "`steps.trian`", "'train'"),
        ({"steps": {"train": {"gpus": 1}}}, "`steps.train.gpus`", "'gpu'"),
        ({"weights": {"licens": "MIT"}}, "`weights.licens`", "'licence'"),
        ({"heads": {"kind": {"classes": ["a", "b"], "ordnal": True}}}, "`heads.kind.ordnal`", "'ordinal'"),
        ({"kind": "anomoly"}, "`kind`", "'anomaly'"),
    ],
)
def test_a_wrong_word_is_named_with_its_place_and_with_what_was_meant(
    changes: dict[str, Any], place: str, meant: str
) -> None:
    said = refused(".", **changes)
    assert place in said
    assert meant in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"epochs": 2.5}}, "`train.epochs` must be a whole number, not 2.5"),
        ({"train": {"epochs": True}}, "whole number"),
        ({"train": {"lr": "fast"}}, "`train.lr` must be a number, not 'fast'"),
        ({"train": {"lr": float("nan")}}, "`train.lr` must be a number"),
        ({"train": {"lr": -1}}, "from 0 to 10"),
        ({"train": {"batch_size": 1}}, "`train.batch_size` is 1 and must be from 2"),
        ({"train": {"augment": {"scale": [0.5]}}}, "must have 2 entries"),
        ({"train": {"augment": {"scale": 2}}}, "must be a list"),
        ({"train": {"augment": {"scale": [0.0, 1.0]}}}, "`train.augment.scale` is 0"),
        ({"train": {"augment": {"scale": [1.2, 0.8]}}}, "smaller first"),
        ({"train": {"augment": {"hflip": 1}}}, "true or false"),
        ({"train": []}, "`train` must be a mapping"),
        ({"title": None}, "`title` must be text, not empty"),
        ({"name": "Small Task"}, "lower-case"),
        ({"heads": {}}, "`heads` is empty"),
        ({"heads": {"kind": {"classes": ["a"]}}}, "needs at least 2"),
        ({"heads": {"kind": {"classes": ["a", "a"]}}}, "'a' twice"),
        ({"heads": {"kind": {"classes": ["a", "B c"]}}}, "no class name"),
        ({"heads": {"kind": {"classes": ["a", "b"], "titles": ["A"]}}}, "1 entries for 2 classes"),
        ({"heads": {"kind": {"classes": ["a", "b"], "weight": 0}}}, "nothing would be learned"),
        ({"heads": {"kind": {}}}, "`heads.kind.classes` is missing"),
        ({"steps": {"train": {"timeout": "soon"}}}, "90s, 30m or 2h"),
        ({"steps": {"train": {"secrets": {"TOKEN": "x"}}}}, "secret/key"),
        ({"input_size": 4}, "`input_size` is 4"),
        ({"calibration": {"coverage": 2}}, "`calibration.coverage` is 2"),
    ],
)
def test_a_wrong_value_is_explained(changes: dict[str, Any], said: str) -> None:
    assert said in refused(".", **changes)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(TaskError, match="`title` is missing"):
        task_from_dict({"name": "x", "heads": {}})


def test_a_missing_task_names_its_neighbours() -> None:
    with pytest.raises(TaskError, match="'dr_grading'"):
        load_task("dr_gradin")
    with pytest.raises(TaskError, match="no task file my/task"):
        load_task("my/task.yaml")


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "text"])
def test_a_file_that_is_no_task_is_said_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(TaskError):
        load_task(path)


def test_shorthands() -> None:
    task = small(train={"balance": "sampler", "loss": "ce"}, weights="hub")
    assert (task.train.balance.kind, task.train.balance.power) == ("sampler", 0.5)
    assert task.weights.source == "hub"
    assert small(weights=None).weights.source == "none"
    assert small(preprocessing={"clahe": None}).preprocessing.clahe is None


def test_quality_takes_a_name_a_file_or_changes(tmp_path: Path) -> None:
    changed = small(quality={"base": "photo", "name": "mine", "min_contrast": 9.0}).quality
    assert (changed.name, changed.min_contrast) == ("mine", 9.0)
    assert changed.min_side == small(quality="photo").quality.min_side
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(changed.to_dict()))
    assert small(quality=str(path)).quality == changed


def test_settings_from_a_command_line() -> None:
    read = parse_settings(["train.epochs=3", "weights=hub", "train.val_metric={auc: 1}", "gate.floors={}"])
    assert read["train.epochs"] == 3
    assert undot(read)["train"] == {"epochs": 3, "val_metric": {"auc": 1}}
    assert small(**undot({"train.mixup_alpha": 0})).train.mixup_alpha == 0
    for wrong in ("epochs", "=3", "a=[1"):
        with pytest.raises(UsageError):
            parse_settings([wrong])


def test_floors_are_replaced_not_mixed() -> None:
    assert load_task("dr_grading", overrides={"gate.floors": {}}).gate.floors == {}


def test_every_setting_is_explained() -> None:
    told = {knob.name: knob for knob in explain()}
    assert all(knob.doc for knob in told.values())
    assert told["train.augment.rotate_degrees"].limits == "0 – 180"
    assert told["train.balance.kind"].default == "none"
    written = load_task("dr_grading").to_dict()["train"]
    assert {f"train.{key}" for key, value in written.items() if not isinstance(value, dict)} <= set(told)


@pytest.mark.parametrize(("part", "prefix"), [(Recipe, "train."), (PatchCoreSpec, "patchcore.")])
def test_the_documents_tables_are_the_settings_as_they_are(part: type[Any], prefix: str) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "tasks.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(f"| `{prefix}")]
    assert rows == [f"| `{k.name}` | {k.default} | {k.limits} | {k.doc} |" for k in explain(part, prefix)]


ANOMALY: dict[str, Any] = {
    "name": "parts",
    "title": "Parts",
    "kind": "anomaly",
    "heads": {"status": {"classes": ["ok", "ng"]}},
}


def test_an_anomaly_task_has_its_section_and_no_other_task_has() -> None:
    plain = task_from_dict(ANOMALY)
    assert plain.patchcore == PatchCoreSpec()
    assert small().patchcore is None
    assert "patchcore" not in small().to_dict(), "other tasks' digests don't know of it"
    changed = task_from_dict({**ANOMALY, "patchcore": {"score": "top_mean", "layers": [1, 2], "stride": 8}})
    assert changed.patchcore is not None
    assert (changed.patchcore.score.kind, changed.patchcore.layers) == ("top_mean", (1, 2))
    assert task_from_dict(changed.to_dict()) == changed
    assert plain.training_digest != changed.training_digest
    other = task_from_dict({**ANOMALY, "train": {"epochs": 3}})
    assert other.training_digest == plain.training_digest, "nothing is trained"


def test_the_profile_for_dinov2_is_the_extractor_of_the_s4_contract() -> None:
    task = load_task("anomaly", profile="dinov2")
    assert (task.backbone, task.input_size) == ("vit_small_patch14_dinov2.lvd142m", (448, 448))
    assert task.weights.source == "hub"
    assert task.patchcore is not None
    assert (task.patchcore.layers, task.patchcore.neighbourhood, task.patchcore.coreset_rate) == ((), 1, 0.02)
    assert (task.patchcore.project, task.patchcore.stride, task.patchcore.balance) == (None, None, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": {"status": {"classes": ["ng", "ok"]}}}, "ok and ng, in this order, not status: ng, ok"),
        ({"heads": {"a": {"classes": ["ok", "ng"]}, "b": {"classes": ["ok", "ng"]}}}, "one head"),
        ({"patchcore": {"layer": [1]}}, "'layers'"),
        ({"patchcore": {"neighbourhood": 4}}, "must be odd"),
        ({"patchcore": {"layers": [1, 1]}}, "twice"),
        ({"patchcore": {"coreset_rate": 0}}, "from 1e-06 to 1"),
        ({"patchcore": {"score": "top"}}, "top_mean"),
        ({"patchcore": {"augment": {"turns": 0}}}, "`patchcore.augment.turns` is 0"),
        ({"gate": {"floors": {"nll": 1}}}, "`gate.floors`: 'nll' is no metric"),
        ({"gate": {"margin": {"metric": "pro"}}}, "`gate.margin.metric`"),
        ({"kind": "classification", "patchcore": {}}, "belongs to tasks of `kind: anomaly`"),
    ],
)
def test_a_wrong_anomaly_task_is_explained(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError) as caught:
        task_from_dict({**ANOMALY, **changes})
    assert said in str(caught.value)
