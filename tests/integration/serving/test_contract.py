"""S5, field by field, over all four wires."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from serving.client import Reply
from serving.client import ask as ask_by_client
from serving.core.bundle import Bundle
from serving.offline import answer
from serving.source import open_source
from tests.integration.serving import pictures
from tests.integration.serving.harness import (
    WIRES,
    Servers,
    ask,
    call_grpc,
    get,
    grpc_request,
    json_input,
    post,
    post_v1,
    post_v2,
)

GOOD = pictures.file(pictures.sharp(), "png")
BLURRED = pictures.file(pictures.blurred(), "png")
BROKEN = GOOD[: len(GOOD) // 2]
CLASSES = ["no_dr", "mild", "moderate", "severe", "proliferative"]


@pytest.fixture(scope="session")
def offline(bundles: dict[str, Path]) -> dict[str, Any]:
    served = open_source(None, bundles["dr_grading"], "7").scan()["dr_grading"]
    return answer(served, GOOD).to_dict()


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_has_every_field_and_is_the_offline_one(
    servers: Servers, wire: str, offline: dict[str, Any]
) -> None:
    reply = ask(servers, wire, [GOOD])
    assert reply.ok, reply
    (document,) = reply.documents
    head = document["heads"]["grade"]
    assert document["quality"]["verdict"] == "gradable"
    assert document["quality"]["reasons"] == []
    assert list(head["probabilities"]) == CLASSES
    assert head["probabilities"] == pytest.approx(offline["heads"]["grade"]["probabilities"], abs=1e-6)
    assert head["label"] == max(head["probabilities"], key=head["probabilities"].get)
    assert head["confidence"] == pytest.approx(head["probabilities"][head["label"]])
    assert head["set"] == offline["heads"]["grade"]["set"]
    assert head["label"] in head["set"]
    assert head["uncertain"] is offline["heads"]["grade"]["uncertain"]
    assert document["model"] == offline["model"] | {"version": "7"}
    assert reply.overlays in ((), (b"",))
    assert "explanation" not in document


def test_v1_documents_carry_the_scores(servers: Servers, offline: dict[str, Any]) -> None:
    (document,) = ask(servers, "v1", [GOOD]).documents
    assert document["quality"]["scores"] == pytest.approx(offline["quality"]["scores"])


@pytest.mark.parametrize("wire", WIRES)
def test_of_a_mixed_batch_each_image_gets_its_own(servers: Servers, wire: str) -> None:
    reply = ask(servers, wire, [BLURRED, GOOD, BROKEN, b"plain text", GOOD], explain="overlay")
    assert reply.ok, reply
    blurred, good, broken, text, again = reply.documents
    assert blurred["quality"]["verdict"] == "retake"
    assert "blurred" in blurred["quality"]["reasons"]
    assert blurred["heads"] == {}
    assert good["heads"] == again["heads"]
    assert good["heads"]["grade"]["label"] in CLASSES
    assert broken == {"error": broken["error"]}
    assert broken["error"]["code"] == "image_damaged"
    assert text["error"]["code"] == "not_an_image"
    assert [bool(picture) for picture in reply.overlays] == [False, True, False, False, True]


def test_v2_has_nan_null_and_empty_text_where_there_is_no_answer(servers: Servers) -> None:
    raw = post(
        f"{servers.url}/v2/models/dr_grading/infer", json={"inputs": [json_input([BLURRED, GOOD, BROKEN])]}
    ).json()
    outputs = {item["name"]: item for item in raw["outputs"]}
    shapes = {name: (item["datatype"], item["shape"]) for name, item in outputs.items()}
    assert shapes == {
        "verdict": ("BYTES", [3]),
        "reasons": ("BYTES", [3]),
        "error": ("BYTES", [3]),
        "grade.probabilities": ("FP32", [3, 5]),
        "grade.label": ("BYTES", [3]),
        "grade.uncertain": ("BOOL", [3]),
        "grade.set": ("BOOL", [3, 5]),
    }
    assert outputs["verdict"]["data"] == ["retake", "gradable", ""]
    assert outputs["grade.probabilities"]["data"][:5] == [None] * 5
    assert outputs["grade.probabilities"]["data"][10:] == [None] * 5
    assert sum(outputs["grade.probabilities"]["data"][5:10]) == pytest.approx(1, abs=1e-5)
    assert outputs["grade.label"]["data"][::2] == ["", ""]
    assert outputs["grade.uncertain"]["data"][::2] == [True, True]
    assert outputs["grade.set"]["data"][:5] == [False] * 5
    assert json.loads(outputs["error"]["data"][2])["code"] == "image_damaged"
    for wire in ("v2 binary", "grpc"):
        values = ask(servers, wire, [BLURRED, GOOD, BROKEN]).outputs["grade.probabilities"][1]
        assert all(map(math.isnan, values[:5] + values[10:]))
        assert not any(map(math.isnan, values[5:10]))


@pytest.mark.parametrize("wire", WIRES)
def test_only_ungradable_images_are_answered_with_their_verdicts(servers: Servers, wire: str) -> None:
    reply = ask(servers, wire, [BLURRED, BROKEN])
    assert reply.ok, reply
    assert reply.documents[0]["heads"] == {}
    assert reply.documents[0]["model"]["version"] == "7"
    assert "error" in reply.documents[1]


@pytest.mark.parametrize("wire", WIRES)
def test_an_overlay_is_a_png_at_the_models_input_size(servers: Servers, wire: str) -> None:
    for task, size in (("dr_grading", (64, 64)), ("profile", (48, 56))):
        reply = ask(servers, wire, [GOOD], task=task, explain="overlay")
        picture = cv2.imdecode(np.frombuffer(reply.overlays[0], np.uint8), cv2.IMREAD_UNCHANGED)
        assert reply.overlays[0].startswith(b"\x89PNG")
        assert picture.shape == (*size, 3)


def test_overlays_are_the_same_on_every_wire(servers: Servers) -> None:
    assert len({ask(servers, wire, [GOOD], explain="overlay").overlays for wire in WIRES}) == 1


@pytest.mark.parametrize("wire", WIRES)
def test_a_map_is_the_labels_own(servers: Servers, wire: str) -> None:
    reply = ask(servers, wire, [BLURRED, GOOD], explain="map")
    if wire == "v1":
        assert "explanation" not in reply.documents[0]
        found = np.array(reply.documents[1]["explanation"]["map"])
    else:
        shape, values = reply.outputs["map"]
        assert shape == [2, 8, 8]
        nothing, found = np.array(values, dtype=float).reshape(shape)
        assert np.isnan(nothing).all()
    assert found.shape == (8, 8)
    assert (found >= 0).all()
    assert found.max() > 0


def test_v1_instances_choose_each_for_themselves(servers: Servers) -> None:
    import base64

    image = {"image_bytes": {"b64": base64.b64encode(GOOD).decode()}}
    body = {"instances": [{**image, "explain": mode} for mode in (True, False, "map", "overlay")] + [image]}
    found = [set(d.get("explanation", {})) for d in post_v1(servers, body).documents]
    assert found == [{"overlay_png"}, set(), {"map"}, {"overlay_png"}, set()]


def test_explain_verb_is_an_overlay_and_echoes_no_header(servers: Servers) -> None:
    import base64

    body = {"instances": [{"image_bytes": {"b64": base64.b64encode(GOOD).decode()}}]}
    reply = post_v1(servers, body, verb="explain", headers={"Authorization": "Bearer s3cret", "X-Mine": "1"})
    assert reply.overlays[0].startswith(b"\x89PNG")
    assert reply.overlays == ask(servers, "v1", [GOOD], explain=True).overlays
    assert not {"authorization", "x-mine"} & set(reply.headers)
    assert "s3cret" not in str(reply.headers)


def test_several_heads_are_all_answered(servers: Servers) -> None:
    for wire in WIRES:
        (document,) = ask(servers, wire, [GOOD], task="profile").documents
        assert {name: list(head["probabilities"]) for name, head in document["heads"].items()} == {
            "type": ["dry", "oily"],
            "hair": ["straight", "wavy", "curly"],
        }


def test_grpc_contents_answer_in_contents(servers: Servers) -> None:
    reply = call_grpc(servers.grpc, grpc_request([GOOD, BLURRED], explain="overlay", raw=False))
    assert (
        reply.documents == call_grpc(servers.grpc, grpc_request([GOOD, BLURRED], explain="overlay")).documents
    )
    assert reply.overlays[0].startswith(b"\x89PNG")


def test_requested_outputs_and_their_form_are_honoured(servers: Servers) -> None:
    body = {
        "inputs": [json_input([GOOD])],
        "outputs": [{"name": "grade.label"}, {"name": "verdict"}],
        "id": "mine",
    }
    response = post(f"{servers.url}/v2/models/dr_grading/infer", json=body).json()
    assert response["id"] == "mine"
    assert [item["name"] for item in response["outputs"]] == ["grade.label", "verdict"]
    body["outputs"] = [
        {"name": "verdict", "parameters": {"binary_data": False}},
        {"name": "grade.probabilities", "parameters": {"binary_data": True}},
    ]
    mixed = post(f"{servers.url}/v2/models/dr_grading/infer", json=body)
    length = int(mixed.headers["inference-header-content-length"])
    head = json.loads(mixed.content[:length])
    assert head["outputs"][0]["data"] == ["gradable"]
    assert len(mixed.content) - length == head["outputs"][1]["parameters"]["binary_data_size"] == 5 * 4


@pytest.mark.parametrize("where", ["transformer", "predictor"])
def test_metadata_says_who_answers_with_which_classes(servers: Servers, where: str) -> None:
    url = servers.url if where == "transformer" else servers.predictor_url
    found = get(f"{url}/v2/models/dr_grading").json()
    assert found["versions"] == ["7"]
    assert found["parameters"]["classes"] == {"grade": CLASSES}
    assert found["parameters"]["precision"] == "fp32"
    assert found["parameters"]["digest"].startswith("sha256:")
    assert found["inputs"][0]["datatype"] == ("BYTES" if where == "transformer" else "UINT8")
    assert {"name": "grade.probabilities", "datatype": "FP32", "shape": [-1, 5]} in found["outputs"]


def test_response_parameters_say_who_answered(servers: Servers) -> None:
    raw = post(f"{servers.url}/v2/models/dr_grading/infer", json={"inputs": [json_input([GOOD])]}).json()
    meta = get(f"{servers.url}/v2/models/dr_grading").json()["parameters"]
    assert {key: raw["parameters"][key] for key in ("version", "digest", "precision")} == {
        key: meta[key] for key in ("version", "digest", "precision")
    }
    assert json.loads(raw["parameters"]["classes"]) == meta["classes"]


@pytest.mark.parametrize("where", ["transformer", "predictor"])
def test_metadata_says_which_data_and_which_code_made_it(
    servers: Servers, bundles: dict[str, Path], where: str
) -> None:
    card = Bundle.open(bundles["profile"]).card
    url = servers.url if where == "transformer" else servers.predictor_url
    found = get(f"{url}/v2/models/profile").json()["parameters"]
    assert found["task"] == "profile"
    assert found["dataset_digest"] == card.dataset.digest
    assert found["code_digest"] == card.code_digest


@pytest.mark.parametrize("images", [[GOOD], [BLURRED]])
def test_every_v2_answer_names_its_data_and_its_code(
    servers: Servers, bundles: dict[str, Path], images: list[bytes]
) -> None:
    bundle = Bundle.open(bundles["dr_grading"])
    origin = ask_by_client(servers.url, "dr_grading", images).origin
    assert origin == {
        "task": "dr_grading",
        "model_name": "dr_grading",
        "model_version": "7",
        "bundle_digest": bundle.digest,
        "precision": "fp32",
        "dataset_digest": bundle.card.dataset.digest,
        "code_digest": bundle.card.code_digest,
    }
    for wire in WIRES[1:]:
        assert Reply({}, ask(servers, wire, images).parameters).origin == origin
    (document,) = ask(servers, "v1", images).documents
    assert set(document["model"]) == {"name", "version", "digest", "precision"}


def test_json_with_a_charset_is_json(servers: Servers) -> None:
    import base64

    body = {"instances": [{"image_bytes": {"b64": base64.b64encode(GOOD).decode()}}]}
    reply = post_v1(servers, body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert reply.ok


def test_v2_accepts_a_false_explain(servers: Servers) -> None:
    reply = post_v2(servers, {"inputs": [json_input([GOOD])], "parameters": {"explain": False}})
    assert reply.ok
    assert "overlay" not in reply.outputs


def test_metrics_count_verdicts_classes_and_steps(servers: Servers) -> None:
    ask(servers, "v1", [GOOD, BLURRED])
    text = get(f"{servers.url}/metrics").text
    assert 'retiderm_verdicts_total{model="dr_grading",verdict="retake"}' in text
    assert 'retiderm_predictions_total{head="grade",label=' in text
    assert 'retiderm_step_seconds_bucket{le="0.001",model="dr_grading",step="prepare"}' in text
    inner = get(f"{servers.predictor_url}/metrics").text
    assert 'step="inference"' in inner
    assert 'retiderm_model{digest="sha256:' in inner
