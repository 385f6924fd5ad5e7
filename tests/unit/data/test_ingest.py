from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset import COLUMNS, Dataset, Head
from data.errors import DatasetError, SourceError, UsageError
from data.ingest import ingest
from data.paths import Home
from data.preprocess import Preprocessing
from tests.unit.data import layouts
from tests.unit.data.layouts import DX, GRADE, make, picture


def with_exif(data: bytes, *, orientation: int = 1) -> bytes:
    """The picture with a place, a camera and an orientation in its EXIF."""
    exif = Image.Exif()
    exif[0x010F] = "CanonicalCamera"
    exif[0x0112] = orientation
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def test_a_dataset_has_all_that_it_promises(tmp_path: Path) -> None:
    made = make(layouts.ham10000(tmp_path / "ham"), (DX,), tmp_path)
    frame = made.frame()
    meta = ["age", "dx_type", "ita", "ita_class", "localization", "sex"]
    assert list(frame.columns) == [*COLUMNS, "label.diagnosis", *(f"meta.{name}" for name in meta)]
    assert frame["meta.age"].dtype == np.float64
    assert frame.loc[frame["id"] == "ISIC_0000001", "meta.age"].isna().all()
    assert set(frame["source"]) == {"ham10000"}
    assert set(frame["licence"]) == {"CC BY-NC 4.0"}
    info = made.info
    assert info["forbids"] == ["commercial"]
    assert info["licence_url"].startswith("https://")
    assert info["synthetic"] is False
    assert info["profile"] == "dermoscopy"
    assert info["split_rule"] == "stratified:0"
    assert (
        sum(n for split in info["counts"].values() for n in split["diagnosis"].values())
        == info["images"]
        == 42
    )
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert made.rejected() == []
    made.verify()


def test_place_and_device_are_stripped_and_the_picture_stays(tmp_path: Path) -> None:
    spec = layouts.idrid_shared(tmp_path / "source")
    path = tmp_path / "source/images/IDRiD_003.jpg"
    path.write_bytes(with_exif(picture(3), orientation=6))
    made = make(spec, (GRADE,), tmp_path)
    row = made.frame().set_index("id").loc["IDRiD_003"]
    stored = made.image_path(row["path"]).read_bytes()
    exif = Image.open(io.BytesIO(stored)).getexif()
    assert b"CanonicalCamera" not in stored
    assert not exif.get_ifd(0x8825)
    assert exif.get(0x0112) == 6
    with Image.open(path) as before, Image.open(io.BytesIO(stored)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_sizes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    spec = layouts.idrid_shared(tmp_path / "source")
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(0))).crop((0, 0, 128, 72)).save(stream, "JPEG")
    (tmp_path / "source/images/IDRiD_000.jpg").write_bytes(with_exif(stream.getvalue(), orientation=6))
    row = make(spec, (GRADE,), tmp_path).frame().set_index("id").loc["IDRiD_000"]
    assert (row["width"], row["height"]) == (72, 128)


def test_a_tiff_is_kept_as_a_png(tmp_path: Path) -> None:
    spec = layouts.idrid_shared(tmp_path / "source")
    Image.open(io.BytesIO(picture(2))).save(tmp_path / "source/images/IDRiD_002.tif")
    (tmp_path / "source/images/IDRiD_002.jpg").unlink()
    row = make(spec, (GRADE,), tmp_path).frame().set_index("id").loc["IDRiD_002"]
    assert row["path"].endswith(".png")


def test_the_same_source_is_the_same_version_from_anywhere(tmp_path: Path) -> None:
    first = make(layouts.ham10000(tmp_path / "one"), (DX,), tmp_path / "a", threads=1)
    second = make(layouts.ham10000(tmp_path / "two", halves=True), (DX,), tmp_path / "b", threads=4)
    assert first.digest == second.digest
    assert first.test_digest == second.test_digest
    assert first.info["created_at"]


def test_a_date_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    made = make(layouts.idrid_shared(tmp_path / "s"), (GRADE,), tmp_path)
    assert made.info["created_at"] == "1970-01-01T00:00:00+00:00"


def test_images_live_once_in_the_store(tmp_path: Path, home: Home) -> None:
    spec = layouts.idrid_shared(tmp_path / "source")
    first = ingest(spec, (GRADE,), tmp_path / "a", task="t")
    second = ingest(spec, (GRADE,), tmp_path / "b", task="t", split_rule="fold:0/3")
    assert first.digest != second.digest
    for path in first.frame()["path"]:
        stored = home.store / path.removeprefix("images/")
        assert stored.samefile(first.image_path(path))
        assert stored.samefile(second.image_path(path))


def test_undecodable_images_are_left_out_and_recorded(tmp_path: Path) -> None:
    spec = layouts.idrid_shared(tmp_path / "source")
    (tmp_path / "source/images/IDRiD_004.jpg").write_bytes(picture(4)[:500])
    (tmp_path / "source/images/IDRiD_007.jpg").write_bytes(b"")
    made = make(spec, (GRADE,), tmp_path)
    assert made.info["images"] == 18
    assert made.info["rejected"] == 2
    rejected = made.rejected()
    assert [each["id"] for each in rejected] == ["IDRiD_004", "IDRiD_007"]
    assert {each["code"] for each in rejected} == {"image_damaged", "not_an_image"}


