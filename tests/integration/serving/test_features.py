"""``features: true`` over V2's three forms, from both kinds of model in the same two processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter

from data.preprocess import Preprocessing
from data.quality import PROFILES, prepare
from serving.client import ask as ask_by_client
from serving.client import encode
from serving.core.bundle import Bundle
from serving.core.runtimes import open_runtime
from tests.anomaly_bundles import file, surface, tiny_anomaly_bundle
from tests.bundles import tiny_bundle, with_reference
from tests.integration.serving import pictures
from tests.integration.serving.harness import (
    Servers,
    call_grpc,
    grpc_request,
    json_input,
    post,
    post_binary,
    post_v2,
    promote,
)
from training.export.reference import training_statistics

GOOD = pictures.file(pictures.sharp(), "png")
BLURRED = pictures.file(pictures.blurred(), "png")
BROKEN = GOOD[: len(GOOD) // 2]
SURFACE = file(surface(512, seed=70))
NAMES = ["embedding", "unusual", "colour", "sharpness", "exposure"]
V2 = ("v2 json", "v2 binary", "grpc")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A classifier and a memory that know what is usual, and a classifier that gives no embedding."""
    import pandas as pd

    base = tmp_path_factory.mktemp("bundles")
    rng = np.random.default_rng(0)

    def known(bundle: Bundle, dim: int) -> Bundle:
        embedding = np.abs(rng.normal(0.1, 0.02, (40, dim))).astype(np.float32)
        pixels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
        kept = training_statistics(embedding, pixels, pd.DataFrame())
        return with_reference(bundle, base / f"{bundle.card.task}-known", **kept)

    memory = tiny_anomaly_bundle(base / "anomaly")
    mute = tiny_bundle(
        base / "mute", task="mute", quality="photo", outputs={"logits": (2,), "cam": (2, 8, 8)}
    )
    return {
        "dr_grading": known(tiny_bundle(base / "dr_grading", quality="photo"), 16),
        "anomaly": known(memory, memory.card.outputs["patches"][-1]),
        "mute": mute,
    }


