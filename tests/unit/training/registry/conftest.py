"""A registry on SQLite of each test's own, and a cluster to promote to.

MLflow migrates one database a session; tests take copies.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.files import digest_json
from data.paths import Home
from tests.bundles import tiny_bundle
from tests.unit.training.registry.kserve import Cluster
from training.predict import Predictions
from training.registry.client import Registry
from training.registry.gate import GateRules, judge
from training.registry.targets import ClusterTarget
from training.registry.version import Version

RULES = GateRules(floors={"auc": 0.7})

PROVED = {name: {"passed": True} for name in ("onnx", "cam", "served")}

Make = Callable[..., Version]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    assert Registry(f"sqlite:///{path}").tasks() == []
    return path


@pytest.fixture
def registry(home: Home, empty_database: Path) -> Registry:
    home.mlflow.mkdir(parents=True)
    shutil.copyfile(empty_database, home.mlflow / "mlflow.db")
    return Registry(f"sqlite:///{home.mlflow / 'mlflow.db'}")


@pytest.fixture
def make(registry: Registry, tmp_path: Path) -> Make:
    """Register a version. Each is judged on a test set of its own unless ``test`` is given: floors decide."""
    count = 0

    def build(
        task: str = "dr_grading",
        *,
        test: str | None = None,
        accepted: bool = False,
        said: Predictions | None = None,
        **card: Any,
    ) -> Version:
        nonlocal count
        count += 1
        card.setdefault("parity", PROVED)
        bundle = tiny_bundle(
            tmp_path / f"bundle-{count}",
            task=task,
            seed=count,
            test_digest=digest_json(test or f"test {count}"),
            **card,
        )
        path = tmp_path / f"said-{count}.npz"
        if said is not None:
            said.save(path)
        version = registry.register(bundle, None, path if said is not None else None)
        if accepted:
            assert judge(registry, version, RULES).accepted
            version = registry.get(task, version.version)
        return version

    return build


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    yield found
    found.close()


@pytest.fixture
def target(
    cluster: Cluster, registry: Registry, home: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> ClusterTarget:
    monkeypatch.setenv("RETIDERM_ARTIFACT_PVC", f"bundles={home.mlflow / 'artifacts'}")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": cluster.url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "current-context": "here",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    # kubernetes' client reads the variable once, at import.
    import kubernetes.config.kube_config as reader

    monkeypatch.setattr(reader, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("RETIDERM_CLUSTER_NAMESPACE", "models")
    monkeypatch.setenv("RETIDERM_CLUSTER_TIMEOUT", "60")
    return ClusterTarget(registry, "models", timeout=60, poll=0.02)
