"""The commands in the manifests are understood, word for word, by the programs that they start."""

from __future__ import annotations

import argparse
import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.manifests.rendering import Document, of_kind


def test_mlflow_server(documents: list[Document]) -> None:
    pod = of_kind(documents, "Deployment")["mlflow"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "mlflow", "server"]
    known = _mlflow_server(container["args"])
    assert known["port"] == container["ports"][0]["containerPort"]
    assert known["serve_artifacts"] is True
    # What is set by environment is under a name that the option reads.
    set_here = {variable["name"] for variable in container["env"]}
    assert {"MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"} <= set(known["read"]) & set_here
    # Every name that a client uses for it must be allowed.
    hosts = known["allowed_hosts"].split(",")
    assert {"mlflow.retiderm:5000", "mlflow.retiderm.svc.cluster.local:5000"} <= set(hosts)


@pytest.mark.parametrize("name", ["kserve-container", "transformer-container"])
def test_servers(name: str, documents: list[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    containers = of_kind(documents, "ServingRuntime")["retiderm-classifier"]["spec"]["containers"]
    container = next(c for c in containers if c["name"] == name)
    python, flag, module = container["command"]
    assert (python, flag) == ("python", "-m")
    options, unknown = _parse(module, container["args"], monkeypatch)
    assert not unknown
    ports = [port["containerPort"] for port in container["ports"]]
    assert [options.http_port, options.grpc_port] == ports
    assert str(options.bundle) == "/mnt/models"
    assert options.host == "0.0.0.0"
    if name == "transformer-container":
        predictor = next(c for c in containers if c["name"] == "kserve-container")
        assert options.predictor_host == f"127.0.0.1:{predictor['ports'][1]['containerPort']}"


def test_training_job(repository: Path) -> None:
    import typer

    from training.cli import app

    job = yaml.safe_load((repository / "manifests/base/training/example-trainjob.yaml").read_text())
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["torchrun"]
    flag, module, command, *arguments = trainer["args"]
    assert (flag, module) == ("-m", "training.cli")
    # Only read, not run: none of the paths is here.
    known = typer.main.get_command(app).commands[command].make_context(command, arguments)
    assert known.params["task"] == "dr_grading"
    assert str(known.params["data"]).startswith("/data/")
    assert str(known.params["out"]).startswith("/data/")


def _mlflow_server(arguments: list[str]) -> dict[str, Any]:
    """What MLflow's own command line makes of the arguments.

    In a process of its own: warnings that fail a test would leave its tables half set up for the others.
    """
    script = (
        "import json, sys\n"
        "from mlflow.cli import cli\n"
        "server = cli.commands['server']\n"
        "known = server.make_context('server', sys.argv[1:]).params\n"
        "read = [o.envvar for o in server.params if isinstance(o.envvar, str)]\n"
        "asked = {name: known[name] for name in ('port', 'serve_artifacts', 'allowed_hosts')}\n"
        "print(json.dumps({**asked, 'read': read}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    known: dict[str, Any] = json.loads(done.stdout)
    return known


class _Parsed(Exception):
    pass


def _parse(
    module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[argparse.Namespace, list[str]]:
    """Run an entry point up to where its parser has understood the arguments."""
    original = argparse.ArgumentParser.parse_known_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        raise _Parsed(*original(self, args, namespace))

    importlib.import_module(module)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(_Parsed) as caught:
        runpy.run_module(f"{module}.__main__", run_name="__main__")
    options, unknown = caught.value.args
    return options, unknown
