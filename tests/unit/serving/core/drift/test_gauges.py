from __future__ import annotations

from prometheus_client import REGISTRY

from serving.core.drift import Settings, judge
from serving.core.drift.gauges import publish
from tests.drift_windows import reference, window


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"retiderm_drift_{name}", {"model": "demo", **labels})


def test_a_report_becomes_gauges_and_a_new_version_takes_their_place() -> None:
    known, fast = reference(), Settings(draws=1000)
    publish(judge(known, window(200, 3, moved=3.0), fast), version="1", at=7.0)
    one = {"version": "1", "family": "inputs", "measure": "embedding", "head": ""}
    assert (value("distance", **one) or 0) > 1
    assert value("alarm", **one) == 2
    assert 0 < (value("effect", **one) or 0) <= 1
    assert value("severity", version="1") == 3
    assert value("images", version="1") == 200
    assert value("judged_timestamp_seconds", version="1") == 7.0
    publish(judge(known, window(20, 3), fast), version="2")
    assert value("distance", **one) is None
    assert value("severity", version="1") is None
    assert value("severity", version="2") == 1
