"""training/registry/targets/cluster.py: what is patched, how long it waits, what a refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import RegistryError
from tests.unit.training.registry.kserve import Cluster, broken, ready, ready_on_third_look
from tests.unit.training.registry.world import TASK
from training.registry.client import Registry
from training.registry.promotion import promote, rollback
from training.registry.reconcile import reconcile
from training.registry.targets import ClusterTarget, LocalTarget, default_targets
from training.registry.targets import cluster as module
from training.registry.targets.cluster import service_name
from training.registry.verify import verify


class Clock:
    """The target's time: it passes where the target sleeps, and nowhere else."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_promotion_patches_and_rollback_patches_back(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any
) -> None:
    targets = [LocalTarget(registry), target]
    first = make(accepted=True)
    assert target.current(TASK) is None
    done = promote(registry, first, targets=targets)
    assert done.targets == ("local", "cluster")
    kind, patch = cluster.patches[-1]
    assert kind == "application/merge-patch+json"
    assert patch["metadata"]["annotations"] == {
        "retiderm.io/version": "1",
        "retiderm.io/digest": first.digest,
    }
    assert cluster.uri is not None
    assert cluster.uri.startswith("pvc://bundles/dr_grading/")
    assert cluster.uri.endswith(f"/versions/{first.digest[7:19]}/bundle")
    promote(registry, make(accepted=True), targets=targets)
    second = cluster.uri
    rollback(registry, TASK, targets=targets)
    assert cluster.uri != second
    assert target.current(TASK) == {"uri": cluster.uri, "version": "1", "digest": first.digest}
    assert verify(registry) == []


def test_nothing_is_patched_twice(cluster: Cluster, target: ClusterTarget, make: Any) -> None:
    version = make()
    target.prepare(version)
    target.apply(version)
    target.apply(version)
    assert target.serves(version)
    assert len(cluster.patches) == 1


def test_it_waits_until_the_controller_has_seen_and_loaded_it(
    cluster: Cluster, target: ClusterTarget, make: Any
) -> None:
    ready(cluster)
    cluster.react = ready_on_third_look
    target.apply(make())
    assert cluster.service["looks"]["2"] >= 5


def test_a_controller_that_does_not_say_what_it_has_seen_gets_time(
    cluster: Cluster, target: ClusterTarget, make: Any, clock: Clock
) -> None:
    def silent(cluster: Cluster) -> None:
        cluster.service["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}

    cluster.react = silent
    ClusterTarget(target._registry, "models", timeout=60, poll=2).apply(make())
    assert clock.now == 10


def test_not_ready_in_time_says_why(cluster: Cluster, target: ClusterTarget, make: Any, clock: Clock) -> None:
    def waiting(cluster: Cluster) -> None:
        ready(cluster)
        cluster.service["status"]["conditions"] = [
            {"type": "Ready", "status": "False", "message": "0/3 nodes available"}
        ]

    cluster.react = waiting
    impatient = ClusterTarget(target._registry, "models", timeout=10, poll=2)
    with pytest.raises(RegistryError, match="not ready within 10 s: 0/3 nodes available"):
        impatient.apply(make())
    assert clock.now == 10


def test_a_model_that_does_not_load_is_undone_everywhere(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any
) -> None:
    targets = [LocalTarget(registry), target]
    promote(registry, make(accepted=True), targets=targets)
    before = cluster.uri
    second = make(accepted=True)
    cluster.react = broken
    with pytest.raises(RegistryError, match="ModelLoadFailed: no such bucket"):
        promote(registry, second, targets=targets)
    cluster.react = ready
    assert cluster.uri == before
    assert registry.champion(TASK) == registry.get(TASK, "1")
    assert verify(registry) == []


@pytest.mark.parametrize(
    ("code", "hint"), [(404, "Apply manifests"), (403, "needs `get` and `patch`"), (500, "500")]
)
def test_refusals_say_what_to_do(
    cluster: Cluster, target: ClusterTarget, make: Any, code: int, hint: str
) -> None:
    cluster.answers = {"GET": code}
    with pytest.raises(RegistryError, match=hint):
        target.prepare(make())


def test_a_cluster_that_is_away_changes_nothing(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib3

    version = make(accepted=True)
    monkeypatch.setattr(urllib3.util.Retry, "DEFAULT", urllib3.util.Retry(0))
    cluster.close()
    with pytest.raises(RegistryError, match="can't be reached"):
        promote(registry, version, targets=[LocalTarget(registry), target])
    assert registry.champion(TASK) is None


def test_changed_by_hand_is_seen_and_put_back(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any
) -> None:
    promote(registry, make(accepted=True), targets=[target])
    wanted = cluster.uri
    cluster.service["spec"]["predictor"]["model"]["storageUri"] = "s3://elsewhere/bundle"
    assert [item.message for item in verify(registry)] == ["cluster did not serve version 1, whole."]
    assert [item.done for item in reconcile(registry)] == [True]
    assert cluster.uri == wanted


def test_a_service_of_another_shape_is_refused(cluster: Cluster, target: ClusterTarget, make: Any) -> None:
    cluster.service["spec"]["predictor"] = {"containers": []}
    with pytest.raises(RegistryError, match=r"no spec\.predictor\.model"):
        target.prepare(make())


def test_the_namespace_switches_it_on(
    target: ClusterTarget, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [item.name for item in default_targets(registry)] == ["local", "cluster"]
    monkeypatch.delenv("RETIDERM_CLUSTER_NAMESPACE")
    assert [item.name for item in default_targets(registry)] == ["local"]


def test_names_without_underscore() -> None:
    assert service_name("skin_lesion") == "skin-lesion"