@pytest.fixture(scope="module")
def servers(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    root = tmp_path_factory.mktemp("root")
    for bundle in bundles.values():
        promote(root, bundle, "7")
    with Servers(root, root / "servers").running() as running:
        yield running


def observed(servers: Servers, wire: str, images: list[bytes], task: str, value: Any = True) -> Any:
    if wire == "v2 json":
        body = {"inputs": [json_input(images)], "parameters": {"features": value}}
        return post_v2(servers, body, task=task)
    if wire == "v2 binary":
        return post_binary(servers, *encode(images, features=value), task=task)
    request = grpc_request(images, task=task)
    request.parameters["features"].CopyFrom(InferParameter(bool_param=value))
    return call_grpc(servers.grpc, request)


def columns(reply: Any) -> dict[str, np.ndarray]:
    assert reply.ok, reply
    return {
        name: np.array(reply.outputs[name][1], dtype=float).reshape(reply.outputs[name][0])
        for name in NAMES
        if name in reply.outputs
    }


@pytest.mark.parametrize("wire", V2)
def test_a_mixed_batch_has_of_each_image_what_there_is(
    servers: Servers, bundles: dict[str, Bundle], wire: str
) -> None:
    found = columns(observed(servers, wire, [BLURRED, GOOD, BROKEN, GOOD], "dr_grading"))
    assert {name: list(values.shape) for name, values in found.items()} == {
        "embedding": [4, 16],
        "unusual": [4],
        "colour": [4, 6],
        "sharpness": [4],
        "exposure": [4],
    }
    assert np.isnan(found["embedding"]).all(axis=1).tolist() == [True, False, True, False]
    assert np.isnan(found["unusual"]).tolist() == [True, False, True, False]
    for name in ("sharpness", "exposure"):
        assert np.isnan(found[name]).tolist() == [False, False, True, False]
    assert np.isnan(found["colour"]).all(axis=1).tolist() == [False, False, True, False]
    card = bundles["dr_grading"].card
    made = prepare(GOOD, Preprocessing.from_dict(card.preprocessing), PROFILES["photo"])
    assert made.verdict is not None
    pixels = made.pixels.reshape(-1, 3)
    assert found["colour"][1] == pytest.approx([*pixels.mean(axis=0), *pixels.std(axis=0)], rel=1e-5)
    assert found["sharpness"][1] == pytest.approx(made.verdict.scores["sharpness"], rel=1e-5)
    assert found["exposure"][1] == pytest.approx(made.verdict.scores["exposure"], rel=1e-5)
    runtime = open_runtime(bundles["dr_grading"], threads=1)
    embedding = runtime.run(made.pixels[None], ("embedding",))["embedding"][0]
    assert found["embedding"][1] == pytest.approx(embedding, abs=1e-5)
    assert 0 <= found["unusual"][1] <= 1


@pytest.mark.parametrize("task", ["dr_grading", "anomaly"])
def test_the_client_reads_them(servers: Servers, task: str) -> None:
    picture = GOOD if task == "dr_grading" else SURFACE
    reply = ask_by_client(servers.url, task, [picture, b"no image"], features=True)
    told = reply.features(0)
    assert told is not None
    assert told.embedding is not None
    assert told.unusual is not None
    assert 0 <= told.unusual <= 1
    assert told.colour is not None
    assert told.sharpness is not None
    assert told.exposure is not None
    nothing = reply.features(1)
    assert nothing is not None
    assert (nothing.embedding, nothing.unusual, nothing.colour) == (None, None, None)
    assert "features_unavailable" not in reply.parameters
    plain = ask_by_client(servers.url, task, [picture, b"no image"])
    assert plain.features(0) is None
    assert plain.documents() == reply.documents()


@pytest.mark.parametrize("wire", V2)
def test_nothing_more_is_said_unasked(servers: Servers, wire: str) -> None:
    reply = observed(servers, wire, [GOOD], "dr_grading", value=False)
    assert reply.ok
    assert not set(NAMES) & set(reply.outputs)
    assert "features_unavailable" not in reply.parameters


@pytest.mark.parametrize("wire", V2)
def test_a_model_without_an_embedding_says_so_and_gives_the_rest(servers: Servers, wire: str) -> None:
    for images in ([GOOD], [BLURRED]):
        reply = observed(servers, wire, images, "mute")
        found = columns(reply)
        assert set(found) == set(NAMES) - {"embedding"}
        assert np.isnan(found["unusual"]).all()
        assert np.isfinite(found["colour"]).all()
        assert "gives no embedding" in reply.parameters["features_unavailable"]


@pytest.mark.parametrize("wire", V2)
def test_only_ungradable_images_keep_the_shape(servers: Servers, wire: str) -> None:
    found = columns(observed(servers, wire, [BLURRED], "dr_grading"))
    assert found["embedding"].shape == (1, 16)
    assert np.isnan(found["embedding"]).all()


def test_nan_is_null_in_json(servers: Servers) -> None:
    body = {"inputs": [json_input([BLURRED])], "parameters": {"features": True}}
    raw = post(f"{servers.url}/v2/models/dr_grading/infer", json=body).json()
    found = {item["name"]: item["data"] for item in raw["outputs"]}
    assert found["unusual"] == [None]
    assert found["embedding"] == [None] * 16


@pytest.mark.parametrize("value", ["yes", 1])
def test_another_value_is_a_400(servers: Servers, value: Any) -> None:
    reply = post_v2(servers, {"inputs": [json_input([GOOD])], "parameters": {"features": value}})
    assert reply.status == 400
    assert "features" in reply.message


def test_outputs_can_be_chosen(servers: Servers) -> None:
    body = {
        "inputs": [json_input([GOOD])],
        "parameters": {"features": True},
        "outputs": [{"name": "unusual"}, {"name": "verdict"}],
    }
    raw = post(f"{servers.url}/v2/models/dr_grading/infer", json=body).json()
    assert [item["name"] for item in raw["outputs"]] == ["unusual", "verdict"]


def test_v1_is_as_it_was(servers: Servers) -> None:
    import base64

    instance = {"image_bytes": {"b64": base64.b64encode(GOOD).decode()}, "features": True}
    raw = post(f"{servers.url}/v1/models/dr_grading:predict", content=json.dumps({"instances": [instance]}))
    assert set(raw.json()["predictions"][0]) == {"quality", "heads", "model"}
