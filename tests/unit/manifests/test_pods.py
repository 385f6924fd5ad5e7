"""Rules that no schema knows: how our pods must be built, whichever kind carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.manifests.rendering import Document, of_kind

TASKS = {
    "dr-grading": "dr_grading",
    "skin-lesion": "skin_lesion",
    "acne": "acne",
    "skin-condition": "skin_condition",
    "skin-profile": "skin_profile",
    "anomaly": "anomaly",
}


def pod_specs(documents: list[Document]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pod specs as they would run: a model's containers come from its runtime, the rest from its own file."""
    runtimes = of_kind(documents, "ServingRuntime")
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        match document["kind"]:
            case "Deployment":
                yield name, document["spec"]["template"]["spec"]
            case "InferenceService":
                predictor = document["spec"]["predictor"]
                yield name, {**runtimes[predictor["model"]["runtime"]]["spec"], **predictor}
            case "TrainingRuntime":
                (job,) = document["spec"]["template"]["spec"]["replicatedJobs"]
                yield name, job["template"]["spec"]["template"]["spec"]


def containers(documents: list[Document]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, spec in pod_specs(documents):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield f"{name}/{container['name']}", container


def test_pods_keep_to_the_restricted_standard(documents: list[Document]) -> None:
    found = 0
    for name, spec in pod_specs(documents):
        found += 1
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] >= 10000, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert all("hostPath" not in volume for volume in spec["volumes"]), name
    # MLflow, the gateway, the training runtime.
    assert found == len(TASKS) + 3
    for name, container in containers(documents):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        # A read-only root needs somewhere to write.
        assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"]), name


def test_mounts_name_volumes_and_accounts_exist(documents: list[Document]) -> None:
    accounts = of_kind(documents, "ServiceAccount")
    claims = of_kind(documents, "PersistentVolumeClaim")
    for name, spec in pod_specs(documents):
        assert spec["serviceAccountName"] in accounts, name
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, name


def test_images_are_the_overlays_own_with_a_tag(documents: list[Document]) -> None:
    for name, container in containers(documents):
        image = container["image"]
        registry, _, rest = image.partition("/")
        assert "." in registry or ":" in registry, f"{name}: {image} names no registry"
        assert ":" in rest, f"{name}: {image} has no tag"
        assert not rest.endswith(":latest"), f"{name}: {image}"


def test_requests_and_limits(documents: list[Document]) -> None:
    for name, container in containers(documents):
        if name.startswith("TrainingRuntime"):
            continue  # each job says its own
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), name
        assert "memory" in resources["limits"], name


def test_production_gives_whole_cpus_to_the_models(rendered: Callable[[str], list[Document]]) -> None:
    for container in of_kind(rendered("production"), "ServingRuntime")["retiderm-classifier"]["spec"][
        "containers"
    ]:
        # ONNX Runtime sizes its threads by the limit; a request below it would be throttled by neighbours.
        cpu = container["resources"]["limits"]["cpu"]
        assert cpu == container["resources"]["requests"]["cpu"]
        assert cpu.isdigit()


@pytest.mark.parametrize("service", TASKS)
def test_inference_service(service: str, documents: list[Document]) -> None:
    document = of_kind(documents, "InferenceService")[service]
    assert document["metadata"]["labels"]["retiderm.io/task"] == TASKS[service]
    assert document["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    predictor = document["spec"]["predictor"]
    # A canary would skip a transformer that stood apart.
    assert "transformer" not in document["spec"]
    # Promotion owns it: applying the files again must not change what serves.
    assert "storageUri" not in predictor["model"]
    assert "canaryTrafficPercent" not in predictor
    assert 1 <= predictor["minReplicas"] <= predictor["maxReplicas"]
    assert predictor["scaleMetric"] == "cpu"
    budget = of_kind(documents, "PodDisruptionBudget")[f"{service}-disruption"]
    assert budget["spec"]["selector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": service}
    # The name that KServe's controller takes for its own budget, and deletes when it wants none.
    assert f"{service}-predictor" not in of_kind(documents, "PodDisruptionBudget")


def test_two_containers_in_one_pod(documents: list[Document]) -> None:
    runtime = of_kind(documents, "ServingRuntime")["retiderm-classifier"]["spec"]
    predictor, transformer = runtime["containers"]
    # KServe knows them by these names.
    assert (predictor["name"], transformer["name"]) == ("kserve-container", "transformer-container")
    ports = [port["containerPort"] for c in runtime["containers"] for port in c["ports"]]
    assert len(set(ports)) == 4
    names = [port["name"] for c in runtime["containers"] for port in c["ports"]]
    assert len(set(names)) == 4
    assert all(len(name) <= 15 for name in names)
    for container in (predictor, transformer):
        http = container["ports"][0]["containerPort"]
        for probe, path in (("startup", "ready"), ("readiness", "ready"), ("liveness", "live")):
            get = container[f"{probe}Probe"]["httpGet"]
            assert get == {"path": f"/v2/health/{path}", "port": http}


def test_stopping_order(documents: list[Document]) -> None:
    runtime = of_kind(documents, "ServingRuntime")["retiderm-classifier"]["spec"]
    sleep = {c["name"]: int(c["lifecycle"]["preStop"]["exec"]["command"][1]) for c in runtime["containers"]}
    # The predictor stays until the transformer has stopped taking requests and answered those it holds.
    (timeout,) = [
        float(a.split("=")[1]) for c in runtime["containers"] for a in c["args"] if "predictor-timeout" in a
    ]
    assert sleep["kserve-container"] > sleep["transformer-container"] + timeout
    drain = 30 + 30  # KServe: REST, then gRPC
    for service in of_kind(documents, "InferenceService").values():
        grace = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
        assert grace > 60
        assert grace > max(sleep.values()) + drain


def test_nothing_is_open_by_default(documents: list[Document]) -> None:
    policies = of_kind(documents, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    runtime = of_kind(documents, "ServingRuntime")["retiderm-classifier"]["spec"]
    port = {p["name"]: p["containerPort"] for c in runtime["containers"] for p in c["ports"]}
    serving = policies["serving"]["spec"]
    assert runtime["labels"].items() >= serving["podSelector"]["matchLabels"].items()
    gateway, clients, monitoring = serving["ingress"]
    assert {p["port"] for p in gateway["ports"]} == {port["http"]}
    # Callers never reach the predictor behind the transformer.
    assert {p["port"] for p in clients["ports"]} == {port["http"], port["grpc"]}
    assert {p["port"] for p in monitoring["ports"]} == {port["http"], port["pred-http"]}
    for policy in policies.values():
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], policy["metadata"]["name"]
        for rule in policy["spec"].get("egress", []):
            assert rule["to"], policy["metadata"]["name"]


def test_the_promoter_may_patch_these_services_and_nothing_else(documents: list[Document]) -> None:
    roles = of_kind(documents, "Role")
    assert set(roles) == {"retiderm-promoter"}
    (rule,) = roles["retiderm-promoter"]["rules"]
    assert rule["resources"] == ["inferenceservices"]
    assert set(rule["verbs"]) == {"get", "patch"}
    assert set(rule["resourceNames"]) == set(of_kind(documents, "InferenceService"))
    assert not [d for d in documents if d["kind"].startswith("ClusterRole")]


def test_no_secret_is_in_the_files(documents: list[Document]) -> None:
    assert not of_kind(documents, "Secret")


def test_everything_is_in_the_namespace(documents: list[Document]) -> None:
    for document in documents:
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "retiderm", document["metadata"]["name"]
    namespace = of_kind(documents, "Namespace")["retiderm"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
