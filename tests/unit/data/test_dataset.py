from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset import Dataset, Head, counts_of, digest_of
from data.errors import DatasetError, IntegrityError
from tests.unit.data.layouts import GRADE, idrid_shared, make

HEADS = (Head("grade", ("a", "b")), Head("dme", ("no", "yes")))
TEXT = st.text("abc/: \u00e9", min_size=1, max_size=5)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 99),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["no", "yes", None]),
        TEXT,
        st.sampled_from(["train", "test"]),
    ),
    min_size=1,
    max_size=12,
)


def frame(rows: list[tuple[int, str, str | None, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"id{i}" for i in range(len(rows))],
            "path": [f"images/{i}.jpg" for i in range(len(rows))],
            "sha256": [f"{row[0]:064x}" for row in rows],
            "label.grade": [row[1] for row in rows],
            "label.dme": [row[2] for row in rows],
            "group": [row[3] for row in rows],
            "split": [row[4] for row in rows],
        }
    )


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_digest_sees_neither_order_nor_names(rows, random) -> None:  # type: ignore[no-untyped-def]
    data = frame(rows)
    shuffled = data.sample(frac=1, random_state=random.randint(0, 1000))
    shuffled["id"] = "another"
    shuffled["path"] = "elsewhere"
    assert digest_of(shuffled, HEADS) == digest_of(data, HEADS)


@settings(deadline=None)
@given(ROWS, st.data())
def test_digest_sees_every_label_split_group_and_image(rows, draw) -> None:  # type: ignore[no-untyped-def]
    data = frame(rows)
    changed = data.copy()
    row = draw.draw(st.integers(0, len(rows) - 1))
    column, values = draw.draw(
        st.sampled_from(
            [
                ("sha256", ["f" * 64]),
                ("label.grade", ["a", "b"]),
                ("label.dme", ["no", "yes", None]),
                ("group", ["another group"]),
                ("split", ["train", "val", "test"]),
            ]
        )
    )
    old = data.loc[row, column]
    new = draw.draw(st.sampled_from([value for value in values if value != old]))
    changed[column] = [new if i == row else value for i, value in enumerate(data[column])]
    assert digest_of(changed, HEADS) != digest_of(data, HEADS)


def test_digest_sees_the_classes_and_their_order() -> None:
    data = frame([(1, "a", "no", "g", "test")])
    turned = (Head("grade", ("b", "a")), HEADS[1])
    assert digest_of(data, turned) != digest_of(data, HEADS)


def test_a_label_that_says_none_is_not_a_missing_one() -> None:
    heads = (Head("dme", ("None", "no")),)
    missing, named = frame([(1, "a", None, "g", "test")]), frame([(1, "a", "None", "g", "test")])
    assert digest_of(missing, heads) != digest_of(named, heads)


def test_counts_have_a_zero_for_what_is_not_there() -> None:
    counts = counts_of(frame([(1, "a", None, "g", "test")]), HEADS)
    assert counts["test"] == {"grade": {"a": 1, "b": 0}, "dme": {"no": 0, "yes": 0}}
    assert counts["val"]["grade"] == {"a": 0, "b": 0}


@pytest.fixture
def made(tmp_path: Path) -> Dataset:
    return make(idrid_shared(tmp_path / "source"), (GRADE,), tmp_path)


def test_what_is_opened_is_what_was_made(made: Dataset) -> None:
    opened = Dataset.open(made.root)
    assert opened.heads == (GRADE,)
    assert opened.task == "test"
    assert opened.digest == digest_of(opened.frame(), opened.heads)
    assert opened.test_digest != opened.digest
    assert len(opened.split("test")) + len(opened.split("val")) + len(opened.split("train")) == 20
    assert all(opened.image_path(path).is_file() for path in opened.frame()["path"])
    opened.verify()


def test_an_altered_image_is_named(made: Dataset) -> None:
    path = made.image_path(made.frame()["path"][0])
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b"\0")
    with pytest.raises(IntegrityError, match="was altered"):
        made.verify()
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        made.verify()
    made.verify(images=False)


def test_an_altered_label_is_found(made: Dataset) -> None:
    frame = made.frame()
    frame.loc[0, "label.grade"] = "mild" if frame.loc[0, "label.grade"] != "mild" else "severe"
    frame.to_parquet(made.root / "manifest.parquet")
    with pytest.raises(IntegrityError, match="was changed"):
        made.verify()


def test_no_such_split(made: Dataset) -> None:
    with pytest.raises(DatasetError, match="no split 'dev'"):
        made.split("dev")


def test_opening_what_is_none(tmp_path: Path, made: Dataset) -> None:
    with pytest.raises(DatasetError, match="no dataset folder"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"holds no dataset\.json"):
        Dataset.open(tmp_path)
    path = made.root / "dataset.json"
    info = json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        Dataset.open(made.root)
    path.write_text(json.dumps({**info, "format": 2}))
    with pytest.raises(DatasetError, match="format 2"):
        Dataset.open(made.root)
    path.write_text(json.dumps({key: value for key, value in info.items() if key != "digest"}))
    with pytest.raises(DatasetError, match="lacks digest"):
        Dataset.open(made.root)
    path.write_text(json.dumps(info))
    (made.root / "manifest.parquet").unlink()
    with pytest.raises(DatasetError, match=r"has no manifest\.parquet"):
        Dataset.open(made.root)


@pytest.mark.parametrize(("name", "classes"), [("", ("a",)), ("grade", ()), ("grade", ("a", "a"))])
def test_heads_that_are_none(name: str, classes: tuple[str, ...]) -> None:
    with pytest.raises(DatasetError):
        Head(name, classes)


def test_no_version_of_ours_moves_a_digest() -> None:
    """Written down once: models name the digests that they learned from."""
    data = frame([(1, "a", None, "g", "test"), (2, "b", "no", "h/\u00e9", "train")])
    assert digest_of(data, HEADS) == "sha256:0d9baff2ccf4a97c83af64f220e1b7270bf0b9dc9729359319a3de132eacae9e"
