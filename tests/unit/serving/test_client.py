"""The binary form, there and back."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError, ServingError
from serving.blobs import pack, unpack
from serving.client import Reply, ask, decode, encode
from serving.identity import ModelInfo
from tests.integration.serving.harness import free_port


@given(st.lists(st.binary(max_size=50), max_size=5))
@settings(max_examples=50, deadline=None)
def test_packed_elements_come_back(elements: list[bytes]) -> None:
    assert unpack(pack(elements), "x") == elements


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_cut_is_an_error(cut: int) -> None:
    with pytest.raises(RequestError, match="ends inside"):
        unpack(pack([b"abc"])[:-cut], "x")


def test_nothing_is_read_beyond_what_there_may_be() -> None:
    assert unpack(pack([b"a", b""]), "x", 2) == [b"a", b""]
    # The third is cut: it would be another error if it were looked at.
    with pytest.raises(RequestError, match="goes on after"):
        unpack(pack([b"a", b"", b"abc"])[:-1], "x", 2)


def test_a_request_names_its_sizes() -> None:
    body, length = encode([b"one", b""], explain="map")
    document = json.loads(body[:length])
    assert document["parameters"] == {"binary_data_output": True, "explain": "map"}
    assert document["inputs"][0]["shape"] == [2]
    assert unpack(body[length:], "image") == [b"one", b""]


def test_a_response_becomes_documents() -> None:
    values = np.array([[0.25, 0.75], [np.nan, np.nan]], np.float32)
    parts = {
        "verdict": pack([b"gradable", b"retake"]),
        "reasons": pack([b"[]", b'["blurred"]']),
        "error": pack([b"", b""]),
        "h.probabilities": values.tobytes(),
        "h.label": pack([b"b", b""]),
        "h.uncertain": np.array([False, True]).tobytes(),
        "h.set": np.array([[False, True], [False, False]]).tobytes(),
    }
    types = {"h.probabilities": ("FP32", [2, 2]), "h.uncertain": ("BOOL", [2]), "h.set": ("BOOL", [2, 2])}
    outputs = [
        {
            "name": name,
            "datatype": types.get(name, ("BYTES", [2]))[0],
            "shape": types.get(name, ("BYTES", [2]))[1],
            "parameters": {"binary_data_size": len(raw)},
        }
        for name, raw in parts.items()
    ]
    who = {"name": "t", "version": "1", "digest": "d", "precision": "fp32"}
    head = json.dumps({"outputs": outputs, "parameters": {**who, "classes": '{"h": ["a", "b"]}'}}).encode()
    good, bad = decode(head + b"".join(parts.values()), len(head)).documents()
    assert good["heads"]["h"] == {
        "label": "b",
        "confidence": 0.75,
        "probabilities": {"a": 0.25, "b": 0.75},
        "set": ["b"],
        "uncertain": False,
    }
    assert bad == {"quality": {"verdict": "retake", "reasons": ["blurred"]}, "heads": {}, "model": who}


@pytest.mark.parametrize(("threshold", "label"), [("0.3", "ng"), ("", "")])
def test_an_anomaly_models_response_becomes_documents(threshold: str, label: str) -> None:
    regions = [{"bbox": [1, 2, 3, 4], "area_px": 9.0, "contour": [[1, 2]]}]
    parts = {
        "verdict": ("BYTES", pack([b"gradable", b"retake"])),
        "reasons": ("BYTES", pack([b"[]", b"[]"])),
        "error": ("BYTES", pack([b"", b""])),
        "anomaly.score": ("FP32", np.array([0.5, np.nan], np.float32).tobytes()),
        "anomaly.threshold": ("FP32", np.array([0.3, np.nan], np.float32).tobytes()),
        "anomaly.label": ("BYTES", pack([label.encode(), b""])),
        "anomaly.regions": ("BYTES", pack([json.dumps(regions).encode(), b""])),
    }
    outputs = [
        {"name": name, "datatype": kind, "shape": [2], "parameters": {"binary_data_size": len(raw)}}
        for name, (kind, raw) in parts.items()
    ]
    who = {"name": "t", "version": "1", "digest": "d", "precision": "fp32"}
    given = {**who, "kind": "anomaly", "classes": "{}", "threshold": threshold}
    head = json.dumps({"outputs": outputs, "parameters": given}).encode()
    raw = b"".join(raw for _, raw in parts.values())
    good, bad = decode(head + raw, len(head)).documents()
    assert good["anomaly"] == {
        "score": 0.5,
        "threshold": 0.3 if threshold else None,
        "label": label or None,
        "regions": regions,
    }
    assert good["heads"] == {}
    assert bad == {"quality": {"verdict": "retake", "reasons": []}, "heads": {}, "model": who}


def test_an_origin_is_read_from_the_parameters() -> None:
    four = {"name": "t-challenger", "version": "3", "digest": "sha256:0", "precision": "int8"}
    more = {"task": "t", "dataset_digest": "sha256:1", "code_digest": "sha256:2", "runtime": "r 1"}
    assert Reply({}, {**four, **more, "classes": "{}"}).origin == {
        "task": "t",
        "model_name": "t-challenger",
        "model_version": "3",
        "bundle_digest": "sha256:0",
        "precision": "int8",
        "dataset_digest": "sha256:1",
        "code_digest": "sha256:2",
    }
    assert ModelInfo.of_parameters({**four, **more}).parameters() == {**four, **more}


def test_what_an_earlier_release_does_not_say_is_empty() -> None:
    four = {"name": "t", "version": "3", "digest": "sha256:0", "precision": "fp32"}
    origin = Reply({}, four).origin
    assert (origin["task"], origin["dataset_digest"], origin["code_digest"]) == ("t", "", "")
    assert ModelInfo.of_parameters(four) == ModelInfo("t", "3", "sha256:0", "fp32", "t")


def test_no_server_is_said() -> None:
    with pytest.raises(ServingError, match="No answer"):
        ask(f"http://127.0.0.1:{free_port()}", "t", [b""])


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(400)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_is_not_asked_for_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        answering = threading.Thread(target=server.handle_request)
        server.timeout = 120
        answering.start()
        with pytest.raises(RequestError, match="refused"):
            ask(f"http://{host}:{server.server_port}", "t", [b""])
        answering.join()
    with pytest.raises(ServingError, match="No answer"):
        ask("http://retiderm.invalid", "t", [b""])
