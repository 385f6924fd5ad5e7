"""The last proof: the encoded file, sent over HTTP to a started server, gets the offline answer."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ParityError, ServingError
from serving.core.bundle import Bundle
from serving.core.decisions import HeadDecision
from training.export.parity import PROBABILITY_TOLERANCE

START_TIMEOUT_S = 120.0
_STOP_S = 20.0
_REQUEST_S = 60.0

# Dies with this process, a kill included: prctl(PR_SET_PDEATHSIG, SIGTERM) where the system has it.
_LAUNCH = """
import ctypes, runpy, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
runpy.run_module("serving.cli", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """What the server said about one image: its verdict and each head's probabilities and label."""

    verdict: str
    probabilities: Mapping[str, NDArray[np.float64]]
    label: Mapping[str, str]


@contextlib.contextmanager
def started(bundle: Path, *, timeout_s: float = START_TIMEOUT_S) -> Iterator[str]:
    """Serve a bundle in processes of its own, give its address, and stop it whatever happens.

    Raises:
        ServingError: it did not become ready; with what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="retiderm-served-") as name:
        folder = Path(name)
        ready, log = folder / "ready.json", folder / "log.txt"
        arguments = [
            "serve",
            "--bundle",
            str(bundle),
            "--port",
            str(_free_port()),
            "--ready-file",
            str(ready),
            "--no-gateway",
        ]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # A group of its own, so that whatever it started can be ended with it.
                start_new_session=True,
            )
        try:
            yield _wait_ready(process, ready, log, timeout_s)
        finally:
            _stop(process)


def ask(url: str, task: str, files: Sequence[bytes]) -> list[ServedAnswer]:
    """Send encoded image files as V2 JSON, and read each one's answer.

    Raises:
        ServingError: the server refused, or can't be reached.
    """
    return _read(post(url, task, files), len(files))


def post(url: str, task: str, files: Sequence[bytes]) -> dict[str, Any]:
    """Send encoded image files as V2 JSON; the V2 document that comes back.

    Raises:
        ServingError: the server refused, or can't be reached.
    """
    body = {
        "inputs": [
            {
                "name": "image",
                "shape": [len(files)],
                "datatype": "BYTES",
                "data": [base64.b64encode(data).decode() for data in files],
            }
        ]
    }
    request = urllib.request.Request(
        f"{url}/v2/models/{task}/infer",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_REQUEST_S) as response:
            document: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise ServingError(
            f"The server answered {error.code}: {error.read()[:500].decode(errors='replace')}",
            hint="The bundle can't be served as it is.",
        ) from error
    except (OSError, ValueError) as error:
        raise ServingError(f"The server gave no answer: {error}.", hint="Its log says more.") from error
    return document


def served_parity(
    bundle: Bundle, files: Sequence[bytes], expected: Sequence[Mapping[str, HeadDecision]], *, batch: int = 4
) -> dict[str, Any]:
    """Serve the bundle, send the files, and compare with the offline decisions (one image each).

    An image that the quality gate refuses gets no answer and is not compared; at least one must be answered.

    Raises:
        ParityError: an answer differs, or none was given.
        ServingError: the server did not start.
    """
    with started(bundle.root) as url:
        return compare_served(url, bundle, files, expected, batch=batch)


def compare_served(
    url: str,
    bundle: Bundle,
    files: Sequence[bytes],
    expected: Sequence[Mapping[str, HeadDecision]],
    *,
    batch: int = 4,
) -> dict[str, Any]:
    """As :func:`served_parity`, with a server that is already there."""
    answers: list[ServedAnswer] = []
    for start in range(0, len(files), batch):
        answers += ask(url, bundle.card.task, files[start : start + batch])
    worst, changed, answered = 0.0, 0, 0
    for answer, wanted in zip(answers, expected, strict=True):
        if answer.verdict != "gradable":
            continue
        answered += 1
        for head in bundle.card.heads:
            given = answer.probabilities[head.name]
            difference = float(np.abs(given - wanted[head.name].probabilities[0]).max())
            worst = max(worst, difference if math.isfinite(difference) else math.inf)
            changed += answer.label[head.name] != head.classes[int(wanted[head.name].label[0])]
    if not answered:
        raise ParityError(
            f"The started server refused all {len(files)} test images for their quality.",
            hint="The task's quality profile doesn't fit its images: retiderm data calibrate-quality.",
        )
    passed = worst <= PROBABILITY_TOLERANCE and not changed
    if not passed:
        raise ParityError(
            f"The started server differs from the offline answers on {answered} test images: by up to "
            f"{worst:.1e} in probability (allowed: {PROBABILITY_TOLERANCE:g}), {changed} labels changed.",
            hint="Training and serving don't prepare images alike: compare their preprocessing.",
        )
    return {
        "images": len(files),
        "answered": answered,
        "max_difference": worst,
        "tolerance": PROBABILITY_TOLERANCE,
        "labels_changed": changed,
        "passed": passed,
    }


def _read(document: Mapping[str, Any], count: int) -> list[ServedAnswer]:
    outputs = {item["name"]: item for item in document.get("outputs", [])}
    try:
        verdicts = [_text(item) for item in outputs["verdict"]["data"]]
        heads = [name.removesuffix(".probabilities") for name in outputs if name.endswith(".probabilities")]
        tables = {
            head: np.array(
                [math.nan if item is None else item for item in outputs[f"{head}.probabilities"]["data"]],
                float,
            ).reshape(count, -1)
            for head in heads
        }
        labels = {head: [_text(item) for item in outputs[f"{head}.label"]["data"]] for head in heads}
    except (KeyError, TypeError, ValueError) as error:
        raise ServingError(
            f"The server's answer is not of the V2 form ({error!r}).", hint="Its log says more."
        ) from error
    return [
        ServedAnswer(
            verdicts[i],
            {head: table[i] for head, table in tables.items()},
            {head: names[i] for head, names in labels.items()},
        )
        for i in range(count)
    ]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _wait_ready(process: subprocess.Popen[bytes], ready: Path, log: Path, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ready.is_file():
            return str(json.loads(ready.read_text())["url"])
        if process.poll() is not None:
            break
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise ServingError(
        f"The bundle's server did not become ready: {' | '.join(said) or 'it said nothing'}",
        hint="Serve the bundle by hand to see why: retiderm serve --bundle DIR.",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
