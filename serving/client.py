"""Ask a server about image files, over V2 REST with binary tensors."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from data.errors import Overloaded, RequestError, ServingError
from serving.blobs import pack, unpack
from serving.features.columns import Features
from serving.features.columns import read as read_features

_TYPES = {"FP32": np.float32, "BOOL": np.bool_, "INT64": np.int64, "UINT8": np.uint8}


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer: tensors by name (BYTES as lists), and the response's parameters."""

    outputs: dict[str, Any]
    parameters: dict[str, Any]

    def documents(self) -> list[dict[str, Any]]:
        """The images' answers in the form of V1 (without the quality's scores, which V2 doesn't carry)."""
        classes: dict[str, list[str]] = json.loads(self.parameters["classes"])
        return [self._document(i, classes) for i in range(len(self.outputs["verdict"]))]

    @property
    def origin(self) -> dict[str, str]:
        """Where the answer came from: the task, which model and version, and which data and code made it.

        Of the bundle that answered, not of one that was promoted since. What a server of an earlier release
        doesn't say is empty.
        """
        given = self.parameters
        return {
            "task": given.get("task", given["name"]),
            "model_name": given["name"],
            "model_version": given["version"],
            "bundle_digest": given["digest"],
            "precision": given["precision"],
            "dataset_digest": given.get("dataset_digest", ""),
            "code_digest": given.get("code_digest", ""),
        }

    def overlay(self, i: int = 0) -> bytes:
        """The i-th image's overlay; empty where there is none."""
        blobs = self.outputs.get("overlay")
        return bytes(blobs[i]) if blobs else b""

    def view(self, i: int = 0) -> bytes:
        """The i-th image as the model was given it (``explain="view"``), a PNG; empty where there is none."""
        blobs = self.outputs.get("view")
        return bytes(blobs[i]) if blobs else b""

    def features(self, i: int = 0) -> Features | None:
        """What was said of the i-th image beside the answer; None where that wasn't asked for.

        ``parameters["features_unavailable"]`` says why the model can't tell some of it.
        """
        return read_features(self.outputs, i)

    def _document(self, i: int, classes: dict[str, list[str]]) -> dict[str, Any]:
        error = self.outputs["error"][i]
        if error:
            return {"error": json.loads(error)}
        heads = {}
        for head, names in classes.items():
            label = self.outputs[f"{head}.label"][i].decode()
            if label:
                values = self.outputs[f"{head}.probabilities"][i]
                members = self.outputs[f"{head}.set"][i]
                heads[head] = {
                    "label": label,
                    "confidence": float(values[names.index(label)]),
                    "probabilities": {n: float(v) for n, v in zip(names, values, strict=True)},
                    "set": [n for n, inside in zip(names, members, strict=True) if inside],
                    "uncertain": bool(self.outputs[f"{head}.uncertain"][i]),
                }
        verdict = {
            "verdict": self.outputs["verdict"][i].decode(),
            "reasons": json.loads(self.outputs["reasons"][i]),
        }
        model = {key: self.parameters[key] for key in ("name", "version", "digest", "precision")}
        return {"quality": verdict, "heads": heads, **self._anomaly(i), "model": model}

    def _anomaly(self, i: int) -> dict[str, Any]:
        """The part of an anomaly model's answer; nothing of another kind's, or where there is no answer."""
        regions = self.outputs["anomaly.regions"][i] if "anomaly.regions" in self.outputs else b""
        if not regions:
            return {}
        threshold = self.parameters["threshold"]
        return {
            "anomaly": {
                "score": float(self.outputs["anomaly.score"][i]),
                "threshold": float(threshold) if threshold else None,
                "label": self.outputs["anomaly.label"][i].decode() or None,
                "regions": json.loads(regions),
            }
        }


def ask(
    url: str,
    task: str,
    images: Sequence[bytes],
    *,
    explain: str = "",
    features: bool = False,
    timeout_s: float = 60.0,
) -> Reply:
    """Have images answered by the server at ``url`` (``http://127.0.0.1:8080``).

    Raises:
        RequestError: the server refused the request (4xx).
        Overloaded: the server says to come again later (503).
        ServingError: the server can't be reached or failed.
    """
    import httpx

    body, length = encode(images, explain=explain, features=features)
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(length),
    }
    target = f"{url.rstrip('/')}/v2/models/{task}/infer"
    try:
        response = httpx.post(
            target, content=body, headers=headers, timeout=timeout_s, trust_env=not _is_here(url)
        )
    except httpx.HTTPError as error:
        raise ServingError(
            f"No answer from {url} ({type(error).__name__}).", hint="Start one: retiderm serve."
        ) from error
    if response.status_code != 200:
        raise _refused(response.status_code, response.text)
    return decode(response.content, int(response.headers["inference-header-content-length"]))


def encode(images: Sequence[bytes], *, explain: str = "", features: bool = False) -> tuple[bytes, int]:
    """A binary V2 request: its body, and the length of the JSON part for the header."""
    raw = pack(images)
    asked = {**({"explain": explain} if explain else {}), **({"features": True} if features else {})}
    document = {
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [len(images)],
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
        "parameters": {"binary_data_output": True, **asked},
    }
    head = json.dumps(document).encode()
    return head + raw, len(head)


def decode(body: bytes, length: int) -> Reply:
    """Read a binary V2 response."""
    document = json.loads(body[:length])
    outputs: dict[str, Any] = {}
    at = length
    for item in document["outputs"]:
        size = item["parameters"]["binary_data_size"]
        raw = body[at : at + size]
        at += size
        if item["datatype"] == "BYTES":
            outputs[item["name"]] = unpack(raw, item["name"])
        else:
            outputs[item["name"]] = np.frombuffer(raw, _TYPES[item["datatype"]]).reshape(item["shape"])
    return Reply(outputs, document.get("parameters", {}))


def _is_here(url: str) -> bool:
    """Whether a server is on this machine, where a proxy named in the environment can't find it."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(status: int, text: str) -> ServingError:
    try:
        message = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        message = text[:200]
    if status == 503:
        return Overloaded(f"The server can't answer now: {message}", hint="Ask again in a second.")
    if 400 <= status < 500:
        return RequestError(f"The server refused the image ({status}): {message}")
    return ServingError(f"The server failed ({status}): {message}", hint="Its log has the reference.")
