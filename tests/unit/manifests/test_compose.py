"""The compose file, as far as it can be held against the code without a container engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.gateway.settings import Settings


@pytest.fixture
def compose(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((repository / "manifests" / "docker" / "compose.yaml").read_text())
    return found


def test_what_is_built_and_mounted_is_there(compose: dict[str, Any], repository: Path) -> None:
    folder = repository / "manifests" / "docker"
    built = [s["build"] for s in compose["services"].values() if "build" in s]
    assert len(built) == 2
    for build in built:
        assert (folder / build["context"]).resolve() == repository
        assert (repository / build["dockerfile"]).is_file()
    named = {v.split(":")[0] for s in compose["services"].values() for v in s.get("volumes", [])}
    assert {name for name in named if not name.startswith("$")} == set(compose["volumes"])
    for service in compose["services"].values():
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", {})) <= set(compose["services"])


def test_the_gateway_understands_its_environment(compose: dict[str, Any]) -> None:
    given = {
        key: re.sub(
            r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda m: m[2] if m[0].count(":-") else "secret-value", text
        )
        for key, text in compose["services"]["gateway"]["environment"].items()
    }
    settings = Settings.from_env(given)
    assert settings.database == "postgresql://retiderm:secret-value@database/retiderm"
    assert settings.storage == "s3://retiderm/images"
    assert settings.models_url == "http://models:8080"
    assert settings.public_url == "http://127.0.0.1:8000"
    assert settings.s3_endpoint == "http://images:8333"
    assert settings.s3_public_endpoint == "http://127.0.0.1:8333"
    assert settings.api_key == "secret-value"
    # A name that nobody reads is a mistake that nobody would see.
    ignored = {key for key in given if Settings.from_env({**given, key: ""}) == settings}
    assert ignored == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ALLOWED_ORIGINS"}


def test_every_secret_has_to_be_given(compose: dict[str, Any], repository: Path) -> None:
    text = (repository / "manifests" / "docker" / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    example = (repository / "manifests" / "docker" / "example.env").read_text()
    said = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    assert set(said) == needed
    assert {key for key, value in said.items() if value} == {"SERVING_ROOT"}
    # Nothing is reachable from other machines as it comes.
    ports = [port for s in compose["services"].values() for port in s.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_models_and_gateway_are_confined(compose: dict[str, Any]) -> None:
    for name in ("models", "gateway"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose["networks"]["inner"]["internal"] is True
    assert compose["services"]["models"]["networks"] == ["inner"]
