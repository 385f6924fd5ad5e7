from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.checks import check
from data.dataset import Head
from data.errors import SourceError
from data.sources import Sample, open_source
from data.sources.base import Options
from data.sources.labels import Labels
from data.sources.table_source import Part
from tests.unit.data import layouts
from tests.unit.data.layouts import DX, GRADE

DME = Head("dme", ("none", "mild", "severe"))


def samples(spec: str, *heads: Head) -> list[Sample]:
    return list(open_source(spec).samples(heads or (GRADE,)))


def test_aptos(tmp_path: Path) -> None:
    found = samples(layouts.aptos(tmp_path))
    assert len(found) == 20
    assert found[7].id == f"{7:012x}"
    assert found[7].labels == {"grade": "moderate"}
    assert found[7].read() == layouts.picture(7, format="png")
    assert {each.group for each in found} == {None}


def test_eyepacs_groups_both_eyes_of_a_patient(tmp_path: Path) -> None:
    source = open_source(layouts.eyepacs(tmp_path))
    found = list(source.samples((GRADE,)))
    assert [(each.id, each.group, each.meta["eye"]) for each in found[:2]] == [
        ("0_left", "0", "left"),
        ("0_right", "0", "right"),
    ]
    assert "commercial" in source.licence.forbids
    assert source.profile == "fundus"


def test_messidor_leaves_out_ungradable_and_pairs_eyes(tmp_path: Path) -> None:
    found = samples(layouts.messidor2(tmp_path))
    assert len(found) == 12
    assert found[0].group == found[1].group != found[2].group
    assert found[0].labels == {"grade": "no_dr"}
    assert found[1].meta == {"dme": "1"}


def test_messidor_without_pairs_and_as_an_external_test(tmp_path: Path) -> None:
    found = samples(layouts.messidor2(tmp_path, paired=False) + "?split=test")
    assert {each.group for each in found} == {None}
    assert {each.split for each in found} == {"test"}


def test_messidor_repacked_has_other_columns(tmp_path: Path) -> None:
    spec = layouts.messidor2_repacked(tmp_path)
    found = samples(spec)
    assert len(found) == 12
    assert (found[1].id, found[1].labels, found[1].meta) == ("IM0001", {"grade": "mild"}, {"dme": "1"})
    both = samples(spec, GRADE, DME)
    assert (both[1].labels, both[1].meta) == ({"grade": "mild", "dme": "mild"}, {})


def test_idrid_as_shared(tmp_path: Path) -> None:
    found = samples(layouts.idrid_shared(tmp_path), GRADE, DME)
    assert found[4].labels == {"grade": "proliferative", "dme": "mild"}
    assert found[4].split is None
    assert found[4].group == "IDRiD_004"


def test_idrid_official_keeps_its_splits_and_odd_columns(tmp_path: Path) -> None:
    spec = layouts.idrid_official(tmp_path)
    found = samples(spec, GRADE, DME)
    assert [each.split for each in found].count("test") == 8
    assert found[4].labels == {"grade": "proliferative", "dme": "mild"}
    inner = samples(f"idrid:{tmp_path / 'B. Disease Grading'}")
    assert [each.id for each in inner] == [each.id for each in found]


def test_idrid_official_counts_each_part_from_one_and_keeps_them_apart(tmp_path: Path) -> None:
    found = samples(layouts.idrid_official(tmp_path))
    assert len({each.id for each in found}) == len({each.group for each in found}) == 28
    assert (found[0].id, found[0].group, found[0].split) == ("IDRiD_001", "IDRiD_001", "train")
    assert (found[20].id, found[20].group, found[20].split) == ("test/IDRiD_001", "test/IDRiD_001", "test")
    assert found[0].read() != found[20].read()
    made = layouts.make(f"idrid:{tmp_path}", (GRADE,), tmp_path / "out")
    assert check(made).passed
    assert len(made.split("test")) == 8


def test_parts_that_use_the_same_names(tmp_path: Path) -> None:
    found = samples(layouts.labels(tmp_path, same_names=True))
    assert [each.id for each in found if each.id.endswith("/0")] == ["train/0", "val/0"]
    made = layouts.make(layouts.labels(tmp_path, same_names=True), (GRADE,), tmp_path / "out")
    assert len(made.split("val")) == 6


def test_a_message_tells_the_tables_of_the_parts_apart(tmp_path: Path) -> None:
    spec = layouts.labels(tmp_path)
    with (tmp_path / "val/labels.csv").open("a") as stream:
        stream.write("val0.jpg,1\n")
    with pytest.raises(SourceError, match=r"^val/labels\.csv names 1 image"):
        samples(spec)


