"""training/registry/targets/cluster.py: where a cluster reads a bundle, and where it can't."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import RegistryError
from tests.unit.training.registry.kserve import Cluster
from training.registry.client import Registry
from training.registry.gate import GateRules, judge
from training.registry.promotion import promote
from training.registry.targets import ClusterTarget, LocalTarget
from training.registry.targets.cluster import storage_uri


@pytest.mark.parametrize(
    ("where", "environment", "found"),
    [
        ("s3://bucket/a/bundle", {}, "s3://bucket/a/bundle"),
        ("gs://bucket/a/bundle", {}, "gs://bucket/a/bundle"),
        (
            "mlflow-artifacts:/0/run/artifacts/bundle",
            {"RETIDERM_ARTIFACT_ROOT": "s3://mlflow/root/"},
            "s3://mlflow/root/0/run/artifacts/bundle",
        ),
        ("/data/mlflow/a/bundle", {"RETIDERM_ARTIFACT_PVC": "claim=/data"}, "pvc://claim/mlflow/a/bundle"),
        ("file:///data/a%20b/bundle", {"RETIDERM_ARTIFACT_PVC": "claim=/data"}, "pvc://claim/a b/bundle"),
    ],
)
def test_where_a_cluster_reads(
    monkeypatch: pytest.MonkeyPatch,
    registry: Registry,
    make: Any,
    where: str,
    environment: dict[str, str],
    found: str,
) -> None:
    monkeypatch.setattr(Registry, "artifact_uri", lambda self, version: where)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert storage_uri(registry, None) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "environment", "hint"),
    [
        ("/data/mlflow/a/bundle", {}, "RETIDERM_ARTIFACT_PVC"),
        ("/data/mlflow/a/bundle", {"RETIDERM_ARTIFACT_PVC": "claim=/other"}, "RETIDERM_ARTIFACT_PVC"),
        ("mlflow-artifacts:/0/run/bundle", {}, "RETIDERM_ARTIFACT_ROOT"),
        ("mlflow-artifacts:/0/run/bundle", {"RETIDERM_ARTIFACT_ROOT": "/data"}, "a cluster reads s3"),
    ],
)
def test_where_a_cluster_can_not_read(
    monkeypatch: pytest.MonkeyPatch,
    registry: Registry,
    make: Any,
    where: str,
    environment: dict[str, str],
    hint: str,
) -> None:
    version = make()
    monkeypatch.setattr(Registry, "artifact_uri", lambda self, version: where)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RegistryError, match=hint):
        storage_uri(registry, version)


def test_judged_but_unreachable_bundle_is_not_promoted(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make()
    judge(registry, version, GateRules(floors={"auc": 0.7}))
    monkeypatch.delenv("RETIDERM_ARTIFACT_PVC")
    with pytest.raises(RegistryError, match="A cluster can't read dr_grading version 1"):
        promote(registry, version, targets=[LocalTarget(registry), target])
    assert cluster.patches == []
