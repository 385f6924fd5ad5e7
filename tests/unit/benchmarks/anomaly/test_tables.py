"""Tables hold every point and every figure of what is stored."""

from __future__ import annotations

from pathlib import Path

from benchmarks.anomaly.records import Part, merge, section
from benchmarks.anomaly.tables import tables


def test_points_steps_and_figures_are_told(tmp_path: Path) -> None:
    latency, quality = Part("latency", {}), Part("quality", {})
    for contender, extract in (("ours", 20.0), ("theirs", 50.0)):
        latency.add("s", contender, "step: extract", extract, "ms")
        latency.add("s", contender, "step: prepare", 1.0, "ms")
        latency.add("s", contender, "whole, median", 60.0, "ms")
    latency.hold("faster", 1.5, ">=", 2)
    quality.add("screw", "theirs", "image AUROC", 0.91234, "", "9 neighbours")
    quality.add("screw", "theirs", "image AUROC", 0.9, "", "1 neighbour")
    quality.add("screw", "ours", "peak", 1234.5, "MiB")
    quality.hold("no lower", 0.001, ">=", -0.005)
    stored = {p.name: section(p, 2, {"anomalib": "2.7.0"}) for p in (latency, quality)}
    text = tables(merge(tmp_path / "none.json", stored))
    lines = text.splitlines()
    assert "| faster | 1.5 | ≥ 2 | **fail** |" in lines
    assert "| no lower | 0.001 | ≥ -0.005 | pass |" in lines
    assert "| prepare, extract | 21 | 51 |" in lines
    assert "| search |  |  |" in lines
    assert "| screw | theirs | 0.9123 (9 neighbours); 0.9 (1 neighbour) |  |" in lines
    assert "| screw | ours |  | 1,234 |" in lines
    assert text.count("anomalib 2.7.0") == 2
