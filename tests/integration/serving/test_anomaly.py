"""S5 of an anomaly bundle, beside a classifier in the same two processes, over all four wires."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferRequest
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from serving.client import ask as ask_by_client
from serving.core.bundle import Bundle
from serving.offline import answer
from serving.source import open_source
from tests.anomaly_bundles import SIDE, file, surface, tiny_anomaly_bundle, with_blot
from tests.bundles import tiny_bundle
from tests.integration.serving.harness import (
    PATIENCE_S,
    WIRES,
    Servers,
    ask,
    get,
    json_input,
    post,
    post_v1,
    promote,
    until,
)

TASK = "anomaly"
OK = file(surface(512, seed=70))
NG = file(with_blot(surface(512, seed=71), 0.7, 0.3))
BLURRED = file(np.asarray(cv2.GaussianBlur(surface(512), (0, 0), 25)))
BROKEN = OK[: len(OK) // 2]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Two versions, of another extractor and threshold each."""
    base = tmp_path_factory.mktemp("versions")
    return {name: tiny_anomaly_bundle(base / name, seed=int(name)) for name in ("1", "2")}


@pytest.fixture(scope="module")
def servers(versions: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    root = tmp_path_factory.mktemp("root")
    promote(root, versions["1"], "1")
    promote(root, tiny_bundle(tmp_path_factory.mktemp("other") / "b", quality="photo"), "7")
    with Servers(root, root / "servers", poll_s=0.05).running() as running:
        yield running


@pytest.fixture(scope="module")
def offline(versions: dict[str, Bundle]) -> dict[str, Any]:
    served = open_source(None, versions["1"].root, "1").scan()[TASK]
    return answer(served, NG, explain=True).to_dict()


def test_an_answer_names_the_data_and_the_code_of_its_bundle(
    servers: Servers, versions: dict[str, Bundle]
) -> None:
    origin = ask_by_client(servers.url, TASK, [OK]).origin
    card = versions["1"].card
    assert (origin["task"], origin["model_version"]) == (TASK, "1")
    assert origin["bundle_digest"] == versions["1"].digest
    assert (origin["dataset_digest"], origin["code_digest"]) == (card.dataset.digest, card.code_digest)


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_has_every_field_and_is_the_offline_one(
    servers: Servers, wire: str, offline: dict[str, Any]
) -> None:
    reply = ask(servers, wire, [NG], task=TASK)
    assert reply.ok, reply
    (document,) = reply.documents
    found = document["anomaly"]
    assert set(document) == {"quality", "heads", "anomaly", "model"}
    assert document["heads"] == {}
    assert set(found) == {"score", "threshold", "label", "regions"}
    assert found["label"] == "ng"
    assert found["score"] == pytest.approx(offline["anomaly"]["score"], abs=1e-6)
    assert found["threshold"] == pytest.approx(offline["anomaly"]["threshold"], rel=1e-6)
    assert found["regions"] == offline["anomaly"]["regions"]
    (region,) = found["regions"]
    assert set(region) == {"bbox", "area_px", "contour"}
    x, y, width, height = region["bbox"]
    assert x <= 0.7 * 512 <= x + width
    assert y <= 0.3 * 512 <= y + height
    assert document["model"] == offline["model"]


@pytest.mark.parametrize("wire", WIRES)
def test_of_a_mixed_batch_each_image_gets_its_own(servers: Servers, wire: str) -> None:
    reply = ask(servers, wire, [BLURRED, OK, BROKEN, NG], task=TASK, explain="overlay")
    assert reply.ok, reply
    blurred, good, broken, bad = reply.documents
    assert blurred["quality"]["verdict"] == "retake"
    assert "anomaly" not in blurred
    assert (good["anomaly"]["label"], good["anomaly"]["regions"]) == ("ok", [])
    assert broken == {"error": broken["error"]}
    assert bad["anomaly"]["label"] == "ng"
    assert [bool(picture) for picture in reply.overlays] == [False, True, False, True]
    for picture in reply.overlays[1::2]:
        pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.startswith(b"\x89PNG")
        assert pixels.shape == (SIDE, SIDE, 3)


def test_overlays_are_the_same_on_every_wire_and_offline(servers: Servers, offline: dict[str, Any]) -> None:
    shown = {ask(servers, wire, [NG], task=TASK, explain="overlay").overlays for wire in WIRES}
    assert shown == {(base64.b64decode(offline["explanation"]["overlay_png"]["b64"]),)}


@pytest.mark.parametrize("wire", WIRES)
def test_a_map_is_of_the_patches(servers: Servers, wire: str) -> None:
    reply = ask(servers, wire, [BLURRED, NG], task=TASK, explain="map")
    if wire == "v1":
        assert "explanation" not in reply.documents[0]
        found = np.array(reply.documents[1]["explanation"]["map"])
    else:
        shape, values = reply.outputs["map"]
        assert shape == [2, 8, 8]
        nothing, found = np.array(values, dtype=float).reshape(shape)
        assert np.isnan(nothing).all()
    assert found.shape == (8, 8)
    assert np.unravel_index(found.argmax(), found.shape) in [(1, 5), (2, 5), (2, 6), (1, 6)]
    assert found.min() >= 0
    assert found.max() <= 4


@pytest.mark.parametrize("wire", WIRES)
def test_only_ungradable_images_are_answered_with_their_verdicts(servers: Servers, wire: str) -> None:
    reply = ask(servers, wire, [BLURRED, BROKEN], task=TASK, explain="map")
    assert reply.ok, reply
    assert reply.documents[0]["heads"] == {}
    assert "anomaly" not in reply.documents[0]
    assert reply.documents[0]["model"]["version"] == "1"
    assert "error" in reply.documents[1]


def test_v2_has_nan_null_and_empty_text_where_there_is_no_answer(servers: Servers) -> None:
    body = {"inputs": [json_input([BLURRED, NG, BROKEN, OK])]}
    raw = post(f"{servers.url}/v2/models/{TASK}/infer", json=body).json()
    outputs = {item["name"]: item for item in raw["outputs"]}
    assert {name: (item["datatype"], item["shape"]) for name, item in outputs.items()} == {
        "verdict": ("BYTES", [4]),
        "reasons": ("BYTES", [4]),
        "error": ("BYTES", [4]),
        "anomaly.score": ("FP32", [4]),
        "anomaly.threshold": ("FP32", [4]),
        "anomaly.label": ("BYTES", [4]),
        "anomaly.regions": ("BYTES", [4]),
    }
    score, threshold = outputs["anomaly.score"]["data"], outputs["anomaly.threshold"]["data"]
    assert score[::2] == threshold[::2] == [None, None]
    assert score[1] >= threshold[1] == threshold[3] > score[3]
    assert outputs["anomaly.label"]["data"] == ["", "ng", "", "ok"]
    assert outputs["anomaly.regions"]["data"][::2] == ["", ""]
    assert len(json.loads(outputs["anomaly.regions"]["data"][1])) == 1
    assert outputs["anomaly.regions"]["data"][3] == "[]"
    for wire in ("v2 binary", "grpc"):
        values = ask(servers, wire, [BLURRED, NG], task=TASK).outputs["anomaly.score"][1]
        assert math.isnan(values[0])
        assert not math.isnan(values[1])


def test_explain_verb_is_an_overlay(servers: Servers) -> None:
    body = {"instances": [{"image_bytes": {"b64": base64.b64encode(NG).decode()}}]}
    reply = post_v1(servers, body, task=TASK, verb="explain")
    assert reply.overlays == ask(servers, "v1", [NG], task=TASK, explain=True).overlays
    assert reply.overlays[0].startswith(b"\x89PNG")


@pytest.mark.parametrize("where", ["transformer", "predictor"])
def test_metadata_says_what_the_numbers_mean(servers: Servers, offline: dict[str, Any], where: str) -> None:
    url = servers.url if where == "transformer" else servers.predictor_url
    found = get(f"{url}/v2/models/{TASK}").json()
    said = found["parameters"]
    assert said["kind"] == "anomaly"
    assert said["labels"] == ["ok", "ng"]
    assert said["threshold"] == offline["anomaly"]["threshold"]
    assert said["distance"] == "squared_l2"
    assert {"name": "anomaly.score", "datatype": "FP32", "shape": [-1]} in found["outputs"]
    if where == "predictor":
        assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]}]
        assert said["runtime"].startswith("onnxruntime ")
        assert said["index"]


