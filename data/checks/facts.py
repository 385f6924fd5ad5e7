"""What the rows say about each other and about their files: the columns that the expectations are about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import LABEL, MASK, SPLITS, Dataset
from data.files import sha256_file
from data.phash import near_pairs
from data.provenance import cpu_quota

if TYPE_CHECKING:
    import pandas as pd

#: Hashes that differ in no more than this of their 64 bits are near duplicates.
NEAR_BITS = 4


@dataclass(slots=True)
class Facts:
    """``rows`` is the manifest with a true/false column a rule; ``told``: per rule and id, what is wrong.

    ``partner`` names the other image of a pair. ``counts`` is one row a split, head and class.
    """

    rows: pd.DataFrame
    counts: pd.DataFrame
    rejected: pd.DataFrame
    told: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    partner: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


def gather(dataset: Dataset, *, files: bool = True) -> Facts:
    """Work the facts out; ``files`` also reads every image to see that it is the one recorded."""
    import pandas as pd

    frame = dataset.frame()
    facts = Facts(
        frame, _counts(dataset, frame), pd.DataFrame(dataset.rejected(), columns=["id", "code", "reason"])
    )
    if not {"id", "sha256", "split", "group", "phash", "path", "width", "height"} <= set(frame.columns):
        return facts  # the schema check says so, and nothing else can be said
    _labels(facts, dataset)
    _duplicates(facts)
    _groups(facts)
    _near(facts)
    facts.rows["_short_side"] = frame[["width", "height"]].min(axis=1)
    if files:
        _files(facts, dataset)
    return facts


def _counts(dataset: Dataset, frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for head in dataset.heads:
        column = LABEL + head.name
        if column not in frame.columns or "split" not in frame.columns:
            continue
        for name in head.classes:
            match = frame[frame[column] == name]["split"].value_counts()
            by_split = {split: int(match.get(split, 0)) for split in SPLITS}
            rows += [
                {
                    "id": f"{head.name}={name} in {split}",
                    "head": head.name,
                    "class": name,
                    "split": split,
                    "images": n,
                }
                for split, n in {**by_split, "any split": sum(by_split.values())}.items()
            ]
    return pd.DataFrame(rows, columns=["id", "head", "class", "split", "images"])


def _labels(facts: Facts, dataset: Dataset) -> None:
    columns = [LABEL + head.name for head in dataset.heads if LABEL + head.name in facts.rows.columns]
    facts.rows["_labels"] = facts.rows[columns].notna().sum(axis=1)


def _duplicates(facts: Facts) -> None:
    """Identical bytes: in two splits, in one split, or with two different labels."""
    labels = [name for name in facts.rows.columns if name.startswith(LABEL)]
    across: set[str] = set()
    within: set[str] = set()
    torn: set[str] = set()
    for _, same in facts.rows[facts.rows.duplicated("sha256", keep=False)].groupby("sha256"):
        ids, splits = list(same["id"]), list(same["split"])
        spread = len(set(splits)) > 1
        for index, name in enumerate(ids):
            other = next(i for i in _others(index, splits, prefer_different=spread))
            text = f"{name} ({splits[index]}) is the same image as {ids[other]} ({splits[other]})"
            rule = "duplicates_across_splits" if spread else "duplicates"
            (across if spread else within).add(name)
            facts.told[rule][name] = text
            facts.partner[rule][name] = ids[other]
        for column in labels:
            found = {value for value in same[column] if isinstance(value, str)}
            if len(found) > 1:
                torn.update(ids)
                text = f"labelled {' and '.join(sorted(found))} ({', '.join(ids)} are the same image)"
                facts.told["conflicting_labels"].update({name: f"{name}: {text}" for name in ids})
    facts.rows["_duplicate_across_splits"] = facts.rows["id"].isin(across)
    facts.rows["_duplicate"] = facts.rows["id"].isin(within)
    facts.rows["_conflicting_labels"] = facts.rows["id"].isin(torn)


def _others(index: int, splits: Sequence[str], *, prefer_different: bool) -> Iterable[int]:
    rest = [i for i in range(len(splits)) if i != index]
    return sorted(rest, key=lambda i: (prefer_different and splits[i] == splits[index], i))


def _groups(facts: Facts) -> None:
    frame = facts.rows
    spread = frame.groupby("group")["split"].nunique()
    names = set(spread[spread > 1].index)
    bad = frame["group"].isin(names)
    frame["_group_across_splits"] = bad
    where = {name: ", ".join(sorted(set(part["split"]))) for name, part in frame[bad].groupby("group")}
    for name, group in zip(frame[bad]["id"], frame[bad]["group"], strict=True):
        facts.told["groups_across_splits"][name] = f"{name}: group {group} is in {where[group]}"


def _near(facts: Facts) -> None:
    """Images that look alike, not the same bytes and not of one group, in different splits."""
    frame = facts.rows
    ids, splits, groups, images = (frame[name].tolist() for name in ("id", "split", "group", "sha256"))
    near: set[str] = set()
    for left, right in near_pairs(frame["phash"].tolist(), NEAR_BITS).tolist():
        if splits[left] != splits[right] and images[left] != images[right] and groups[left] != groups[right]:
            for one, other in ((left, right), (right, left)):
                near.add(ids[one])
                facts.partner["near_duplicates"].setdefault(ids[one], ids[other])
                text = f"{ids[one]} ({splits[one]}) looks like {ids[other]} ({splits[other]})"
                facts.told["near_duplicates"].setdefault(ids[one], text)
    frame["_near_across_splits"] = frame["id"].isin(near)


def _files(facts: Facts, dataset: Dataset) -> None:
    def wrong(row: tuple[str, str, str]) -> str | None:
        path = dataset.image_path(row[1])
        if not path.is_file():
            return f"{row[0]}: {row[1]} is missing"
        return None if sha256_file(path) == row[2] else f"{row[0]}: {row[1]} was altered"

    frame = facts.rows
    rows = list(zip(frame["id"], frame["path"], frame["sha256"], strict=True))
    problems = _threads(wrong, rows)
    if MASK in frame.columns:  # of a row whose image is intact, so that the image's fault is what is told
        marked = [
            (at, (name, path, Path(path).stem))
            for at, (name, path) in enumerate(zip(frame["id"], frame[MASK], strict=True))
            if isinstance(path, str) and problems[at] is None
        ]
        for (at, _), problem in zip(marked, _threads(wrong, [row for _, row in marked]), strict=True):
            problems[at] = problem
    frame["_intact"] = [problem is None for problem in problems]
    for row, problem in zip(rows, problems, strict=True):
        if problem:
            facts.told["files"][row[0]] = problem


def _threads(
    function: Callable[[tuple[str, str, str]], str | None], rows: Sequence[tuple[str, str, str]]
) -> list[str | None]:
    with ThreadPoolExecutor(cpu_quota()) as pool:
        return list(pool.map(function, rows))