def test_a_source_whose_parts_repeat_a_name(tmp_path: Path) -> None:
    class Twice(Labels):
        def parts(self) -> Sequence[Part]:
            return [dataclasses.replace(part, prefix="") for part in super().parts()]

    layouts.labels(tmp_path, same_names=True)
    with pytest.raises(SourceError, match=r"^0 is in train/labels\.csv and in val/labels\.csv"):
        list(Twice(tmp_path, Options({})).samples((GRADE,)))


def test_labels_of_the_older_service(tmp_path: Path) -> None:
    found = samples(layouts.labels(tmp_path))
    assert {each.split for each in found} == {"train", "val"}
    made = layouts.make(layouts.labels(tmp_path), (GRADE,), tmp_path / "out")
    assert made.info["split_rule"] == "given train/val; test cut from train by group, stratified:0"
    assert len(made.split("val")) == 6
    assert 3 <= len(made.split("test")) <= 5


def test_labels_flat_with_groups_named_heads_and_more_columns(tmp_path: Path) -> None:
    rows = [(f"{i}.jpg", "mild", "none", f"p{i // 2}", "clinic") for i in range(6)]
    spec = layouts.labels_flat(tmp_path, rows, ("image_name", "label", "dme", "group", "site"))
    found = samples(spec, Head("dme", DME.classes))
    assert found[0].labels == {"dme": "none"}
    assert found[0].group == found[1].group == "p0"
    assert found[0].meta["site"] == "clinic"
    assert samples(spec)[0].labels == {"grade": "mild"}


@pytest.mark.parametrize("heads", [(GRADE,), (GRADE, DME)])
def test_columns_named_like_heads_need_no_column_label_and_are_no_slice(
    tmp_path: Path, heads: tuple[Head, ...]
) -> None:
    rows = [(f"{i}.jpg", "mild", "none", "clinic") for i in range(6)]
    found = samples(layouts.labels_flat(tmp_path, rows, ("image_name", "grade", "dme", "site")), *heads)
    cells = {"grade": "mild", "dme": "none", "site": "clinic"}
    names = {head.name for head in heads}
    assert found[0].labels == {name: cells[name] for name in names}
    assert found[0].meta == {name: cell for name, cell in cells.items() if name not in names}


def test_labels_with_a_stated_licence(tmp_path: Path) -> None:
    source = open_source(
        layouts.labels(tmp_path) + "&licence=CC BY-SA 4.0&forbids=commercial, redistribution"
    )
    assert source.licence.name == "CC BY-SA 4.0"
    assert source.licence.forbids == ("commercial", "redistribution")


def test_labels_in_other_spellings(tmp_path: Path) -> None:
    rows = [("a.JPG", "No DR"), ("b", " MILD "), ("c.jpg", "2.0")]
    layouts.table(tmp_path / "labels.csv", ("image_name", "label"), rows)
    text = (tmp_path / "labels.csv").read_text().replace(",", ";")
    (tmp_path / "labels.csv").write_text("\ufeff" + text + "\n;;\n")
    for number, name in enumerate("abc"):
        layouts.image(tmp_path / f"images/{name}.jpg", number)
    assert [each.labels["grade"] for each in samples(f"labels:{tmp_path}")] == ["no_dr", "mild", "moderate"]


@pytest.mark.parametrize("halves", [False, True])
def test_ham10000(tmp_path: Path, halves: bool) -> None:
    found = samples(layouts.ham10000(tmp_path, halves=halves), DX)
    assert len(found) == 42
    assert found[1].group == found[2].group == "HAM_0000001"
    assert found[0].meta == {"age": 40.0, "sex": "male", "localization": "back", "dx_type": "histo"}
    assert found[1].meta["age"] is None
    assert found[1].meta["sex"] is None


@pytest.mark.parametrize("age", ["", "unknown", "Unknown"])
def test_ham10000_age_may_be_unknown_but_not_odd(tmp_path: Path, age: str) -> None:
    spec = layouts.ham10000(tmp_path)
    text = (tmp_path / "HAM10000_metadata.csv").read_text()
    (tmp_path / "HAM10000_metadata.csv").write_text(text.replace("histo,40,", f"histo,{age},"))
    assert samples(spec, DX)[0].meta["age"] is None
    (tmp_path / "HAM10000_metadata.csv").write_text(text.replace("histo,40,", "histo,forty,"))
    with pytest.raises(SourceError, match="Line 2: the age 'forty' is no number"):
        samples(spec, DX)


def test_ham10000_for_a_task_that_names_diagnoses_in_full(tmp_path: Path) -> None:
    full = Head(
        "lesion",
        (
            "actinic_keratosis",
            "basal_cell_carcinoma",
            "benign_keratosis",
            "dermatofibroma",
            "melanoma",
            "nevus",
            "vascular_lesion",
        ),
    )
    found = samples(layouts.ham10000(tmp_path), full)
    assert [each.labels["lesion"] for each in found[:3]] == [
        "actinic_keratosis",
        "basal_cell_carcinoma",
        "basal_cell_carcinoma",
    ]


