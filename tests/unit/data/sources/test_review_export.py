"""The gateway's export of labels, read: what is taken, and what each fault is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.dataset import Head
from data.errors import SourceError
from data.sources.review_export import read_export, settle
from tests.review_exports import Exported, picture

GRADE = Head("grade", ("low", "middle", "high"))


def labelled(**more: object) -> Exported:
    made = Exported()
    made.label(picture(1), "low", **more)
    made.label(picture(2), "high", reader="ben")
    return made


def test_an_export_is_read(tmp_path: Path) -> None:
    made = labelled(group="p1", prediction={"model_version": "3", "label": "high"}, comment="further keys")
    unsure = made.label(picture(3), None)
    made.excluded = ["0" * 64]
    found = read_export(made.write(tmp_path), task="tiny", heads=[GRADE])
    assert (found.task, found.tenant, found.readers) == ("tiny", "clinic", ("anna", "ben"))
    assert [(label.line, label.value) for label in found.labels] == [(1, "low"), (2, "high"), (3, None)]
    assert (found.labels[0].group, found.labels[0].case_id) == ("p1", made.lines[0]["case_id"])
    assert found.labels[2].cannot_grade == "out of focus"
    assert found.excluded == {"0" * 64}
    assert set(found.settled()) == {*made.images}
    assert found.settled()[unsure]["grade"].value is None


def test_the_digest_is_of_the_labels_not_of_when_they_were_exported(tmp_path: Path) -> None:
    first = labelled()
    digest = read_export(first.write(tmp_path / "a")).digest
    first.lines.reverse()
    first.info["made_at"] = "2027-01-01T00:00:00+00:00"
    assert read_export(first.write(tmp_path / "b")).digest == digest
    first.lines[0]["value"] = "middle"
    assert read_export(first.write(tmp_path / "c")).digest != digest


def other(made: Exported, line: int = 0, **changes: object) -> None:
    made.lines[line].update(changes)


FAULTS: list[tuple[str, Callable[[Exported], object], str]] = [
    ("format", lambda made: made.info.update(format=2), "of format 2; this version reads format 1"),
    ("time", lambda made: made.info.update(made_at="yesterday"), "no time with a zone"),
    ("task", lambda made: made.info.update(task="other"), "are for the task 'other', not 'tiny'"),
    ("line's task", lambda made: other(made, task="other"), "are of another task than tiny: line 1"),
    ("head", lambda made: other(made, head="grad"), r"line 1: grad \(did you mean grade\?\)"),
    ("class", lambda made: other(made, 1, value="extreme"), "unknown class: line 2: grade=extreme"),
    ("index", lambda made: other(made, 1, value="1"), "unknown class: line 2: grade=1"),
    ("both", lambda made: other(made, cannot_grade="dark"), "line 1: it needs either a class"),
    ("neither", lambda made: other(made, value=None), "line 1: it needs either a class"),
    ("reader", lambda made: other(made, reader=" "), "line 1: reader must be a text"),
    ("zone", lambda made: other(made, at="2026-11-20T10:00:00"), "no time with a zone"),
    ("adjudicated", lambda made: other(made, adjudicated="yes"), "adjudicated must be true or false"),
    ("digest", lambda made: other(made, sha256="abc"), "line 1: sha256 is 'abc'"),
    ("up", lambda made: other(made, file="../../etc/passwd"), "file must be images/<sha256>.<ext>"),
    ("root", lambda made: other(made, file="/etc/passwd"), "file must be images/<sha256>.<ext>"),
    (
        "another's file",
        lambda made: other(made, file=made.lines[1]["file"]),
        "file must be images/<sha256>.<ext>",
    ),
    ("erased", lambda made: made.excluded.append(made.lines[0]["sha256"]), "that were erased: line 1"),
    ("exclusion", lambda made: made.excluded.append("all of them"), "are no SHA-256: line 1"),
]


@pytest.mark.parametrize(("break_it", "message"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_what_is_wrong_is_named(tmp_path: Path, break_it: Callable[[Exported], object], message: str) -> None:
    made = labelled()
    break_it(made)
    with pytest.raises(SourceError, match=message):
        read_export(made.write(tmp_path), task="tiny", heads=[GRADE])


@pytest.mark.parametrize("name", ["export.json", "labels.jsonl", "excluded.txt"])
def test_a_part_that_is_missing(tmp_path: Path, name: str) -> None:
    folder = labelled().write(tmp_path)
    (folder / name).unlink()
    with pytest.raises(SourceError, match=name):
        read_export(folder)


def test_lines_that_are_no_json_are_counted_and_named(tmp_path: Path) -> None:
    folder = labelled().write(tmp_path)
    with (folder / "labels.jsonl").open("a") as stream:
        stream.write('{"half\n\n[1]\n')
    with pytest.raises(
        SourceError, match=r"2 line\(s\) of labels.jsonl are malformed: line 3: .*line 5: it is no"
    ):
        read_export(folder)


def test_an_image_that_is_missing_altered_or_a_link(tmp_path: Path) -> None:
    made = labelled()
    folder = made.write(tmp_path / "export")
    path = folder / made.lines[0]["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(SourceError, match="are not what their names say"):
        read_export(folder)
    path.unlink()
    with pytest.raises(SourceError, match="are missing"):
        read_export(folder)
    assert read_export(folder, images=False).labels  # to be counted
    (tmp_path / "elsewhere").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="are links"):
        read_export(folder)


def test_what_was_adjudicated_decides_and_the_readers_are_kept(tmp_path: Path) -> None:
    made = Exported()
    image = picture(1)
    made.label(image, "low", reader="anna")
    made.label(image, "high", reader="ben")
    assert settle(read_export(made.write(tmp_path / "a")).labels).torn
    made.label(image, "middle", reader="chief", adjudicated=True)
    found = settle(read_export(made.write(tmp_path / "b")).labels)
    assert (found.value, found.torn, found.decided_by) == ("middle", False, "chief")
    assert found.readers == {"anna": "low", "ben": "high"}


def test_a_reason_may_differ_where_all_say_that_it_cannot_be_graded(tmp_path: Path) -> None:
    made = Exported()
    made.label(picture(1), None, cannot_grade="dark")
    made.label(picture(1), None, cannot_grade="blurred", reader="ben")
    found = settle(read_export(made.write(tmp_path)).labels)
    assert (found.torn, found.cannot_grade) == (False, "blurred")


def test_the_info_is_json(tmp_path: Path) -> None:
    folder = labelled().write(tmp_path)
    (folder / "export.json").write_text("{")
    with pytest.raises(SourceError, match="is not JSON"):
        read_export(folder)
    (folder / "export.json").write_text(json.dumps({"format": 1, "task": "tiny"}))
    with pytest.raises(SourceError, match="lacks a text 'made_at'"):
        read_export(folder)
