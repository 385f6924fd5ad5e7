"""training/registry/targets/cluster.py: the challenger's own service, woken, stopped and mended."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import RegistryError
from tests.unit.training.registry.kserve import Cluster, ready
from tests.unit.training.registry.world import TASK
from training.registry.challenge import challenge, withdraw
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.promotion import promote
from training.registry.reconcile import reconcile
from training.registry.state import now_challenging
from training.registry.targets import ClusterTarget, LocalTarget
from training.registry.verify import verify


def test_a_challenger_has_a_service_of_its_own(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any
) -> None:
    targets = [LocalTarget(registry), target]
    promote(registry, make(accepted=True), targets=targets)
    second, serving = make(accepted=True), cluster.uri
    with pytest.raises(RegistryError, match="manifests/components/challenger") as raised:
        challenge(registry, second, targets=targets)
    assert raised.value.hint is not None
    assert now_challenging(Ledger().entries(), TASK) is None
    cluster.add_challenger()
    assert target.challenger(TASK) is None
    challenge(registry, second, mode="share", share=0.1, targets=targets)
    _, patch = cluster.patches[-1]
    assert patch["metadata"]["annotations"] == {
        "retiderm.io/version": "2",
        "retiderm.io/digest": second.digest,
        "retiderm.io/mode": "share",
        "retiderm.io/share": "0.1",
        "serving.kserve.io/stop": "false",
    }
    assert cluster.challenger is not None
    assert cluster.challenger["spec"]["predictor"]["model"]["storageUri"].endswith("/bundle")
    assert cluster.uri == serving
    assert verify(registry) == []
    count = len(cluster.patches)
    assert not challenge(registry, second, mode="share", share=0.1, targets=targets).changed
    assert len(cluster.patches) == count
    # The component applied again stops it: that is told, and mended.
    cluster.challenger["metadata"]["annotations"]["serving.kserve.io/stop"] = "true"
    assert ["cluster has not version 2 as challenger" in item.message for item in verify(registry)] == [True]
    assert [item.done for item in reconcile(registry)] == [True]
    assert target.challenges(second, "share", 0.1)
    withdraw(registry, TASK)
    assert cluster.challenger["metadata"]["annotations"] == {"serving.kserve.io/stop": "true"}
    assert "storageUri" not in cluster.challenger["spec"]["predictor"]["model"]
    assert verify(registry) == []


def test_a_promotion_stops_the_challengers_service(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [LocalTarget(registry), target]
    promote(registry, make(accepted=True), targets=targets)
    cluster.add_challenger()
    second = make(accepted=True)
    challenge(registry, second, targets=targets)

    def away(self: ClusterTarget, task: str) -> None:
        raise RegistryError("it is away")

    # The service can't be reached when its turn comes: what serves, serves, and the rest is told and mended.
    with monkeypatch.context() as patch:
        patch.setattr(ClusterTarget, "withdraw", away)
        assert promote(registry, second, targets=targets).changed
        with pytest.raises(RegistryError, match="not everywhere yet"):
            withdraw(registry, TASK)
    assert ["the ledger says none" in item.message for item in verify(registry)] == [True]
    reconcile(registry)
    assert target.challenger(TASK) is None
    assert verify(registry) == []


def test_a_challenger_that_does_not_load_is_withdrawn(
    cluster: Cluster, target: ClusterTarget, registry: Registry, make: Any
) -> None:
    targets = [LocalTarget(registry), target]
    promote(registry, make(accepted=True), targets=targets)
    cluster.add_challenger()

    def bad(cluster: Cluster) -> None:
        ready(cluster)
        assert cluster.challenger is not None
        cluster.challenger["status"]["modelStatus"] = {
            "transitionStatus": "BlockedByFailedLoad",
            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such bucket"},
        }

    cluster.react = bad
    with pytest.raises(RegistryError, match=r"withdrawn: .*ModelLoadFailed: no such bucket"):
        challenge(registry, make(accepted=True), targets=targets)
    cluster.react = ready
    assert target.challenger(TASK) is None
    assert verify(registry) == []
