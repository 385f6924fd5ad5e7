"""A warm ``/infer`` from PNG bytes to heatmap, against anomalib's ``Patchcore`` on the same PNG bytes.

Ours is the real server, asked over HTTP, everything that contract S4 answers included (regions, base64,
JSON). anomalib has no such service: its public call from the file's bytes to a grey PNG, inside its own
process, is what stands against it. Both hold as many patches in memory and use as many threads; in each round
each has one turn, in changing order, with a pause before each so that no thread of the other still spins.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2

from benchmarks.anomaly.environment import Kept, environment, keep
from benchmarks.anomaly.records import Part

OURS, ANOMALIB = "retiderm /infer", "anomalib Patchcore"
#: anomalib's own export, run by its own inferencer: told, not judged.
EXPORTED = "anomalib exported to OpenVINO"
#: Seconds before each turn: longer than an OpenMP thread spins for more work.
PAUSE = 0.3
WARM_UP = 5
_STEP = re.compile(r"\b([a-z]+)_ms=([0-9.]+)")
_ROI = {"role_id": "bench", "roi_id": "screw", "mm_per_px": "0.1"}


@dataclass(frozen=True, slots=True)
class Service:
    """A running S4 service and the file of its log."""

    url: str
    pid: int
    log: Path

    def post(
        self, path: str, fields: Mapping[str, str], files: Sequence[tuple[str, bytes]]
    ) -> dict[str, Any]:
        """Send a form and give the JSON; ends the program where it isn't answered with 200."""
        content, body = form(fields, files)
        return self.send(path, content, body)

    def send(self, path: str, content: str, body: bytes) -> dict[str, Any]:
        """Send a body."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=3600)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": content})
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        if response.status != 200:
            sys.exit(f"POST {path}: {response.status} {answer}")
        return answer

    def steps(self, count: int) -> list[dict[str, float]]:
        """Milliseconds of each step of the last ``count`` inferences, from the service's own log."""
        return [
            timed(line) for line in self.log.read_text().splitlines() if " role=" in line and "infer " in line
        ][-count:]

    def peak_mib(self) -> float:
        """Its highest resident memory so far."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def timed(line: str) -> dict[str, float]:
    """The steps that a line of the service's log names, in milliseconds."""
    return {name: float(value) for name, value in _STEP.findall(line)}


