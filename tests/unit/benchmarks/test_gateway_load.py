"""The gateway's memory and its stop, measured on little."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import gateway_load


@pytest.mark.slow  # a stop gives stalled bodies five seconds
def test_a_little_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "load.csv"
    little = {"uploads": 4, "mb": 1, "clients": 2, "stalled": 2, "stops": 1, "held-mib": 25, "out": out}
    assert gateway_load.main([f"--{name}={value}" for name, value in little.items()]) == 0
    with out.open(newline="") as stream:
        bounded, damaged, free, stop = csv.DictReader(stream)
    assert (bounded["bound"], damaged["bound"], free["bound"]) == ("25 MiB", "25 MiB", "none")
    assert json.loads(damaged["answers"]) == {"422": 4}
    for row in (bounded, damaged, free):
        assert sum(json.loads(row["answers"]).values()) == 4
        assert int(row["peak_rss_mb"]) >= int(row["idle_rss_mb"]) > 20
    assert json.loads(stop["answers"]) == {"503": 2}
    assert {row["lost"] for row in (bounded, damaged, free, stop)} == {"0"}
    assert {row["met"] for row in (bounded, damaged, free, stop)} == {"True"}
    assert bounded["python"]
    assert "peak_rss_mb" in capsys.readouterr().out


def test_what_no_connection_answers_is_lost() -> None:
    told = gateway_load._told(gateway_load.Counter({"503": 2, "201": 1, "lost": 3}))
    assert told == {"answers": '{"201": 1, "503": 2}', "lost": 3}


@pytest.mark.parametrize("wrong", [["--uploads", "0"], ["--stops", "-1"], ["--mb", "x"]])
def test_what_can_not_be_measured(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gateway_load.main(wrong)
    assert stopped.value.code == 2
    assert wrong[0] in capsys.readouterr().err
