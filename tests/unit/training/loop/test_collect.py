"""From labels to a source, the report on them, and where the loop keeps its datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from data.dataset import Dataset
from data.errors import DatasetError, RegistryError, UsageError
from data.files import write_json
from data.ingest import ingest
from data.paths import Home
from tests.review_exports import Exported, picture
from tests.trainings import tiny_dataset, tiny_task
from training.loop.collect import Wishes, collect
from training.loop.due import Trigger
from training.loop.places import default_base, keep, kept, open_base, place
from training.loop.report import changes, lines
from training.loop.status import count, due_now, standing

if TYPE_CHECKING:
    from training.registry.client import Registry

TASK = tiny_task()


class Versions:
    """The registry as the loop sees it: a champion, or none."""

    def __init__(self, digest: str | None) -> None:
        self._digest = digest

    def champion(self, task: str) -> object:
        class Champion:
            version = "3"
            dataset_digest = self._digest

        return Champion() if self._digest else None

    def versions(self, task: str) -> list[object]:
        return []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("base"), 40)


def labelled(base: Dataset, folder: Path) -> Path:
    made = Exported()
    for number in range(5):
        made.label(picture(number), ["low", "high"][number % 2], reader="anna")
        made.label(picture(number), ["low", "high", "middle"][number % 3], reader="ben")
    for line in [line for line in made.lines if line["reader"] == "ben"]:
        sent = [each for each in made.lines if each["sha256"] == line["sha256"]]
        if len({each["value"] for each in sent}) > 1:
            made.label(made.images[line["sha256"]], "low", reader="chief", adjudicated=True)
    row = base.split("test").iloc[0]
    made.label(picture(50), "low", group=row["group"])
    return made.write(folder)


def test_labels_become_a_source_that_ingest_reads(home: Home, base: Dataset, tmp_path: Path) -> None:
    wishes = Wishes(correct=True, licence="CC0-1.0", forbids=("commercial", "resale"))
    found = collect("tiny", TASK.heads, str(labelled(base, tmp_path / "export")), str(base.root), wishes)
    again = collect("tiny", TASK.heads, str(tmp_path / "export"), str(base.root), wishes)
    assert (again.source, again.digest) == (found.source, found.digest)
    other = collect("tiny", TASK.heads, str(tmp_path / "export"), str(base.root), Wishes())
    assert other.digest != found.digest
    made = ingest(found.source, base.heads, tmp_path / "next", task="tiny")
    assert made.info["review"][0]["rules"]["correct"] is True
    assert made.info["forbids"] == ["commercial", "resale"]
    assert changes(found.report) == 5 == made.info["images"] - base.info["images"]


def test_the_report_says_what_a_person_should_look_at(home: Home, base: Dataset, tmp_path: Path) -> None:
    found = collect("tiny", TASK.heads, str(labelled(base, tmp_path / "e")), str(base.root), Wishes())
    (pair,) = found.report["agreement"]["grade"]
    assert (pair["readers"], pair["images"]) == (["anna", "ben"], 5)
    assert pair["quadratic_kappa"] is not None
    assert any("held back" in entry for entry in found.report["attention"])
    text = "\n".join(lines(found.report))
    assert "- 5 added: a new image with this label" in text
    assert "anna and ben agree on" in text
    assert "comparison line" not in text


def test_labels_are_counted_without_their_pictures(home: Home, base: Dataset, tmp_path: Path) -> None:
    folder = labelled(base, tmp_path / "export")
    for path in (folder / "images").iterdir():
        path.unlink()
    assert changes(count("tiny", TASK.heads, str(folder), str(base.root))) == 5


def test_the_report_names_what_was_taken_back_and_what_is_erased_elsewhere(
    home: Home, base: Dataset, tmp_path: Path
) -> None:
    made = Exported()
    sent = made.label(picture(1), "low")
    first = collect("tiny", TASK.heads, str(made.write(tmp_path / "one")), str(base.root), Wishes())
    keep(ingest(first.source, base.heads, tmp_path / "next", task="tiny"))
    made.take_back(sent)
    row = base.split("test").iloc[0]
    made.excluded = [row["sha256"]]
    found = collect("tiny", TASK.heads, str(made.write(tmp_path / "two")), "", Wishes())
    assert changes(found.report) == 1
    assert any(
        "withdrawn, its label was taken back, the base has low" in e for e in found.report["attention"]
    )
    assert found.report["erased_elsewhere"] == [row["id"]]
    assert f"didn't come from review: {row['id']}" in "\n".join(lines(found.report))


def test_labels_that_correct_are_counted_where_they_are_to_be_taken(
    home: Home, base: Dataset, tmp_path: Path
) -> None:
    made = Exported()
    for _, row in base.split("train").iloc[:3].iterrows():
        made.label(
            base.image_path(row["path"]).read_bytes(), "low" if row["label.grade"] != "low" else "high"
        )
    export, registry = str(made.write(tmp_path / "export")), cast("Registry", Versions(None))

    def due(wishes: Wishes) -> tuple[bool, int]:
        trigger = Trigger(always=False, labels=3)
        found = due_now(
            registry, "tiny", TASK.heads, labels=export, base=str(base.root), wishes=wishes, trigger=trigger
        )
        return found.due, found.gathered

    assert due(Wishes(correct=True)) == (True, 3)
    assert due(Wishes()) == (False, 0)


def test_wishes_survive_json() -> None:
    wishes = Wishes(True, True, True, "CC0-1.0", ("commercial",))
    assert Wishes.from_dict(wishes.to_dict()) == wishes


def test_the_newest_kept_dataset_is_the_next_base(home: Home, base: Dataset, tmp_path: Path) -> None:
    older = keep(base)
    assert older.parent == place("tiny", "datasets")
    Dataset.open(older).verify()
    info = dict(base.info) | {"created_at": "2199-01-01T00:00:00+00:00"}
    assert keep(base) == older  # the same again
    found = collect("tiny", TASK.heads, str(labelled(base, tmp_path / "export")), "", Wishes())
    assert str(older) in found.source.replace("%2F", "/")
    newer = ingest(found.source, base.heads, tmp_path / "next", task="tiny")
    write_json(newer.root / "dataset.json", {**newer.info, "created_at": info["created_at"]})
    keep(Dataset.open(newer.root))
    assert [each.digest for each in kept("tiny")] == [newer.digest, base.digest]
    assert open_base("tiny", "").digest == newer.digest


def test_without_one_it_is_what_the_champion_learned_from(home: Home, base: Dataset) -> None:
    with pytest.raises(UsageError, match="no champion yet"):
        default_base(Versions(None), "tiny")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"version 3 learned from .* is not here"):
        default_base(Versions(base.digest), "tiny")  # type: ignore[arg-type]
    result = {"task": "tiny", "dataset_digest": base.digest, "artifacts": {"ingest.dataset": str(base.root)}}
    write_json(home.runs / "one" / "result.json", result)
    assert default_base(Versions(base.digest), "tiny").root == base.root  # type: ignore[arg-type]


def test_a_base_of_another_task_is_refused(home: Home, base: Dataset) -> None:
    with pytest.raises(DatasetError, match="made for the task tiny, not eyes"):
        open_base("eyes", str(base.root))


def test_standing_says_what_is_waited_for(home: Home, base: Dataset, tmp_path: Path) -> None:
    folder = str(labelled(base, tmp_path / "export"))
    registry = Versions(None)
    found = standing(registry, "tiny", TASK.heads, labels=folder, base=str(base.root))  # type: ignore[arg-type]
    assert found.due == {
        "due": False,
        "sentence": "waits for labels (5 of 50 labels)",
        "gathered": 5,
        "needed": 50,
    }
    assert found.waits_for == ("a first version: retiderm run, or its promotion", "labels (5 of 50 labels)")
    none = standing(registry, "tiny", TASK.heads)  # type: ignore[arg-type]
    assert none.problem is not None
    assert none.base is None


def test_an_unnamed_task_has_no_place() -> None:
    with pytest.raises((UsageError, RegistryError)):
        place("../up", "labels")