def form(fields: Mapping[str, str], files: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A multipart form: its content type and its body. Files are PNG."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for number, (name, data) in enumerate(files):
        head = f'Content-Disposition: form-data; name="{name}"; filename="{number}.png"\r\n'
        parts.append(f"--{edge}\r\n{head}Content-Type: image/png\r\n\r\n".encode() + data + b"\r\n")
    return f"multipart/form-data; boundary={edge}", b"".join([*parts, f"--{edge}--\r\n".encode()])


@contextlib.contextmanager
def served(extractor: Path, threads: int) -> Iterator[Service]:
    """``retiderm anomaly serve`` on a free port, with memories of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready, log = folder / "ready.json", folder / "log"
        options = ["--models-dir", str(folder / "models"), "--extractor", str(extractor), "--port", "0"]
        options += ["--threads", str(threads), "--device", "cpu", "--ready-file", str(ready)]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.patchcore", "serve", *options],
                stdout=stream,
                stderr=stream,
                env=environment(threads),
            )
        try:
            while not ready.exists():
                if process.poll() is not None:
                    sys.exit(f"The service ended:\n{log.read_text()[-3000:]}")
                time.sleep(0.05)
            yield Service(json.loads(ready.read_text())["url"], process.pid, log)
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def resized(paths: Sequence[Path], side: int, folder: Path) -> list[Path]:
    """The images as square PNGs of that side: what a client sends as its ROI, and the same files for both."""
    made = []
    for number, path in enumerate(paths):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            sys.exit(f"{path.name} can't be decoded.")
        out = folder / f"{path.parent.name}-{number}.png"
        cv2.imwrite(str(out), cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
        made.append(out)
    return made


@dataclass
class Times:
    """Milliseconds of each turn, in the order of the rounds; anomalib's steps from turns of their own."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    exported: list[float] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)


def compete(service: Service, theirs: Kept, images: Sequence[Path], rounds: int) -> Times:
    """Give each a turn in each round, in changing order; some rounds of warming up don't count."""
    bodies = [form(_ROI, [("image", path.read_bytes())]) for path in images]
    turns = ["ours", "infer", "steps", *(["exported"] if theirs.first["exported"] else [])]
    found = Times()
    for number in range(rounds + WARM_UP):
        at = number % len(images)
        if number == WARM_UP:
            found = Times()
        begin = number % len(turns)
        for turn in turns[begin:] + turns[:begin]:
            time.sleep(PAUSE)
            if turn == "ours":
                started = time.perf_counter()
                service.send("/infer", *bodies[at])
                found.ours.append((time.perf_counter() - started) * 1e3)
                continue
            took = theirs.ask({"do": turn, "image": str(images[at])})["ms"]
            taken: dict[str, list[Any]]
            taken = {"infer": found.theirs, "exported": found.exported, "steps": found.steps}
            taken[turn].append(took)
    return found


def tell(
    part: Part, data: str, contender: str, total: Sequence[float], steps: Sequence[Mapping[str, float]]
) -> None:
    """A row a step, what no step covers, and the whole: medians over the rounds, and the 95th percentile."""
    names = list(dict.fromkeys(name for one in steps for name in one if name != "total"))
    covered = 0.0
    for name in names:
        value = statistics.median(one.get(name, 0.0) for one in steps)
        covered += value
        part.add(data, contender, f"step: {name}", value, "ms")
    middle = statistics.median(total)
    if names:
        part.add(data, contender, "step: everything else", max(0.0, middle - covered), "ms")
    part.add(data, contender, "whole, median", middle, "ms")
    part.add(data, contender, "whole, 95th percentile", sorted(total)[int(0.95 * (len(total) - 1))], "ms")


def measure(
    part: Part,
    study: str,
    extractor: Path,
    job: Mapping[str, Any],
    images: tuple[Sequence[Path], Sequence[Path]],
    rounds: int,
    threads: int,
    python: Path,
) -> None:
    """Fit both on the same images, then ask both in turn. ``images``: to fit on, to ask about."""
    fitted, asked = images
    side = int(job["input"][0])
    with tempfile.TemporaryDirectory() as name, served(extractor, threads) as service:
        folder = Path(name)
        train, test = resized(fitted, side, folder), resized(asked, side, folder)
        answer = service.post("/fit_ok", _ROI, [("images", path.read_bytes()) for path in train])
        memory = answer["coreset_size"]
        scores = [service.post("/infer", _ROI, [("image", p.read_bytes())])["score"] for p in train[:5]]
        calibration = {"role_id": "bench", "roi_id": "screw", "mm_per_px": 0.1, "ok_scores": scores}
        service.send("/calibrate_ng", "application/json", json.dumps(calibration).encode())
        more = {"memory": memory, "seed": 0, "export": True, "folder": name}
        theirs_job = {**job, **more, "train": [str(path) for path in train]}
        with keep(python, "serve", theirs_job, threads) as theirs:
            first = theirs.first
            times = compete(service, theirs, test, rounds)
        tell(part, study, OURS, times.ours, service.steps(rounds))
        tell(part, study, ANOMALIB, times.theirs, times.steps)
        if first["exported"]:
            tell(part, study, EXPORTED, times.exported, [])
        else:
            part.settings[f"{study}: no OpenVINO export"] = first["failure"]
        grid, shape = ("x".join(map(str, size)) for size in (answer["token_shape"], first["memory"]))
        part.add(study, OURS, "peak resident memory", service.peak_mib(), "MiB", f"{grid} patches an image")
        part.add(study, ANOMALIB, "peak resident memory", first["peak_mib"], "MiB", f"memory {shape}")
        ratio = statistics.median(b / a for a, b in zip(times.ours, times.theirs, strict=True))
        part.hold(f"{study}: /infer at {side}, times faster than anomalib", ratio, ">=", 2)
