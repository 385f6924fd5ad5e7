"""Which versions had learned from an image: by dataset, by where its weights began, and never by a guess."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data.dataset import Dataset
from data.errors import IntegrityError
from data.ingest import ingest
from data.paths import Home
from tests.review_exports import Exported, picture
from tests.trainings import tiny_dataset
from training.loop.learned import Answer, learned
from training.loop.places import keep


class Versions:
    """The registry as the question sees it: versions of one task, each with its data and weights."""

    def __init__(self, task: str, *versions: tuple[str, str | None, str]) -> None:
        self._task, self._versions = task, versions

    def tasks(self) -> list[str]:
        return [self._task]

    def versions(self, task: str) -> list[Any]:
        every = [
            SimpleNamespace(task=task, version=str(number), dataset_digest=digest)
            for number, (digest, _, _) in enumerate(self._versions, 1)
        ]
        return every[::-1]

    def bundle(self, version: Any) -> Any:
        _, begun, ended = self._versions[int(version.version) - 1]
        if begun == "damaged":
            raise IntegrityError("The bundle is damaged.")
        card = SimpleNamespace(weights=SimpleNamespace(sha256=begun), extra={"trained_sha256": ended})
        return SimpleNamespace(card=card)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("base"), 40)


def ask(registry: Versions, *images: str) -> Answer:
    return learned(registry, images)  # type: ignore[arg-type]


def test_by_the_data_and_by_the_weights(home: Home, base: Dataset, tmp_path: Path) -> None:
    other = tiny_dataset(tmp_path / "other", 24)
    keep(base)
    keep(other)
    others = set(other.frame()["sha256"])
    image, tested = (next(s for s in base.split(n)["sha256"] if s not in others) for n in ("train", "test"))
    versions = Versions(
        base.task,
        (base.digest, None, "w1"),
        (other.digest, "w1", "w2"),
        (other.digest, None, "w3"),
        (other.digest, "w2", "w4"),
    )
    found = ask(versions, image, "0" * 64)
    assert [(one.version, one.images) for one in found.versions] == [(v, (image,)) for v in ("1", "2", "4")]
    assert found.versions[1].dataset_digest == other.digest
    assert found.unknown == ()
    # Judged by is not learned from.
    assert ask(versions, tested) == Answer((), ())


def with_words(data: bytes, words: str) -> bytes:
    """The same picture with other metadata."""
    info, out = PngInfo(), io.BytesIO()
    info.add_text("Comment", words)
    Image.open(io.BytesIO(data)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def test_files_that_differ_in_metadata_alone_are_one_image(home: Home, base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    sent = [made.label(with_words(picture(1), words), "low") for words in ("phone A", "phone B")]
    place = made.write(tmp_path / "export")
    found = ingest(
        f"review:{place}?base={base.root}",
        base.heads,
        tmp_path / "next",
        task=base.task,
        store=tmp_path / "store",
    )
    assert len(found.frame()) == len(base.frame()) + 1
    keep(found)
    for sha256 in sent:
        (version,) = ask(Versions(base.task, (found.digest, None, "")), sha256).versions
        assert version.images == (sha256,)


def test_what_is_not_here_is_unknown(home: Home, base: Dataset) -> None:
    keep(base)
    versions = Versions(base.task, ("sha256:" + "0" * 64, None, ""), (base.digest, "damaged", ""))
    found = ask(versions, base.split("val")["sha256"].iloc[0])
    assert found.versions == ()
    assert [one.version for one in found.unknown] == ["1", "2"]