def test_medmnist_keeps_splits_and_pixels(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    source = open_source(layouts.medmnist(tmp_path))
    found = list(source.samples((GRADE,)))
    assert [each.split for each in found] == ["train"] * 20 + ["val"] * 5 + ["test"] * 10
    assert source.name == "medmnist/retinamnist"
    assert source.profile == "thumbnail"
    decoded = cv2.imdecode(np.frombuffer(found[20].read(), np.uint8), cv2.IMREAD_COLOR_RGB)
    with np.load(tmp_path / "retinamnist.npz") as arrays:
        assert np.array_equal(decoded, arrays["val_images"][0])


def test_medmnist_of_skin_is_not_for_commerce(tmp_path: Path) -> None:
    source = open_source(layouts.medmnist(tmp_path, "dermamnist"))
    assert source.licence.name == "CC BY-NC 4.0"
    assert source.licence.forbids == ("commercial",)
    assert open_source(layouts.medmnist(tmp_path)).licence.forbids == ()


def test_medmnist_in_grey_and_large(tmp_path: Path) -> None:
    import numpy as np

    grey = {
        f"{split}_images": np.zeros((n, 128, 128), np.uint8)
        for split, n in (("train", 20), ("val", 5), ("test", 10))
    }
    source = open_source(layouts.medmnist(tmp_path, **grey))
    assert source.profile == "fundus"
    assert len(next(iter(source.samples((GRADE,)))).read()) > 50


@pytest.mark.parametrize("split", [False, True])
def test_folders(tmp_path: Path, split: bool) -> None:
    found = samples(layouts.folders(tmp_path, 2, split=split))
    assert len(found) == (30 if split else 10)
    assert {each.split for each in found} == ({"train", "val", "test"} if split else {None})
    assert {each.labels["grade"] for each in found} == set(GRADE.classes)


def test_folders_with_a_stranger_beside_the_splits(tmp_path: Path) -> None:
    spec = layouts.folders(tmp_path, 1, split=True)
    layouts.image(tmp_path / "extra/mild/1.jpg", 99)
    with pytest.raises(SourceError, match="that are no split: extra"):
        samples(spec)


def test_a_canonical_dataset_keeps_its_splits_and_columns(tmp_path: Path) -> None:
    made = layouts.make(layouts.ham10000(tmp_path / "ham"), (DX,), tmp_path)
    source = open_source(f"dataset:{made.root}")
    again = layouts.make(f"dataset:{made.root}", (DX,), tmp_path / "again")
    assert source.licence.forbids == ("commercial",)
    assert again.digest == made.digest
    assert again.info["source"] == "ham10000"
    assert again.frame()["meta.age"].equals(made.frame()["meta.age"])
    with pytest.raises(SourceError, match="has no head 'grade'; it has diagnosis"):
        samples(f"dataset:{made.root}")
    with pytest.raises(SourceError, match="unknown class"):
        samples(f"dataset:{made.root}", Head("diagnosis", ("akiec", "bcc")))


def test_missing_and_unlabelled_can_be_let_pass(tmp_path: Path) -> None:
    spec = layouts.aptos(tmp_path)
    (tmp_path / "train_images/000000000003.png").unlink()
    layouts.image(tmp_path / "train_images/stray.png", 50, format="png")
    assert len(samples(spec + "?missing=ignore&unlabelled=ignore")) == 19
    with pytest.raises(SourceError, match="must be one of error, ignore"):
        samples(spec + "?missing=maybe")


def test_one_name_in_both_halves_of_ham(tmp_path: Path) -> None:
    spec = layouts.ham10000(tmp_path, halves=True)
    shutil.copy(tmp_path / "HAM10000_images_part_1/ISIC_0000000.jpg", tmp_path / "HAM10000_images_part_2")
    with pytest.raises(SourceError, match=r"in two folders: ISIC_0000000\.jpg"):
        samples(spec, DX)


def test_a_head_that_the_source_has_no_labels_for(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"no labels for the head 'hair'; its columns are image, dr_grade, dme_risk"
    ):
        samples(layouts.idrid_shared(tmp_path), GRADE, Head("hair", ("straight", "curly")))


@pytest.mark.parametrize("kind", ["medmnist", "folders", "synthetic-fundus"])
def test_sources_with_one_label_refuse_two_heads(tmp_path: Path, kind: str) -> None:
    spec = {
        "medmnist": lambda: layouts.medmnist(tmp_path),
        "folders": lambda: layouts.folders(tmp_path, 1),
        "synthetic-fundus": lambda: "synthetic-fundus?n=2",
    }[kind]()
    with pytest.raises(SourceError, match="2"):
        samples(spec, GRADE, DME)
