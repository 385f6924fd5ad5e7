"""anomalib in an environment of its own, and every contender in a process of its own.

anomalib is no dependency of this project and never enters ``.venv``: uv puts its current release under
``RETIDERM_HOME/bench/anomalib``, with torch, torchvision, timm and numpy at the versions of this project's
lock, so that only the code that is compared differs. Both sides get the same number of threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from data.files import read_json, write_json
from data.paths import home
from data.provenance import versions

#: At the same version on both sides. The last three are what anomalib exports to OpenVINO with.
SHARED = (
    *("torch", "torchvision", "timm", "numpy", "opencv-python-headless"),
    *("openvino", "onnx", "onnxscript"),
)
CONTENDER = Path(__file__).with_name("contender.py")
#: What the libraries of both sides read for their threads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def folder() -> Path:
    """Where anomalib's environment, weights and features lie."""
    return home().root / "bench" / "anomalib"


def install(*, upgrade: bool = False) -> Path:
    """The interpreter of an environment with anomalib; made when missing, renewed when asked.

    Uses uv and the package index that uv is set to. Ends the program with uv's message when that fails.
    """
    python = folder() / ".venv" / "bin" / "python"
    done = folder() / "installed.json"
    pins = [f"{name}=={version}" for name, version in versions(*SHARED).items() if name != "python"]
    if not upgrade and python.is_file() and done.is_file() and read_json(done) == pins:
        return python
    uv = Path(sys.executable).with_name("uv")
    folder().mkdir(parents=True, exist_ok=True)
    if not python.is_file():
        _call([str(uv), "venv", "--quiet", "--python", sys.executable, str(folder() / ".venv")])
    renewed = ["--upgrade-package", "anomalib"]
    _call([str(uv), "pip", "install", "--quiet", "--python", str(python), *renewed, "anomalib", *pins])
    write_json(done, pins)
    return python


def installed(python: Path) -> dict[str, str]:
    """The versions of anomalib's environment."""
    names = ["anomalib", "lightning", *SHARED]
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names}}}))"
    found: dict[str, str] = json.loads(_call([str(python), "-c", code]))
    return found


def _call(command: list[str]) -> str:
    """Run a command and give what it printed; its failure ends the benchmark with what it said."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{answer.stderr.strip()}")
    return answer.stdout


def weights() -> Path:
    """Where the backbone's weights lie for anomalib's side, once :func:`write_weights` wrote them."""
    return folder() / "tf_efficientnet_lite0.safetensors"


def write_weights(_: dict[str, Any]) -> dict[str, Any]:
    """Write the default ImageNet weights as a file that anomalib's side can load: a worker's job."""
    from safetensors.torch import save_file

    from data.files import atomic_path
    from training.weights import lite0_state

    if not weights().is_file():
        with atomic_path(weights()) as temporary:
            save_file({key: value.contiguous() for key, value in lite0_state().items()}, temporary)
    return {}


def environment(threads: int) -> dict[str, str]:
    """The variables of a contender: its threads, and nothing that phones home or draws bars."""
    quiet = {"TQDM_DISABLE": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **dict.fromkeys(THREADS, str(threads)), **quiet}


def run(python: Path | None, task: str, job: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Do one job in a fresh process and give what it wrote.

    ``python`` is anomalib's interpreter, or ``None`` for this project's side. Ends the program with the
    process's own last lines when it fails.
    """
    command = _command(python, task)
    answer = subprocess.run(
        command,
        input=json.dumps({**job, "threads": threads}) + "\n",
        env=environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = answer.stdout.strip().splitlines()
    if answer.returncode or not lines:
        sys.exit(f"{' '.join(command)} failed:\n{answer.stderr.strip()[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


class Kept:
    """A contender that stays: one line of JSON in, one line out."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.process, self.errors = process, errors
        #: What it said when it was ready.
        self.first: dict[str, Any] = {}

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send one message and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            sys.exit(f"A contender ended:\n{self.errors.read().strip()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def keep(python: Path | None, task: str, job: Mapping[str, Any], threads: int) -> Iterator[Kept]:
    """Start a contender that answers until the block ends; its first answer has been read."""
    # A file, since a pipe that nobody reads would stop the contender when it is full.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            _command(python, task),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(threads),
            text=True,
        )
        try:
            kept = Kept(process, errors)
            kept.first = kept.ask({**job, "threads": threads})
            yield kept
        finally:
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _command(python: Path | None, task: str) -> list[str]:
    # -P keeps the benchmark's own folder from hiding modules that anomalib imports.
    if python is not None:
        return [str(python), "-P", str(CONTENDER), task]
    return [sys.executable, "-m", "benchmarks.anomaly.worker", task]