def test_the_predictor_answers_tensors_of_its_own_preprocessing_only(
    servers: Servers, versions: dict[str, Bundle]
) -> None:
    pixels = np.stack([surface(seed=5), with_blot(surface(seed=6), 0.5, 0.5)])
    request = ModelInferRequest(model_name=TASK)
    request.parameters["preprocessing_digest"].CopyFrom(
        InferParameter(string_param=versions["1"].card.preprocessing_digest)
    )
    request.parameters["explain"].CopyFrom(InferParameter(bool_param=True))
    request.inputs.add(name="image", datatype="UINT8", shape=pixels.shape)
    request.raw_input_contents.append(pixels.tobytes())
    with grpc.insecure_channel(servers.predictor_grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(request, timeout=PATIENCE_S)
        assert [(item.name, item.datatype, list(item.shape)) for item in response.outputs] == [
            ("anomaly.score", "FP32", [2]),
            ("anomaly.label", "BYTES", [2]),
            ("anomaly.regions", "BYTES", [2]),
            ("anomaly.map", "FP32", [2, 8, 8]),
        ]
        request.parameters["preprocessing_digest"].CopyFrom(InferParameter(string_param="sha256:0"))
        with pytest.raises(grpc.RpcError, match="preprocessed as"):
            stub.ModelInfer(request, timeout=PATIENCE_S)


def test_metrics_count_labels_and_steps(servers: Servers) -> None:
    ask(servers, "v1", [NG, BLURRED, OK], task=TASK)
    text = get(f"{servers.url}/metrics").text
    for label in ("ok", "ng"):
        assert f'retiderm_predictions_total{{head="anomaly",label="{label}",model="{TASK}"' in text
    assert f'retiderm_verdicts_total{{model="{TASK}",verdict="retake"}}' in text


def test_the_client_gives_the_same_document(servers: Servers, offline: dict[str, Any]) -> None:
    reply = ask_by_client(servers.url, TASK, [BLURRED, NG], explain="overlay")
    blurred, bad = reply.documents()
    assert "anomaly" not in blurred
    assert bad["anomaly"] == offline["anomaly"]
    assert reply.overlay(1) == base64.b64decode(offline["explanation"]["overlay_png"]["b64"])


def test_predict_prints_and_writes_the_same_from_a_server_and_here(
    servers: Servers, versions: dict[str, Bundle], tmp_path: Path
) -> None:
    image = tmp_path / "part.png"
    image.write_bytes(NG)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "serving.cli", "predict", str(image), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout

    here, there = tmp_path / "here.png", tmp_path / "there.png"
    printed = run("--bundle", str(versions["1"].root), "--explain", str(here))
    assert "ng  score 0." in printed
    assert "threshold 0." in printed
    assert "regions" in printed
    online = json.loads(run("--task", TASK, "--url", servers.url, "--json", "--explain", str(there)))
    offline = json.loads(run("--bundle", str(versions["1"].root), "--json"))
    assert online["anomaly"] == offline["anomaly"]
    assert here.read_bytes() == there.read_bytes()


def test_a_promotion_under_load_never_mixes_two_versions(
    servers: Servers, versions: dict[str, Bundle]
) -> None:
    expected = {
        name: answer(open_source(None, bundle.root, name).scan()[TASK], NG).to_dict()
        for name, bundle in versions.items()
    }
    stop, seen = threading.Event(), Counter[str]()

    def keep_asking(wire: str) -> list[dict[str, Any]]:
        documents = []
        while not stop.is_set():
            reply = ask(servers, wire, [NG], task=TASK)
            assert reply.ok, reply
            documents += reply.documents
            seen[reply.documents[0]["model"]["version"]] += 1
        return documents

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(keep_asking, wire) for wire in ("v1", "grpc")]

        def answered(name: str) -> bool:
            return seen[name] > 0 or any(future.done() for future in asking)

        try:
            until(lambda: answered("1"))
            for name in ("2", "1"):
                seen.clear()
                promote(servers.root, versions[name], name)
                until(lambda name=name: answered(name))  # type: ignore[misc]
        finally:
            stop.set()
        documents = [document for future in asking for document in future.result()]
    assert {document["model"]["version"] for document in documents} == {"1", "2"}
    for document in documents:
        wanted = expected[document["model"]["version"]]
        assert document["model"]["digest"] == wanted["model"]["digest"]
        assert document["anomaly"]["score"] == pytest.approx(wanted["anomaly"]["score"], abs=1e-6)
        assert document["anomaly"]["threshold"] == pytest.approx(wanted["anomaly"]["threshold"], rel=1e-6)


def test_a_transformer_needs_neither_a_runtime_nor_an_index(versions: dict[str, Bundle]) -> None:
    script = (
        "import sys, pathlib, serving.transformer.app\n"
        "from serving.preparing import load_recipe\n"
        "from serving.source import open_source\n"
        f"load_recipe(open_source(None, pathlib.Path({str(versions['1'].root)!r})).scan()['anomaly'])\n"
        "print([m for m in ('onnxruntime', 'faiss', 'torch', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
