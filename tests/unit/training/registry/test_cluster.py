"""training/registry/targets/cluster.py against a small server with KServe's part of the Kubernetes API.

The exchange is real (the kubernetes client, HTTP, JSON merge patch by RFC 7386); the controller behind it is
played by the test: it moves ``status`` as KServe does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.errors import RegistryError
from training.registry.challenge import challenge, withdraw
from training.registry.client import Registry
from training.registry.gate import GateRules, judge
from training.registry.ledger import Ledger
from training.registry.promotion import promote, rollback
from training.registry.reconcile import reconcile
from training.registry.state import now_challenging
from training.registry.targets import ClusterTarget, LocalTarget, default_targets
from training.registry.targets.cluster import service_name, storage_uri
from training.registry.verify import verify

TASK = "dr_grading"
ROUTE = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/dr-grading"


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class Cluster:
    """InferenceServices behind HTTP. ``react`` plays the controller, at each change and each look.

    ``service`` is the champion's; ``add_challenger`` applies the component with the other one.
    """

    def __init__(self) -> None:
        self.service: dict[str, Any] = _service("dr-grading")
        self.challenger: dict[str, Any] | None = None
        self.patches: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, int] = {}
        self.react: Callable[[Cluster], None] = ready
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET")

            def do_PATCH(self) -> None:
                patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                which = self._which()
                if getattr(cluster, which, None) and "PATCH" not in cluster.answers:
                    cluster.patches.append((self.headers["Content-Type"], patch))
                    setattr(cluster, which, merge(getattr(cluster, which), patch))
                    getattr(cluster, which)["metadata"]["generation"] += 1
                self._answer("PATCH")

            def _which(self) -> str:
                return {ROUTE: "service", f"{ROUTE}-challenger": "challenger"}.get(self.path, "")

            def _answer(self, method: str) -> None:
                there = getattr(cluster, self._which(), None) is not None
                code = cluster.answers.get(method, 200 if there else 404)
                cluster.react(cluster)
                body = json.dumps(
                    getattr(cluster, self._which()) if code == 200 else {"kind": "Status", "code": code}
                ).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def uri(self) -> str | None:
        return self.service["spec"]["predictor"]["model"].get("storageUri")

    def add_challenger(self) -> None:
        self.challenger = _service("dr-grading-challenger")
        self.challenger["metadata"]["annotations"] = {"serving.kserve.io/stop": "true"}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "generation": 1},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "retiderm-bundle"}}}},
        "status": {},
    }


def ready(cluster: Cluster) -> None:
    for service in (cluster.service, cluster.challenger):
        if service is not None:
            notes = service["metadata"].get("annotations", {})
            stopped = notes.get("serving.kserve.io/stop") == "true"
            service["status"] = {
                "observedGeneration": service["metadata"]["generation"],
                "modelStatus": {"transitionStatus": "UpToDate"},
                "conditions": [{"type": "Ready", "status": "False" if stopped else "True"}],
            }


def ready_on_third_look(cluster: Cluster) -> None:
    """Sees the change late, loads, and is ready at last."""
    generation = cluster.service["metadata"]["generation"]
    looks = cluster.service.setdefault("looks", {})
    looks[str(generation)] = looks.get(str(generation), 0) + 1
    status = cluster.service["status"]
    if looks[str(generation)] == 3:
        status["observedGeneration"] = generation
        status["modelStatus"] = {"transitionStatus": "InProgress"}
        status["conditions"] = [{"type": "Ready", "status": "False", "message": "pulling"}]
    if looks[str(generation)] >= 5:
        ready(cluster)


def broken(cluster: Cluster) -> None:
    cluster.service["status"] = {
        "observedGeneration": cluster.service["metadata"]["generation"],
        "modelStatus": {
            "transitionStatus": "BlockedByFailedLoad",
            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such bucket"},
        },
        "conditions": [{"type": "Ready", "status": "True"}],
    }


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
    monkeypatch.setenv("RETIDERM_CLUSTER_TIMEOUT", "5")
    return ClusterTarget(registry, "models", timeout=5, poll=0.02)


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
    cluster: Cluster, target: ClusterTarget, make: Any
) -> None:
    def silent(cluster: Cluster) -> None:
        cluster.service["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}

    cluster.react = silent
    quick = ClusterTarget(target._registry, "models", timeout=0.6, poll=0.05)
    import time

    started = time.monotonic()
    quick.apply(make())
    assert time.monotonic() - started >= 0.3


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


def test_not_ready_in_time_says_why(cluster: Cluster, target: ClusterTarget, make: Any) -> None:
    def waiting(cluster: Cluster) -> None:
        ready(cluster)
        cluster.service["status"]["conditions"] = [
            {"type": "Ready", "status": "False", "message": "0/3 nodes available"}
        ]

    cluster.react = waiting
    quick = ClusterTarget(target._registry, "models", timeout=0.2, poll=0.02)
    with pytest.raises(RegistryError, match=r"not ready within 0\.2 s: 0/3 nodes available"):
        quick.apply(make())


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
    try:
        with pytest.raises(RegistryError, match="can't be reached"):
            promote(registry, version, targets=[LocalTarget(registry), target])
        assert registry.champion(TASK) is None
    finally:
        cluster.__init__()  # type: ignore[misc]


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
