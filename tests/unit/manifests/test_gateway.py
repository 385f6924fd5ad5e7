"""The gateway on a cluster: it understands what it is told, reaches what it needs, and has time to stop."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from typer.main import get_command

from serving.core.challenger import challenger_name
from serving.gateway import cli, jobs, server
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.settings import Settings
from tests.unit.manifests.rendering import Document, of_kind
from training.registry.targets.cluster import challenger_service

SECRETS = {
    "DATABASE_URL": "postgresql://u:p@db/retiderm",
    "API_KEY": "a-key",
    "GATEWAY_SIGNING_KEY": "ab" * 32,
    "GATEWAY_S3_ENDPOINT": "https://s3.example.org",
}
#: Read by others than the gateway's settings.
ELSEWHERE = {"HOME", "RETIDERM_HOME", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def pod_of(documents: list[Document]) -> dict[str, Any]:
    found: dict[str, Any] = of_kind(documents, "Deployment")["gateway"]["spec"]["template"]["spec"]
    return found


def told(container: dict[str, Any]) -> dict[str, str]:
    """Its environment, as the kubelet would set it with every secret there."""
    return {v["name"]: v.get("value") or SECRETS.get(v["name"], "secret") for v in container["env"]}


def test_it_understands_its_environment(documents: list[Document]) -> None:
    (container,) = pod_of(documents)["containers"]
    given = told(container)
    settings = Settings.from_env(given)
    assert not settings.on_loopback
    ports = [port["containerPort"] for port in container["ports"]]
    assert [settings.port, settings.metrics_port] == ports
    assert settings.registry_command == ()
    assert set(Settings().systems) - set(settings.systems) == {"s4"}
    # A name that nobody reads is a mistake that nobody would see; the port is the usual one.
    ignored = {key for key in given if Settings.from_env({**given, key: ""}) == settings}
    assert ignored <= ELSEWHERE | {"BACKSERVER_PORT"}


def test_every_model_has_the_address_that_kserve_gives_it(documents: list[Document]) -> None:
    (container,) = pod_of(documents)["containers"]
    settings = Settings.from_env(told(container))
    services = of_kind(documents, "InferenceService")
    assert {s["metadata"]["labels"]["retiderm.io/task"] for s in services.values()} == set(
        settings.model_tasks
    )
    assert set(settings.check_image_tasks) <= set(settings.model_tasks)
    for task in settings.model_tasks:
        service = task.replace("_", "-")
        assert service in services
        # KServe, Standard mode: the service `<name>-predictor`, whose port 80 is the transformer's first.
        assert settings.models_url.replace("{task}", service) == f"http://{service}-predictor"
        assert challenger_service(task) == challenger_name(task).replace("_", "-")


def test_production_keeps_nothing_in_the_pod(rendered: Callable[[str], list[Document]]) -> None:
    documents = rendered("production")
    deployment = of_kind(documents, "Deployment")["gateway"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    (container,) = pod_of(documents)["containers"]
    settings = Settings.from_env(told(container))
    assert (settings.database or "").startswith("postgresql://")
    assert (settings.storage or "").startswith("s3://")
    assert settings.public_url.startswith("https://")
    needed = {
        v["valueFrom"]["secretKeyRef"]["key"]
        for v in container["env"]
        if "valueFrom" in v and not v["valueFrom"]["secretKeyRef"].get("optional")
    }
    assert needed == {"DATABASE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert not [v for v in pod_of(documents)["volumes"] if "persistentVolumeClaim" in v]
    assert "initContainers" not in pod_of(documents)
    assert "gateway" not in of_kind(documents, "PersistentVolumeClaim")


def test_a_machine_of_ones_own_keeps_all_on_one_volume(rendered: Callable[[str], list[Document]]) -> None:
    documents = rendered("local")
    deployment = of_kind(documents, "Deployment")["gateway"]["spec"]
    # SQLite has no writers on two nodes.
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    pod = pod_of(documents)
    (container,), (first,) = pod["containers"], pod["initContainers"]
    assert not [v for v in container["env"] if not v.get("value") and not _optional(v)]
    settings = replace(Settings.from_env(told(container)), storage=None)
    assert settings.database is None
    # Both see the same rows, and the command is one that there is.
    assert first["volumeMounts"] == container["volumeMounts"]
    assert told(first)["RETIDERM_HOME"] == told(container)["RETIDERM_HOME"] == "/var/lib/retiderm"
    assert first["command"][:3] == ["python", "-m", "serving.gateway.cli"]
    assert first["command"][3] in get_command(cli.app).commands  # type: ignore[attr-defined]


def test_its_command_takes_these_arguments(
    documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = pod_of(documents)["containers"]
    assert container["command"] == ["python", "-m", "serving.gateway"]
    seen: list[argparse.Namespace] = []

    def stop(self: argparse.ArgumentParser, *_: Any, **__: Any) -> Any:
        seen.append(original(self, container.get("args", [])))
        raise SystemExit(0)

    original = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", ["gateway"])
    with pytest.raises(SystemExit):
        runpy.run_module("serving.gateway.__main__", run_name="__main__")
    assert len(seen) == 1


def test_probes_are_routes_that_anybody_may_ask(documents: list[Document], home: object) -> None:
    from fastapi.routing import APIRoute, iter_route_contexts

    from serving.gateway.app import create_app

    (container,) = pod_of(documents)["containers"]
    asked = {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert asked == {"/livez", "/readyz"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    # It asks models for up to 2 s.
    assert container["readinessProbe"]["timeoutSeconds"] > 2
    app = create_app(Settings(systems=("v1",)))
    try:
        paths = {c.path for c in iter_route_contexts(app.routes) if isinstance(c.original_route, APIRoute)}
        assert isinstance(app.state.gateway.blobs, FolderBlobs)
    finally:
        app.state.gateway.store.close()
    assert asked <= paths


def test_it_has_time_to_stop(documents: list[Document]) -> None:
    pod = pod_of(documents)
    (container,) = pod["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    # What is in flight, then jobs, then entries of the queue; and whatever hangs is cut off.
    assert server._STOP_S > server._GRACE_S + 3 * jobs._GRACE_S
    assert pod["terminationGracePeriodSeconds"] > pause + server._STOP_S + 10


def test_it_reaches_what_it_needs_and_is_reached_by_few(rendered: Callable[[str], list[Document]]) -> None:
    for overlay, outside in (("local", set()), ("production", {5432, 443})):
        documents = rendered(overlay)
        policy = of_kind(documents, "NetworkPolicy")["gateway"]["spec"]
        pod = of_kind(documents, "Deployment")["gateway"]["spec"]["template"]
        assert pod["metadata"]["labels"].items() >= policy["podSelector"]["matchLabels"].items()
        asked, scraped = policy["ingress"]
        (container,) = pod["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert [p["port"] for p in asked["ports"]] == [ports["http"]]
        assert [p["port"] for p in scraped["ports"]] == [ports["metrics"]]
        for rule, name in ((asked, "retiderm.io/ingress"), (scraped, "kubernetes.io/metadata.name")):
            assert [set(source["namespaceSelector"]["matchLabels"]) for source in rule["from"]] == [{name}]
        models, *rest = policy["egress"]
        serving = of_kind(documents, "NetworkPolicy")["serving"]["spec"]
        assert models["to"] == [{"podSelector": serving["podSelector"]}]
        assert {p["port"] for p in models["ports"]} == {8080}
        assert {p["port"] for rule in rest for p in rule["ports"]} == outside
        # The other side of it.
        admitted = serving["ingress"][0]
        assert admitted["from"] == [{"podSelector": policy["podSelector"]}]
        service = of_kind(documents, "Service")["gateway"]["spec"]
        budget = of_kind(documents, "PodDisruptionBudget")["gateway"]["spec"]
        assert (
            service["selector"] == budget["selector"]["matchLabels"] == policy["podSelector"]["matchLabels"]
        )


def _optional(variable: dict[str, Any]) -> bool:
    return bool(variable["valueFrom"]["secretKeyRef"].get("optional"))
