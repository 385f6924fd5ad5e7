"""A predictor that does nothing: it answers V2 at once, so that what is left is the gateway's own time.

``python -m benchmarks.gateway.null_model --port 8090``. Its answer is that of a model with two classes,
in the form that the real transformer gives.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.blobs import pack

_CLASSES = ("no", "yes")


def answer(task: str) -> tuple[bytes, int]:
    """One image's answer: the body, and the length of its JSON part."""
    outputs = {
        "verdict": pack([b"gradable"]),
        "reasons": pack([b"[]"]),
        "error": pack([b""]),
        "only.probabilities": np.array([[0.25, 0.75]], np.float32).tobytes(),
        "only.label": pack([b"yes"]),
        "only.uncertain": b"\0",
        "only.set": b"\0\1",
    }
    kinds = {
        "only.probabilities": ("FP32", [1, 2]),
        "only.uncertain": ("BOOL", [1]),
        "only.set": ("BOOL", [1, 2]),
    }
    described = [
        {
            "name": name,
            "datatype": kinds.get(name, ("BYTES", [1]))[0],
            "shape": kinds.get(name, ("BYTES", [1]))[1],
            "parameters": {"binary_data_size": len(raw)},
        }
        for name, raw in outputs.items()
    ]
    digest = "sha256:" + "0" * 64
    parameters = {
        "name": task,
        "task": task,
        "version": "1",
        "digest": digest,
        "precision": "fp32",
        "dataset_digest": digest,
        "code_digest": digest,
        "classes": json.dumps({"only": _CLASSES}),
    }
    head = json.dumps({"model_name": task, "outputs": described, "parameters": parameters}).encode()
    return head + b"".join(outputs.values()), len(head)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The server: ``infer``, ``ready`` and the metadata."""
    if scope["type"] != "http":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    parts = scope["path"].split("/")
    headers = [(b"content-type", b"application/octet-stream")]
    body: bytes = b"{}"
    if parts[-1] == "infer":
        body, length = answer(parts[-2])
        headers.append((b"inference-header-content-length", str(length).encode()))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8090)
    uvicorn.run(app, port=parser.parse_args().port, log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
