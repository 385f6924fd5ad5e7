"""From a source to a canonical dataset: read, strip, measure, store and split, a few images at a time.

Memory holds what a handful of worker threads are at, and one small row an image; an image's bytes are let go
as soon as they are stored. The folder appears under its name only when it is whole and on disk.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata as package_metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import (
    COLUMNS,
    FORMAT,
    INFO,
    LABEL,
    MANIFEST,
    MASK,
    META,
    ORIGINAL,
    REJECTED,
    Dataset,
    Head,
    counts_of,
    digest_of,
    label_columns,
    mask_files,
)
from data.errors import DatasetError, ImageDamaged, ImageError, SourceError
from data.files import sha256_bytes, write_json
from data.image import STORED_LIMITS, decode, read_header
from data.masks import mask_header, read_mask
from data.metadata import strip
from data.paths import home
from data.phash import phash
from data.preprocess import MEASURE_SIDE
from data.progress import track
from data.provenance import code_digest, cpu_quota
from data.quality import QualityProfile, assess, load_profile
from data.sources import Sample, Source, class_name, open_source
from data.sources.base import fail
from data.splits import Assignment, Rule, assign
from data.store import EXTENSIONS, ImageStore, link, published, relative_path
from data.tone import Place, image_ita, tone_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class _Rejected:
    id: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Work:
    """What a worker needs, the same for every image."""

    store: ImageStore
    profile: QualityProfile
    heads: tuple[Head, ...]
    source: str
    licence: str
    folder: Path
    skin: Place


def ingest(
    spec: str,
    heads: Sequence[Head],
    out: Path,
    *,
    task: str,
    store: Path | None = None,
    split_rule: str | None = None,
    quality_profile: str | None = None,
    limit: int | None = None,
    threads: int | None = None,
) -> Dataset:
    """Make the dataset ``out`` of a source, replacing one that is there.

    ``split_rule`` see :mod:`data.splits`; ``quality_profile`` a profile's name or file; each the source's own
    when None. ``limit`` takes about that many images, evenly over splits and classes.

    Labels are all checked before the first image is read. An image that can't be decoded is left out,
    recorded in ``rejected.csv``, and fails the check later. :class:`SourceError`, :class:`DatasetError`.
    """
    heads = tuple(heads)
    if not heads:
        raise DatasetError("A dataset needs at least one head with classes.")
    if split_rule is not None:
        Rule.parse(split_rule)
    source = open_source(spec, task=task, heads=heads)
    samples = _checked(list(source.samples(heads)), heads, source)
    if limit is not None:
        samples = _limited(samples, heads, limit)
    profile = load_profile(quality_profile or source.profile)
    rule = split_rule or ("one-class" if source.one_class else None)

    with published(out) as folder:
        work = _Work(
            ImageStore(store or home().store),
            profile,
            heads,
            source.name,
            source.licence.name,
            folder,
            source.skin,
        )
        (folder / "images").mkdir()
        rows, rejected = _read_all(samples, work, threads or cpu_quota())
        frame = _frame(rows, heads, rejected)
        split = assign(frame, heads, rule=rule)
        frame["split"], frame["group"] = split.split, split.group
        frame = frame.sort_values(["split", "id"], kind="stable", ignore_index=True)
        frame.to_parquet(folder / MANIFEST, index=False)
        _write_rejected(folder / REJECTED, rejected)
        info = _info(frame, heads, task, source, profile, split, len(rejected))
        if rule is not None and Rule.parse(rule).kind == "one-class":
            info["one_class"] = heads[0].classes[0]
        if source.skin != "none":
            info["skin"] = source.skin
        info |= source.record(info, heads)
        write_json(folder / INFO, info)
    return Dataset.open(out)


def _checked(samples: list[Sample], heads: Sequence[Head], source: Source) -> list[Sample]:
    """What every source owes: at least one image, ids that are unique, a known label in at least one head."""
    if not samples:
        raise SourceError(f"The source {source.name} has no images.", hint="Check the path after the colon.")
    seen: set[str] = set()
    twice, empty, strange = [], [], []
    for sample in samples:
        if sample.id in seen:
            twice.append(sample.id)
        seen.add(sample.id)
        values = [sample.labels.get(head.name) for head in heads]
        if all(value is None for value in values):
            empty.append(sample.id)
        for head, value in zip(heads, values, strict=True):
            if value is not None and class_name(head, value) is None:
                strange.append(f"{sample.id}: {head.name}={value!r}")
    if twice:
        raise fail(f"{len(twice)} id(s) come twice", twice)
    if empty:
        raise fail(f"{len(empty)} image(s) have no label in any head", empty)
    if strange:
        raise fail(f"{len(strange)} image(s) have an unknown class", strange)
    return samples


def _limited(samples: list[Sample], heads: Sequence[Head], limit: int) -> list[Sample]:
    """About ``limit`` samples, each split and class by its share but at least two; always the same ones."""
    if limit < 1:
        raise DatasetError(f"A limit of {limit} leaves nothing.")
    strata: dict[Any, list[tuple[str, int]]] = defaultdict(list)
    for index, sample in enumerate(samples):
        key = (sample.split, *(sample.labels.get(head.name) for head in heads))
        strata[key].append((hashlib.sha256(sample.id.encode()).hexdigest(), index))
    ranked = []
    for members in strata.values():
        for rank, (digest, index) in enumerate(sorted(members)):
            ranked.append((rank >= 2, (rank + 0.5) / len(members), digest, index))
    return [samples[index] for index in sorted(entry[-1] for entry in sorted(ranked)[:limit])]


def _read_all(
    samples: list[Sample], work: _Work, threads: int
) -> tuple[list[dict[str, Any]], list[_Rejected]]:
    rows: list[dict[str, Any]] = []
    rejected: list[_Rejected] = []
    for done in track(_in_order(samples, work, threads), f"Reading {work.source}", len(samples)):
        if isinstance(done, _Rejected):
            rejected.append(done)
        else:
            rows.append(done)
    if not rows:
        raise DatasetError(
            f"None of the {len(samples)} images could be read: "
            + "; ".join(f"{each.id}: {each.reason}" for each in rejected[:5]),
            hint="Check that the files are images.",
        )
    return rows, rejected


def _in_order(samples: list[Sample], work: _Work, threads: int) -> Iterator[dict[str, Any] | _Rejected]:
    """Work on a few samples ahead, and give the results in the samples' order."""
    waiting: deque[Future[dict[str, Any] | _Rejected]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ingest") as pool:
        try:
            for sample in samples:
                waiting.append(pool.submit(_read_one, sample, work))
                if len(waiting) >= 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read_one(sample: Sample, work: _Work) -> dict[str, Any] | _Rejected:
    try:
        original = sample.read()
        read_header(original, STORED_LIMITS)
        data = strip(original, STORED_LIMITS)
        header = read_header(data, STORED_LIMITS)  # a TIFF has become a PNG
        pixels = decode(data, STORED_LIMITS, min_side=max(MEASURE_SIDE, 2 * work.profile.measure_size))
        width, height = header.width, header.height
        if (pixels.shape[0] > pixels.shape[1]) != (height > width):
            width, height = height, width  # the header's sizes are those before orientation
        mask = None if sample.mask is None else _mask(sample.mask(), (height, width), work)
    except ImageError as error:
        return _Rejected(sample.id, error.code, error.message)
    except OSError as error:
        return _Rejected(sample.id, "unreadable", f"{type(error).__name__}: {error.strerror or error}")
    verdict = assess(pixels, work.profile)
    sha256, came = sha256_bytes(data), sample.original or sha256_bytes(original)
    extension = EXTENSIONS[header.format]
    path = relative_path(sha256, extension)
    link(work.store.put(sha256, extension, data), work.folder / "images" / path)
    labels = {
        LABEL + head.name: None if value is None else class_name(head, value)
        for head in work.heads
        for value in (sample.labels.get(head.name),)
    }
    return {
        "id": sample.id,
        "path": f"images/{path}",
        "sha256": sha256,
        "split": sample.split,
        # An image without a group is its own, named by the bytes as they came: no version of ours changes
        # those, so hash folds stay.
        "group": sample.group or f"image:{came}",
        "source": sample.source or work.source,
        "licence": sample.licence or work.licence,
        "width": width,
        "height": height,
        "phash": phash(pixels),
        "sharpness": verdict.scores["sharpness"],
        "exposure": verdict.scores["exposure"],
        "verdict": verdict.verdict,
        MASK: mask,
        ORIGINAL: came if came != sha256 else None,
        **labels,
        **_tone(pixels, work.skin),
        **{META + name: value for name, value in sample.meta.items()},
    }


def _tone(pixels: NDArray[np.uint8], skin: Place) -> dict[str, Any]:
    """The skin tone's angle and class, for slices; both empty where too little of the image is skin."""
    if skin == "none":
        return {}
    angle = image_ita(pixels, skin)
    return {
        META + "ita": None if angle is None else round(angle, 1),
        META + "ita_class": None if angle is None else tone_name(angle),
    }


def _mask(original: bytes, size: tuple[int, int], work: _Work) -> str:
    """Store a mask and give its path; refused when it is empty or of another size than its image."""
    try:
        data = strip(original, STORED_LIMITS)
        marked = read_mask(data)
    except ImageError as error:
        raise type(error)(f"its mask can't be used: {error.message}", hint=error.hint) from error
    if marked.shape != size:
        raise ImageDamaged(
            f"its mask is {marked.shape[1]} x {marked.shape[0]} px, the image {size[1]} x {size[0]}"
        )
    if not marked.any():
        raise ImageDamaged("its mask marks nothing")
    sha256, extension = sha256_bytes(data), EXTENSIONS[mask_header(data, STORED_LIMITS).format]
    path = relative_path(sha256, extension)
    link(work.store.put(sha256, extension, data), work.folder / "masks" / path)
    return f"masks/{path}"


def _frame(rows: list[dict[str, Any]], heads: Sequence[Head], rejected: list[_Rejected]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(rows)
    meta = sorted(name for name in frame.columns if name.startswith(META))
    masks = [name for name in (MASK, ORIGINAL) if frame[name].notna().any()]
    frame = frame[[*COLUMNS, *masks, *label_columns(heads), *meta]]
    for name in meta:
        values = [None if value is None or value != value or value == "" else value for value in frame[name]]
        try:
            numbers = pd.array([None if value is None else float(value) for value in values], dtype="Float64")
            frame[name] = numbers.astype("float64") if len(numbers) else numbers
        except (TypeError, ValueError):
            frame[name] = pd.Series(
                [None if value is None else str(value) for value in values], dtype="object"
            )
    for name in ("split", *masks, *label_columns(heads)):
        frame[name] = frame[name].astype("object").where(frame[name].notna(), None)
    return frame


def _write_rejected(path: Path, rejected: list[_Rejected]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "code", "reason"])
        writer.writerows([each.id, each.code, each.reason] for each in rejected)


def _info(
    frame: pd.DataFrame,
    heads: Sequence[Head],
    task: str,
    source: Source,
    profile: QualityProfile,
    split: Assignment,
    rejected: int,
) -> dict[str, Any]:
    masks = len(mask_files(frame))
    return {
        "format": FORMAT,
        "task": task,
        "digest": digest_of(frame, heads),
        "test_digest": digest_of(frame[frame["split"] == "test"], heads),
        "heads": {head.name: list(head.classes) for head in heads},
        "counts": counts_of(frame, heads),
        "images": len(frame),
        "rejected": rejected,
        **({"masks": masks} if masks else {}),
        "source": source.name,
        "licence": source.licence.name,
        "licence_url": source.licence.url,
        "forbids": list(source.licence.forbids),
        "synthetic": source.synthetic,
        "profile": profile.name,
        "quality": profile.to_dict(),
        "split_rule": split.rule,
        "created_at": _now(),
        "retiderm_version": package_metadata.version("retiderm"),
        "code_digest": code_digest("data"),
    }


def _now() -> str:
    """The time, or the one that ``SOURCE_DATE_EPOCH`` gives to builds that must repeat to the byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    when = (
        datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
        if epoch
        else datetime.datetime.now(datetime.UTC)
    )
    return when.isoformat(timespec="seconds")
