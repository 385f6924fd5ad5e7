"""The scan's benchmark measures what it says, step by step."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scan import PHONE, as_phone, measure
from data.image import read_header
from serving.scan import ACNE, CONDITION, BundleModels
from tests.faces import portrait
from tests.profiles import face_bundle, jpeg


def test_a_row_for_each_step(tmp_path: Path) -> None:
    bundles = [face_bundle(tmp_path / asked.task, asked, quality="photo").root for asked in (ACNE, CONDITION)]
    empty = jpeg(portrait(64)[:8, :8])
    files = {"a": jpeg(portrait(240)), "b": empty}
    rows = list(measure("drawn", files, BundleModels.open(*bundles, threads=1), rounds=1))
    assert [row["step"] for row in rows] == [
        *("end to end", "decode", "face", "measures", "cut", "model acne", "model skin_condition"),
        "end to end, refused",
    ]
    assert all(row["photographs"] == 1 and row["median_ms"] > 0 for row in rows)
    assert [row["target_ms"] for row in rows] == [150.0, *[None] * 7]


def test_a_phones_photograph_has_12_megapixels() -> None:
    header = read_header(as_phone(jpeg(portrait(60, noise=0))))
    assert header.format == "jpeg"
    assert abs(header.width * header.height / PHONE - 1) < 0.01
