"""Every rendered document keeps to the schema of its kind, where a schema is to be had offline."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from tests.unit.manifests.rendering import MANIFESTS, OVERLAYS, Document, kustomize, of_kind
from training.registry.targets.cluster import challenger_service

# Custom kinds whose schemas are not at hand: checked for their shape only, by test_custom_kinds.
WITHOUT_SCHEMA = {"PodMonitor", "PrometheusRule", "TrainingRuntime", "TrainJob"}


def strict(schema: Any) -> Any:
    """Forbid what a schema doesn't name, as the API server does with strict field validation.

    A published definition leaves ``additionalProperties`` open, so that a misspelt key would pass.
    """
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if (
        isinstance(schema.get("properties"), dict)
        and "additionalProperties" not in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        closed["additionalProperties"] = False
    return closed


@pytest.fixture(scope="module")
def kserve(shared_schemas: Path) -> dict[str, Draft202012Validator]:
    found = {}
    for file in shared_schemas.glob("*.json"):
        definition = json.loads(file.read_text())
        schema = strict(definition["schema"])
        # A definition says of metadata only that it is an object.
        schema["properties"]["metadata"] = {"type": "object"}
        found[f"{definition['apiVersion']}/{definition['kind']}"] = Draft202012Validator(schema)
    return found


def check(document: Document, kserve: dict[str, Draft202012Validator]) -> None:
    kind = f"{document['apiVersion']}/{document['kind']}"
    if kind in kserve:
        kserve[kind].validate(document)
    elif document["kind"] not in WITHOUT_SCHEMA:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay(
    overlay: str, rendered: Callable[[str], list[Document]], kserve: dict[str, Draft202012Validator]
) -> None:
    kinds = set()
    for document in rendered(overlay):
        check(document, kserve)
        kinds.add(document["kind"])
    assert {
        "InferenceService",
        "ServingRuntime",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
    } <= kinds


@pytest.mark.parametrize("release", ["1.30", "1.37"])
def test_core_kinds_on_other_kubernetes(release: str, rendered: Callable[[str], list[Document]]) -> None:
    for document in rendered("production"):
        if document["apiVersion"].split("/")[0] not in {
            "serving.kserve.io",
            "monitoring.coreos.com",
            "trainer.kubeflow.org",
        }:
            kubernetes_validate.validate(document, release, strict=True)


def test_what_goes_into_kubeflows_namespace(rendered: Callable[[str], list[Document]]) -> None:
    documents = kustomize(MANIFESTS / "kubeflow")
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    (namespace,) = {document["metadata"]["namespace"] for document in documents}
    # The binding that lets the pipeline's last step promote names an account there.
    (binding,) = [d for d in rendered("production") if d["kind"] == "RoleBinding"]
    assert namespace in {subject["namespace"] for subject in binding["subjects"]}


def test_canary(tmp_path: Path, kserve: dict[str, Draft202012Validator]) -> None:
    # The component is used from an overlay; this one lies in a copy of the tree.
    overlay = MANIFESTS / "overlays" / "production"
    component = MANIFESTS / "components" / "canary"
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [os.path.relpath(overlay, tmp_path)],
                "components": [os.path.relpath(component, tmp_path)],
            }
        )
    )
    services = {d["metadata"]["name"]: d for d in kustomize(tmp_path) if d["kind"] == "InferenceService"}
    check(services["dr-grading"], kserve)
    (canary,) = services["dr-grading"]["spec"]["canary"]
    assert canary["trafficPercent"] == 10
    assert canary["predictor"]["name"] == "candidate"
    # Same runtime as the champion: the canary has both containers, or its traffic would skip the transformer.
    stable = services["dr-grading"]["spec"]["predictor"]["model"]
    assert canary["predictor"]["model"]["runtime"] == stable["runtime"]
    assert "canary" not in services["skin-lesion"]["spec"]


def test_challengers(tmp_path: Path, kserve: dict[str, Draft202012Validator]) -> None:
    # In a copy of the tree: the overlay itself names the component, so that its patches count for it.
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    overlay = tmp_path / "manifests" / "overlays" / "production"
    with (overlay / "kustomization.yaml").open("a") as stream:
        stream.write("components:\n  - ../../components/challenger\n")
    documents = kustomize(overlay)
    services = of_kind(documents, "InferenceService")
    beside = {name: d for name, d in services.items() if name.endswith("-challenger")}
    assert set(beside) == {f"{name}-challenger" for name in set(services) - set(beside)}
    for name, service in beside.items():
        check(service, kserve)
        champion = services[name.removesuffix("-challenger")]
        # It runs as the champion does, but for its name and that it waits to be woken.
        predictor = copy.deepcopy(service["spec"]["predictor"])
        (spread,) = predictor["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": name}
        spread["labelSelector"] = champion["spec"]["predictor"]["topologySpreadConstraints"][0][
            "labelSelector"
        ]
        assert predictor == champion["spec"]["predictor"]
        notes = service["metadata"]["annotations"]
        assert notes.pop("serving.kserve.io/stop") == "true"
        assert notes == champion["metadata"]["annotations"]
        task = service["metadata"]["labels"]["retiderm.io/task"]
        assert challenger_service(task) == name
    (rule,) = of_kind(documents, "Role")["retiderm-promoter"]["rules"]
    assert set(rule["resourceNames"]) == set(services)


def test_strictness_finds_a_misspelt_key(
    rendered: Callable[[str], list[Document]], kserve: dict[str, Draft202012Validator]
) -> None:
    service = next(d for d in rendered("local") if d["kind"] == "InferenceService")
    wrong = copy.deepcopy(service)
    wrong["spec"]["predictor"]["minReplica"] = 1
    with pytest.raises(ValidationError):
        check(wrong, kserve)
    deployment = copy.deepcopy(next(d for d in rendered("local") if d["kind"] == "Deployment"))
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment, kserve)
