"""The demo: the whole line on made-up images, then both models are served and asked about two images each."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.errors import RetidermError, ServingError, UsageError
from data.files import read_json, write_bytes, write_json
from data.paths import home

PROFILE = Path(__file__).with_name("demo.yaml")
_BLUR = 0.025  # the blurred image's Gaussian, as a share of the shorter side
_ASKED = 7  # requests an image; the median is shown
_READY_S = 120.0


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One task of the demo: its source, and what is changed against the task's own file."""

    name: str
    source: str
    settings: Mapping[str, Any]


def demo_tasks(path: Path = PROFILE) -> tuple[DemoTask, ...]:
    """The demo's profile."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(DemoTask(name, item["source"], item["set"]) for name, item in raw["tasks"].items())


def require_no_real_champion(tasks: tuple[DemoTask, ...]) -> None:
    """Refuse to put a model of drawn images where one of real images serves.

    Raises:
        UsageError: names the task and what serves it.
    """
    from serving.core.bundle import Bundle
    from serving.core.pointer import read_pointer

    for task in tasks:
        pointer = read_pointer(home().serving, task.name)
        if pointer is None:
            continue
        card = Bundle.open(pointer.folder(home().serving), verify=False).card
        if not card.dataset.synthetic:
            raise UsageError(
                f"{task.name} version {pointer.version} serves here and learned from {card.dataset.source}; "
                "the demo would replace it by a model of made-up images.",
                hint="Run the demo elsewhere: RETIDERM_HOME=/tmp/demo retiderm demo",
            )


@contextlib.contextmanager
def served(log: Path) -> Iterator[dict[str, Any]]:
    """``retiderm serve`` on free ports of loopback while the body runs; gives its addresses.

    Raises:
        ServingError: it ended or was not ready in time; its last lines are told.
    """
    ready = log.with_suffix(".ready.json")
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "serving.cli", "serve"]
    command += ["--no-gateway", "--port", str(free_port()), "--ready-file", str(ready)]
    environment = {**os.environ, "RETIDERM_HOME": str(home().root)}
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
    try:
        until = time.monotonic() + _READY_S
        while not ready.is_file():
            if process.poll() is not None or time.monotonic() > until:
                last = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
                raise ServingError(f"The servers did not come up: {last}", hint=f"Their log is {log}.")
            time.sleep(0.1)
        yield read_json(ready)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_image(dataset: Path) -> tuple[str, bytes, dict[str, str]]:
    """A gradable image of a dataset's test split: id, bytes, labels.

    The first by id, of any class but the commonest where there is one.
    """
    from data.dataset import Dataset

    opened = Dataset.open(dataset)
    frame = opened.split("test")
    frame = frame[frame["verdict"] == "gradable"]
    if frame.empty:
        raise UsageError(f"No test image of {dataset} is gradable.", hint="Draw more images in demo.yaml.")
    labels = [column for column in frame.columns if column.startswith("label.")]
    common = frame[labels[0]].value_counts().index[0]
    others = frame[frame[labels[0]] != common]
    row = (others if not others.empty else frame).sort_values("id").iloc[0]
    truth = {column.removeprefix("label."): str(row[column]) for column in labels}
    return str(row["id"]), opened.image_path(row["path"]).read_bytes(), truth


def blurred(image: bytes) -> bytes:
    """The same photograph out of focus, as JPEG."""
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UsageError("The test image can't be decoded.")
    soft = cv2.GaussianBlur(pixels, (0, 0), sigmaX=_BLUR * min(pixels.shape[:2]))
    done, encoded = cv2.imencode(".jpg", soft, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise UsageError("The blurred image can't be encoded.")
    return encoded.tobytes()


def ask_about(url: str, task: str, dataset: Path, out: Path) -> list[dict[str, Any]]:
    """Ask a served model about a sharp and a blurred image over V2 REST; files go to ``out``.

    Gives one row an image: what was asked, the verdict, the answer, the median latency in ms.
    """
    from serving.client import ask

    identity, sharp, truth = test_image(dataset)
    rows = []
    for kind, image in (("sharp", sharp), ("blurred", blurred(sharp))):
        picture = out / f"{task}-{kind}{_extension(image)}"
        write_bytes(picture, image)
        took = []
        for _ in range(_ASKED):
            since = time.perf_counter()
            reply = ask(url, task, [image], explain="overlay")
            took.append((time.perf_counter() - since) * 1000)
        document = reply.documents()[0]
        row: dict[str, Any] = {
            "image": kind,
            "id": identity,
            "file": str(picture),
            "truth": truth,
            "answer": document,
            "latency_ms": round(statistics.median(took), 1),
            "overlay": None,
        }
        if overlay := reply.overlay():
            write_bytes(out / f"{task}-{kind}-overlay.png", overlay)
            row["overlay"] = str(out / f"{task}-{kind}-overlay.png")
        rows.append(row)
    return rows


def ask_all(outcomes: Mapping[str, Mapping[str, Any]], out: Path) -> dict[str, list[dict[str, Any]]]:
    """Ask every task that serves; an earlier version answers where the gate refused the new one."""
    from serving.core.pointer import read_pointer

    serving = {task: outcome for task, outcome in outcomes.items() if read_pointer(home().serving, task)}
    if not serving:
        return {}
    with served(out / "serve.log") as endpoints:
        return {
            task: ask_about(endpoints["url"], task, Path(outcome["artifacts"]["ingest.dataset"]), out)
            for task, outcome in serving.items()
        }


def summary(
    outcomes: Mapping[str, Mapping[str, Any]],
    answers: Mapping[str, list[dict[str, Any]]],
    seconds: float,
    out: Path,
) -> dict[str, Any]:
    """What the demo did, as JSON; written to ``summary.json``."""
    value = {
        "synthetic": True,
        "note": "The images are drawn by a program; the figures say nothing about patients.",
        "seconds": round(seconds, 1),
        "tasks": {
            task: {
                "source": outcome["source"],
                "overrides": outcome["overrides"],
                "status": outcome["status"],
                "version": outcome["version"],
                "bundle_digest": outcome["bundle_digest"],
                "metrics": outcome["metrics"],
                "calibration": outcome["calibration"],
                "gate": {key: outcome["gate"][key] for key in ("decision", "reasons")},
                "promoted": outcome["promoted"],
                "seconds": outcome["seconds"],
                "result": f"{outcome['artifacts']['run']}/result.json",
                "answers": answers.get(task, []),
            }
            for task, outcome in outcomes.items()
        },
    }
    write_json(out / "summary.json", value)
    return value


def surprises(value: Mapping[str, Any]) -> list[str]:
    """What a reader of the summary should not overlook, in words."""
    found = []
    for task, item in value["tasks"].items():
        if item["status"] == "refused":
            found.append(
                f"{task}: the gate refused version {item['version']}: {' '.join(item['gate']['reasons'])}"
            )
        for row in item["answers"]:
            verdict = row["answer"].get("quality", {}).get("verdict")
            if row["image"] == "sharp" and verdict != "gradable":
                found.append(f"{task}: the sharp image was not answered ({verdict}).")
            if row["image"] == "blurred" and verdict == "gradable":
                found.append(f"{task}: the blurred image passed the quality gate.")
    return found


def run_task(task: DemoTask) -> dict[str, Any]:
    """Run one task's pipeline with the demo's profile; a refusal is a result, a failure is raised."""
    from pipelines.local import error_of
    from pipelines.local import run as run_pipeline
    from pipelines.request import Request, resolve
    from pipelines.result import write
    from pipelines.view import RunView

    settings = [f"{key}={_flow(value)}" for key, value in task.settings.items()]
    resolved, overrides = resolve(task.name, task.source, settings=settings)
    with RunView(steps=10) as view:
        view.header(f"{task.name} from {task.source} (synthetic)")
        record = run_pipeline(
            Request(resolved, task.source, seed=resolved.train.seed, overrides=overrides), view
        )
        outcome = write(record, None)
    if record.interrupted:
        raise KeyboardInterrupt
    error: RetidermError | None = error_of(record)
    if error is not None:
        raise error
    return outcome


def _flow(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True)).removesuffix("\n...\n").strip()


def _extension(image: bytes) -> str:
    return ".png" if image.startswith(b"\x89PNG") else ".jpg"
