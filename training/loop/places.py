"""Where the loop keeps what it needs from one time to the next: ``RETIDERM_HOME/loop/<task>/``.

::

    labels/<digest>/      an export, as it was read
    datasets/<digest>/    the dataset of a version that was judged: the base of the next one
    weights/              a champion's weights, for a warm start
    excluded/             what exports named as erased, by tenant: it holds for every later dataset
    retrain.lock          a retraining runs here
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from data.dataset import INFO, Dataset
from data.errors import DatasetError, UsageError
from data.files import read_json
from data.paths import home
from data.store import link, published
from serving.core.pointer import check_name

if TYPE_CHECKING:
    from training.registry.client import Registry

LABELS, DATASETS, WEIGHTS, EXCLUDED = "labels", "datasets", "weights", "excluded"
#: Held while a retraining of the task runs here.
LOCK = "retrain.lock"
_SHOWN = 12


def place(task: str, what: str) -> Path:
    """A folder of a task's loop; ``what`` is one of those above."""
    check_name(task, "task")
    return home().root / "loop" / task / what


def short(digest: str) -> str:
    """A digest as a folder's name."""
    return digest.removeprefix("sha256:")[:_SHOWN]


def keep(dataset: Dataset) -> Path:
    """Keep a dataset as the next version's base. Images are linked where they can be, not copied."""
    target = place(dataset.task, DATASETS) / short(dataset.digest)
    with published(target) as folder:
        for item in sorted(dataset.root.rglob("*")):
            if item.is_file():
                there = folder / item.relative_to(dataset.root)
                there.parent.mkdir(parents=True, exist_ok=True)
                link(item, there)
    return target


def kept(task: str) -> list[Dataset]:
    """The datasets that the loop kept, newest first."""
    found = []
    for path in place(task, DATASETS).glob(f"*/{INFO}"):
        try:
            found.append(Dataset.open(path.parent))
        except DatasetError:  # half-way through being replaced, or of another version of this program
            continue
    return sorted(found, key=lambda dataset: str(dataset.info.get("created_at", "")), reverse=True)


def default_base(registry: Registry, task: str) -> Dataset:
    """What labels are added to: the newest dataset that the loop kept, else what the champion learned from.

    Raises:
        UsageError: neither is to be found here.
    """
    if newest := kept(task):
        return newest[0]
    champion = registry.champion(task)
    if champion is None:
        raise UsageError(
            f"{task} has no champion yet, so there is no dataset to add labels to.",
            hint=f"Train a first version (retiderm run {task} --data …), or name a dataset: --base DATASET.",
        )
    if (found := find(task, champion.dataset_digest)) is not None:
        return found
    raise UsageError(
        f"The dataset that {task} version {champion.version} learned from "
        f"({champion.dataset_digest[:19]}…) is not here.",
        hint="Name it: --base DATASET, a folder made by `retiderm data ingest`.",
    )


def find(task: str, digest: str) -> Dataset | None:
    """The dataset of a digest, wherever this home has it; None where it has not."""
    for path in (place(task, DATASETS) / short(digest), *_made_here(task, digest)):
        try:
            found = Dataset.open(path)
        except DatasetError:
            continue
        if found.digest == digest:
            return found
    return None


def _made_here(task: str, digest: str) -> list[Path]:
    """Folders of this home that hold a dataset of that digest: DVC's, then those of runs, newest first."""
    found = []
    for info in sorted(home().datasets.glob(f"*/{INFO}")):
        if _says(info, digest=digest):
            found.append(info.parent)
    for result in sorted(home().runs.glob("*/result.json"), reverse=True):
        if _says(result, task=task, dataset_digest=digest):
            path = read_json(result).get("artifacts", {}).get("ingest.dataset")
            if path and Path(path).is_dir():
                found.append(Path(path))
    return found


def _says(path: Path, **wanted: str) -> bool:
    try:
        told = read_json(path)
    except (OSError, json.JSONDecodeError):
        return False
    return isinstance(told, dict) and all(told.get(key) == value for key, value in wanted.items())


def open_base(task: str, base: str) -> Dataset:
    """The base that was named, else the default one; it must be of this task."""
    if base:
        found = Dataset.open(Path(base).expanduser().resolve())
    else:
        from training.registry.client import Registry

        found = default_base(Registry(), task)
    if found.task != task:
        raise DatasetError(
            f"The base {found.root} was made for the task {found.task}, not {task}.",
            hint="Name a dataset of this task.",
        )
    return found