def test_what_ingest_takes_training_and_export_can_read(tmp_path: Path, home: Home) -> None:
    """Over the limits of requests, under those of files: both as it is and, from TIFF, as a PNG."""
    from training.export.images import load_pixels as for_export
    from training.fit.cache import load_pixels as for_training

    spec = layouts.aptos(tmp_path / "source")
    large = Image.new("L", (7200, 7000), 90)
    for name, kind in ((0, "JPEG"), (1, "TIFF")):
        large.save(tmp_path / f"source/train_images/{name:012x}.png", kind)
    made = make(spec, (GRADE,), tmp_path)
    assert made.info["rejected"] == 0
    frame = made.frame()
    assert (frame["width"] == 7200).sum() == 2
    preprocessing = Preprocessing(size=(32, 32))
    assert len(for_training(made, preprocessing).rows) == 20
    assert for_export(made, frame[frame["width"] == 7200], preprocessing).mean() == pytest.approx(90, abs=2)


def test_a_failed_ingest_leaves_the_older_dataset(tmp_path: Path) -> None:
    spec = layouts.idrid_shared(tmp_path / "source")
    older = make(spec, (GRADE,), tmp_path)
    for path in (tmp_path / "source/images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError):
        make(spec, (GRADE,), tmp_path)
    Dataset.open(tmp_path / "dataset").verify()
    assert Dataset.open(tmp_path / "dataset").digest == older.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "source", "store"]


def test_a_kill_leaves_nothing_under_the_datasets_name(tmp_path: Path) -> None:
    code = """
import os, sys, data.ingest as module
from pathlib import Path
from data.dataset import Head
module.write_json = lambda *_: os.kill(os.getpid(), 9)
module.ingest("synthetic-fundus?n=10&size=64", [Head("g", tuple("abcde"))], Path(sys.argv[1]), task="t")
"""
    environment = {**os.environ, "RETIDERM_HOME": str(tmp_path / "var")}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], env=environment, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "out").exists()
    made = ingest(
        "synthetic-fundus?n=10&size=64",
        [Head("g", tuple("abcde"))],
        tmp_path / "out",
        task="t",
        store=tmp_path / "var/store",
    )
    made.verify()


def test_a_limit_keeps_every_class_and_always_the_same(tmp_path: Path) -> None:
    spec = layouts.medmnist(tmp_path / "m", counts=(200, 40, 60))
    first = make(spec, (GRADE,), tmp_path / "a", limit=60)
    assert first.info["images"] == 60
    for split in ("train", "val", "test"):
        assert min(first.info["counts"][split]["grade"].values()) >= 2
    assert make(spec, (GRADE,), tmp_path / "b", limit=60).digest == first.digest
    with pytest.raises(DatasetError, match="leaves nothing"):
        make(spec, (GRADE,), tmp_path / "c", limit=0)


def test_a_head_may_be_unlabelled_where_another_is_not(tmp_path: Path) -> None:
    rows = [(f"{i}.jpg", i % 5, "" if i == 3 else ("no", "yes")[i % 2]) for i in range(20)]
    spec = layouts.labels_flat(tmp_path / "s", rows, ("image_name", "grade", "dme"))
    made = make(spec + "&label=grade", (GRADE, Head("dme", ("no", "yes"))), tmp_path)
    frame = made.frame().set_index("id")
    assert frame.loc["3", "label.dme"] is None
    assert frame.loc["4", "label.dme"] == "no"


def test_mixed_extra_columns_become_text(tmp_path: Path) -> None:
    rows = [(f"{i}.jpg", i % 5, "clinic" if i else "7", i) for i in range(10)]
    spec = layouts.labels_flat(tmp_path / "s", rows, ("image_name", "label", "site", "age"))
    frame = make(spec, (GRADE,), tmp_path).frame().set_index("id")
    assert frame.loc["0", "meta.site"] == "7"
    assert frame["meta.age"].dtype == np.float64


def test_another_profile_judges(tmp_path: Path) -> None:
    spec = layouts.idrid_shared(tmp_path / "s")
    made = make(spec, (GRADE,), tmp_path, quality_profile="photo")
    assert made.info["profile"] == "photo"
    assert made.info["quality"]["name"] == "photo"
    with pytest.raises(UsageError):
        make(spec, (GRADE,), tmp_path, quality_profile="portrait")


def test_what_must_be_right_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        make("synthetic-fundus", (GRADE,), tmp_path, split_rule="random")
    with pytest.raises(DatasetError, match="at least one head"):
        make("synthetic-fundus", (), tmp_path)
    with pytest.raises(SourceError):
        make("synthetic-fundus:/somewhere", (GRADE,), tmp_path)


def test_synthetic_is_said_everywhere(tmp_path: Path) -> None:
    made = make("synthetic?n=10&size=64", (GRADE,), tmp_path)
    assert made.info["synthetic"] is True
    assert made.info["licence"].startswith("synthetic")
    assert all(name.startswith("synthetic") for name in made.frame()["id"])
    again = make(f"dataset:{made.root}", (GRADE,), tmp_path / "again")
    assert again.info["synthetic"] is True
    assert again.digest == made.digest
