"""The real sets, where they are beside the checkout: small parts of them, or the whole where it is quick."""

from __future__ import annotations

from pathlib import Path

from data.checks import check
from tests.unit.data.layouts import DX, GRADE, make


def test_retinamnist_whole(shared_data: Path, tmp_path: Path) -> None:
    made = make(f"medmnist:{shared_data / 'retinamnist/retinamnist.npz'}", (GRADE,), tmp_path)
    assert [len(made.split(name)) for name in ("train", "val", "test")] == [1080, 120, 400]
    assert made.info["counts"]["test"]["grade"]["no_dr"] == 174
    report = check(made)
    assert report.passed
    [near] = [each for each in report.warnings if each.check == "near_duplicates"]
    test = {row.split()[0] for row in near.rows if row.startswith("test_") and "(train)" in row}
    assert len(test) >= 40  # duplicates that look alike are natural in this set


def test_idrid_whole(shared_data: Path, tmp_path: Path) -> None:
    made = make(f"idrid:{shared_data / 'idrid_640'}", (GRADE,), tmp_path)
    assert made.info["images"] == 413
    assert made.info["rejected"] == 0
    report = check(made)
    assert report.passed  # its exact duplicates are one group and so in one split
    [twice] = [each for each in report.warnings if each.check == "duplicates"]
    assert any("IDRiD_079" in row and "IDRiD_279" in row for row in twice.rows)
    frame = made.frame()
    assert frame.groupby("sha256")["split"].nunique().max() == 1


def test_ham10000_in_part(shared_data: Path, tmp_path: Path) -> None:
    made = make(f"ham10000:{shared_data / 'ham10000_200x150'}", (DX,), tmp_path, limit=300)
    frame = made.frame()
    assert len(frame) == 300
    assert set(frame["label.diagnosis"]) == set(DX.classes)
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert check(made).passed
