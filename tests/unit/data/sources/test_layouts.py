from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data.dataset import Head
from data.errors import SourceError
from data.sources import Sample, open_source
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
