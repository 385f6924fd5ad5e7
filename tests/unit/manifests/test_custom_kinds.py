"""Prometheus' and Trainer's kinds. Their schemas are not at hand: only what we rely on is checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.manifests.rendering import Document, of_kind


def test_pod_monitor_names_real_ports(documents: list[Document]) -> None:
    monitor = of_kind(documents, "PodMonitor")["retiderm-serving"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    runtime = of_kind(documents, "ServingRuntime")["retiderm-classifier"]["spec"]
    assert runtime["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
    ports = {port["name"] for container in runtime["containers"] for port in container["ports"]}
    endpoints = monitor["spec"]["podMetricsEndpoints"]
    # Both servers of a pod are scraped.
    assert {endpoint["port"] for endpoint in endpoints} == {"http", "pred-http"} <= ports
    assert {endpoint["path"] for endpoint in endpoints} == {"/metrics"}


def test_the_gateway_is_scraped_too(documents: list[Document]) -> None:
    monitor = of_kind(documents, "PodMonitor")["retiderm-gateway"]
    pod = of_kind(documents, "Deployment")["gateway"]["spec"]["template"]
    assert pod["metadata"]["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    # Not the one that an ingress passes on.
    told = {item["name"]: item.get("value") for item in container["env"]}
    assert ports[endpoint["port"]] == told["GATEWAY_METRICS_PORT"] != told["BACKSERVER_PORT"]
    assert endpoint["path"] == "/metrics"


@pytest.mark.parametrize("name", ["retiderm-serving", "retiderm-gateway"])
def test_rules_have_what_a_reader_of_an_alert_needs(name: str, documents: list[Document]) -> None:
    groups = of_kind(documents, "PrometheusRule")[name]["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() >= {"summary", "description"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["expr"].count("(") == rule["expr"].count(")")
    # Every metric and label that a rule asks for is one that the servers give.
    from serving import metrics
    from serving.core.drift import gauges
    from serving.gateway import front, jobs

    known = {
        f"{metric._name}_total" if metric._type == "counter" else metric._name: set(metric._labelnames)
        for module in (metrics, gauges, front, jobs)
        for metric in vars(module).values()
        if hasattr(metric, "_labelnames")
    }
    for rule in rules:
        for name, selector in re.findall(r"\b(retiderm_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            assert name in known, f"{rule['alert']}: no metric {name}"
            assert set(re.findall(r"(\w+)\s*!?=", selector)) <= known[name], rule["alert"]


def test_training_job_uses_the_runtime(documents: list[Document], repository: Path) -> None:
    runtime = of_kind(documents, "TrainingRuntime")["retiderm-torch"]
    assert runtime["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    job = yaml.safe_load((repository / "manifests/base/training/example-trainjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert job["metadata"]["namespace"] == runtime["metadata"]["namespace"]
    assert job["spec"]["runtimeRef"]["name"] == "retiderm-torch"
    assert job["spec"]["runtimeRef"]["kind"] == "TrainingRuntime"
    # Trainer finds the step that it fills in by these two names and this label.
    (step,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert step["name"] == "node"
    labels = step["template"]["metadata"]["labels"]
    assert labels["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    (container,) = step["template"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "node"
    assert job["spec"]["trainer"]["command"] == ["torchrun"]
