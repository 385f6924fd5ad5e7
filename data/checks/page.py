"""The report as one HTML page that needs nothing else: styles and thumbnails are inside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from data.checks.report import CheckReport, Finding
from data.dataset import LABEL, SPLITS, Dataset
from data.errors import ImageError
from data.files import write_json, write_text
from data.image import STORED_LIMITS, decode

if TYPE_CHECKING:
    import pandas as pd

_THUMBNAIL = 96
_SHOWN = 24
_ROWS_SHOWN = 200
_PER_CLASS = 6

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c0392b; --warn: #b9770e; --good: #1e8449; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { border: 1px solid var(--line); padding: .2rem .6rem; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } th { text-align: left; }
.verdict { display: inline-block; padding: .1rem .8rem; border-radius: 1rem; color: #fff; }
.failure { border-left: 4px solid var(--bad); } .warning { border-left: 4px solid var(--warn); }
section.finding { padding-left: 1rem; margin: 1.5rem 0; } code { font-size: .85em; overflow-wrap: anywhere; }
.thumbs { display: flex; flex-wrap: wrap; gap: .6rem; } figure { margin: 0; width: min-content; }
figure div { display: flex; gap: 2px; } figcaption { font-size: .7rem; overflow-wrap: anywhere; }
img { width: 96px; height: 96px; object-fit: contain; background: #000; }
.zero { color: var(--bad); font-weight: bold; }
"""


