from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from kfp import compiler

from pipelines.drift import build


def test_it_compiles_to_one_step_that_is_never_cached(tmp_path: Path) -> None:
    told: list[str] = []

    def configure(step: str, task: Any) -> None:
        told.append(step)
        task.set_cpu_limit("1")

    compiler.Compiler().compile(build(configure), str(tmp_path / "drift.yaml"))
    spec = yaml.safe_load((tmp_path / "drift.yaml").read_text())
    (step,) = spec["root"]["dag"]["tasks"].values()
    assert told == ["drift"]
    assert not step["cachingOptions"].get("enableCache")
    assert spec["root"]["inputDefinitions"]["parameters"]["size"]["defaultValue"] == 200
    assert spec["root"]["outputDefinitions"]["parameters"]["Output"]["parameterType"] == "BOOLEAN"
