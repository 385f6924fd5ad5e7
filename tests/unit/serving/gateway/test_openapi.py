"""The OpenAPI document of everything: true to itself, and named for readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from serving.gateway.app import create_app
from serving.gateway.gateway import Gateway
from serving.gateway.openapi import finish
from serving.gateway.settings import Settings
from serving.gateway.store import Store
from serving.gateway.systems import all_systems
from tests.gateway_rows import folder_blobs


@pytest.fixture
def document(store: Store, tmp_path: Path) -> dict[str, Any]:
    gateway = Gateway(Settings(), store=store, blobs=folder_blobs(tmp_path / "images"))
    return create_app(systems=all_systems(), gateway=gateway).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]


def test_each_operation_is_one_and_says_its_errors(document: dict[str, Any]) -> None:
    found = operations(document)
    names = [said["operationId"] for _, said in found]
    assert len(names) == len(set(names))
    for where, said in found:
        statuses = said["responses"]
        assert {"503", "504"} <= set(statuses), where
        if "security" in said:
            assert {"401", "403", "429"} <= set(statuses), where
        assert said["tags"][0] in {tag["name"] for tag in document["tags"]}, where


def test_forms_are_named_for_readers_and_all_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert not [name for name in schemas if "__" in name]
    # The same name in two systems is told apart.
    assert {"S0Health", "S2Health", "S2PatientIn", "V1PatientIn"} <= set(schemas)
    text = json.dumps(document)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas, name


def test_examples_are_of_their_form(document: dict[str, Any]) -> None:
    seen = 0
    for name, schema in document["components"]["schemas"].items():
        if "example" in schema:
            whole = {**schema, "components": document["components"]}
            jsonschema.Draft202012Validator(whole).validate(schema["example"])
            seen += name in ("Image", "Prediction", "Patient", "Case", "Label", "Erasure", "ServedModel")
    assert seen == 7


def test_a_name_that_two_would_get_stays() -> None:
    one, two = "serving__gateway__systems__s2__a__Thing", "serving__gateway__systems__s2__b__Thing"
    ref = {"$ref": f"#/components/schemas/{one}"}
    given = {"paths": {}, "components": {"schemas": {one: {}, two: {"items": ref}}}}
    kept = finish(given, {})["components"]["schemas"]
    assert set(kept) == {one, two}
    assert kept[two]["items"] == ref