def write_report(report: CheckReport, folder: Path) -> Path:
    """Write ``report.html``, ``report.json`` and Great Expectations' ``gx.json``; gives the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", {**report.to_dict(), "dataset": dict(report.dataset.info)})
    write_json(folder / "gx.json", report.gx)
    page = folder / "report.html"
    write_text(page, render(report))
    return page


def render(report: CheckReport) -> str:
    """The page."""
    dataset = report.dataset
    frame = dataset.frame()
    thumbnails = _Thumbnails(dataset, frame)
    colour = "--good" if report.passed else "--bad"
    word = "passed" if report.passed else "failed"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>Data check: {escape(dataset.task)} — {word}</title><style>{_STYLE}</style>",
        f"<h1>Data check of {escape(dataset.task)} ",
        f'<span class=verdict style="background: var({colour})">{word}</span></h1>',
        f"<p>{len(report.failures)} failures, {len(report.warnings)} warnings, "
        f"{len(report.checked)} rules: {escape(', '.join(report.checked))}.</p>",
        _about(dataset),
        *(_finding(each, thumbnails) for each in (*report.failures, *report.warnings)),
        "<h2>Images a class and split</h2>",
        *(_class_table(dataset, head.name) for head in dataset.heads),
        "<h2>Splits</h2>",
        _split_table(frame),
        "<h2>Examples</h2>",
        *(_examples(frame, head.name, head.classes, thumbnails) for head in dataset.heads[:1]),
        "</html>",
    ]
    return "\n".join(parts)


def _about(dataset: Dataset) -> str:
    info = dataset.info
    rows = {
        "Digest": info["digest"],
        "Test digest": info["test_digest"],
        "Source": info.get("source"),
        "Synthetic": "yes: drawn, not photographed" if info["synthetic"] else "no",
        "Licence": info.get("licence"),
        "Forbids": ", ".join(info["forbids"]) or "nothing known",
        "Split by": info.get("split_rule"),
        "Quality profile": info.get("profile"),
        "Images": info["images"],
        "Left out, not decodable": info.get("rejected", 0),
        "Made": info.get("created_at"),
    }
    cells = "".join(
        f"<tr><th>{escape(name)}<td><code>{escape(str(value))}</code>" for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _finding(finding: Finding, thumbnails: _Thumbnails) -> str:
    more = len(finding.rows) - _ROWS_SHOWN
    listed = "".join(f"<li><code>{escape(row)}</code>" for row in finding.rows[:_ROWS_SHOWN])
    rest = f"<li>and {more} more, in report.json" if more > 0 else ""
    pictures = "".join(thumbnails.figure(ids) for ids in finding.images[:_SHOWN])
    return (
        f'<section class="finding {finding.severity}"><h2>{finding.severity}: {escape(finding.message)}</h2>'
        f"<p><code>{escape(finding.check)}</code>, {finding.count} found.</p>"
        f"<div class=thumbs>{pictures}</div>"
        f"<details {'open' if len(finding.rows) <= 12 else ''}><summary>Rows</summary>"
        f"<ul>{listed}{rest}</ul></details>"
        "</section>"
    )


def _class_table(dataset: Dataset, head: str) -> str:
    counts = dataset.info["counts"]
    lines = [
        f"<table><caption>{escape(head)}</caption><tr><th>class"
        + "".join(f"<th>{split}" for split in SPLITS)
        + "<th>all"
    ]
    for name in dataset.info["heads"][head]:
        numbers = [int(counts[split][head].get(name, 0)) for split in SPLITS]
        lines.append(f"<tr><th>{escape(name)}" + _cells([*numbers, sum(numbers)]))
    return "".join(lines) + "</table>"


def _split_table(frame: pd.DataFrame) -> str:
    names = ("split", "images", "groups", "retake", "ungradable", "median sharpness", "median exposure")
    lines = ["<table><tr>" + "".join(f"<th>{name}" for name in names)]
    for split in SPLITS:
        part = frame[frame["split"] == split]
        verdicts = part["verdict"].value_counts()
        numbers: list[Any] = [
            len(part),
            part["group"].nunique(),
            int(verdicts.get("retake", 0)),
            int(verdicts.get("ungradable", 0)),
            f"{part['sharpness'].median():.3g}" if len(part) else "",
            f"{part['exposure'].median():.3g}" if len(part) else "",
        ]
        lines.append(f"<tr><th>{split}" + "".join(f"<td class=n>{number}" for number in numbers))
    return "".join(lines) + "</table>"


def _examples(frame: pd.DataFrame, head: str, classes: Sequence[str], thumbnails: _Thumbnails) -> str:
    lines = []
    for name in classes:
        part = frame[frame[LABEL + head] == name]
        step = max(1, len(part) // _PER_CLASS)
        pictures = "".join(thumbnails.figure((each,)) for each in part["id"].tolist()[::step][:_PER_CLASS])
        lines.append(f"<h3>{escape(name)}</h3><div class=thumbs>{pictures}</div>")
    return "".join(lines)


def _cells(numbers: Iterable[int]) -> str:
    return "".join(f'<td class="n{"" if number else " zero"}">{number}' for number in numbers)


class _Thumbnails:
    """Small JPEGs as data URIs, by a manifest row's id."""

    def __init__(self, dataset: Dataset, frame: pd.DataFrame) -> None:
        self._dataset = dataset
        self._path = dict(zip(frame["id"], frame["path"], strict=True))
        self._split = dict(zip(frame["id"], frame["split"], strict=True))

    def figure(self, ids: Sequence[str]) -> str:
        """One picture, or two side by side, with their names."""
        pictures = "".join(f'<img alt="" src="{self._uri(name)}">' for name in ids)
        caption = " / ".join(f"{name} ({self._split.get(name, '?')})" for name in ids)
        return f"<figure><div>{pictures}</div><figcaption>{escape(caption)}</figcaption></figure>"

    def _uri(self, name: str) -> str:
        path = self._dataset.image_path(self._path.get(name, ""))
        try:
            rgb = decode(path.read_bytes(), STORED_LIMITS, min_side=_THUMBNAIL)
        except (OSError, ImageError):
            return "data:,"
        scale = _THUMBNAIL / max(rgb.shape[:2])
        small = cv2.resize(
            rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        )
        encoded = cv2.imencode(
            ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80]
        )[1]
        return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
