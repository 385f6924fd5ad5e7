"""How much memory large uploads take in the gateway, and how soon it ends with bodies that never come.

Run: ``python -m benchmarks.gateway_load [--uploads 64] [--mb 20] [--stalled 32] [--out FILE.csv]``.

A gateway's process with a store of its own (SQLite, a folder of images) is sent photographs of ``--mb`` MB,
all at once, by several clients: with the bound on what requests hold at once, the same with photographs that
are damaged, and with the bound raised above all of them. Then each of ``--stops`` gateways gets SIGTERM while
``--stalled`` requests have sent half of their bodies and send no more.

- ``peak_rss_mb``: the most that the gateway's process and its children had in memory, looked at every 20 ms;
  ``idle_rss_mb`` is before the first upload. The clients are in another process.
- ``answers``: how many of each status. 413, 429 and 503 are answers; ``lost`` are connections that ended
  without one.
- ``seconds``: of the uploads until the last answer; of a stop from the signal to the end of the process.

Exits with 1 where a connection was lost, an upload had another status than 201 (damaged: 422), 413, 429 or
503, or a stop took longer than the gateway's own bound on it.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.gateway.running import Gateway, gateway, tokens
from data.files import atomic_path
from data.progress import track
from data.provenance import hardware, versions
from data.synthetic.drawing import draw, plan

OUT = Path(__file__).parent / "results" / "gateway_load.csv"
#: No model is asked: nothing listens where one would be.
NOWHERE = "http://127.0.0.1:9"
MB = 10**6
_LOOK_S = 0.02
_PIECE = bytes(2**16)
#: What a gateway may say to an upload besides taking it.
_NOT_NOW = {"413", "429", "503"}
#: The gateway's own bound on a stop, see docs/gateway.md.
_STOP_S = 35.0
#: Connections that end without an answer are counted under this.
_LOST = "lost"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, judge."""
    given = _parser().parse_args(argv)
    rows = []
    bound = f"{given.held_mib} MiB"
    bytes_of = {bound: given.held_mib * 2**20, "none": 4 * given.uploads * given.mb * MB}
    for name, sound in ((bound, True), (bound, False), ("none", True)):
        held = bytes_of[name]
        row = uploads(held, count=given.uploads, mb=given.mb, clients=given.clients, sound=sound)
        rows.append({"step": "uploads" if sound else "damaged uploads", "bound": name, **row})
        _print(rows[-1])
    if given.stops:
        rows.append({"step": "stop", **stops(given.stops, stalled=given.stalled, clients=given.clients)})
        _print(rows[-1])
    _write(given.out, rows)
    return 0 if all(row["met"] for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gateway_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--uploads", type=_count(1), default=64, help="how many at once (64)")
    parser.add_argument("--mb", type=_count(1), default=20, help="size of each, in MB of 10^6 bytes (20)")
    parser.add_argument("--clients", type=_count(1), default=4, help="that the uploads are of (4)")
    parser.add_argument("--held-mib", type=_count(1), default=256, help="the bound, in MiB (256)")
    parser.add_argument("--stalled", type=_count(1), default=32, help="bodies that never come (32)")
    parser.add_argument("--stops", type=_count(0), default=3, help="gateways that are stopped (3)")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go")
    return parser


def _count(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"at least {least}")
        return int(text)

    return count


def uploads(held: int, *, count: int, mb: int, clients: int, sound: bool = True) -> dict[str, Any]:
    """Send so many photographs at once to a gateway whose requests hold ``held`` bytes at most."""
    told = {
        "GATEWAY_MAX_HELD_BYTES": str(held),
        "GATEWAY_MAX_IMAGE_BYTES": str(max(mb * MB, 20 * 2**20)),
        "GATEWAY_MAX_BODY_BYTES": str(max(mb * MB, 25 * 2**20)),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(Path(folder), NOWHERE, "none", systems="v1", told=told) as running,
    ):
        known = tokens(running, clients)
        start = threading.Barrier(count)
        with Memory(running.pid) as memory, ThreadPoolExecutor(count) as threads:
            idle = memory.peak
            began = time.perf_counter()
            head = photograph() if sound else photograph()[:20]
            sent = [
                threads.submit(_send, running, known[n % clients], n, head, mb * MB, start)
                for n in range(count)
            ]
            answers = _counted(sent, "Uploads" if sound else "Damaged uploads")
            took = time.perf_counter() - began
    return {
        "count": count,
        "mb": mb,
        "clients": clients,
        "idle_rss_mb": round(idle / MB),
        "peak_rss_mb": round(memory.peak / MB),
        **_told(answers),
        "seconds": round(took, 1),
        "met": set(answers) <= {"201" if sound else "422", *_NOT_NOW},
    }


def _counted(sent: list[Future[str]], title: str) -> Counter[str]:
    return Counter(future.result() for future in track(as_completed(sent), title, len(sent)))


def _send(running: Gateway, token: str, number: int, head: bytes, size: int, start: threading.Barrier) -> str:
    """The status of one upload. It is made while it is sent: all of them would be large here too."""
    # Another content each: bytes behind a JPEG's end are nobody's.
    head += number.to_bytes(4, "big")

    def body() -> Iterator[bytes]:
        yield head
        left = size - len(head)
        while left > 0:
            yield _PIECE[:left]
            left -= len(_PIECE)

    headers = {"x-api-key": token, "content-type": "image/jpeg", "content-length": str(size)}
    with httpx.Client(base_url=running.url, timeout=180, trust_env=False) as client:
        start.wait()
        try:
            return str(client.post("/v1/images", content=body(), headers=headers).status_code)
        except httpx.TransportError:
            return _LOST


def photograph() -> bytes:
    """A small one."""
    return draw(next(iter(plan("lesion", 1, size=64))))


class Memory:
    """Looks at the memory of a process and its children while its block lasts. ``peak`` is in bytes."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self.peak = 0

    def __enter__(self) -> Memory:
        self._note()
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self._note()

    def _note(self) -> None:
        size = 0
        with contextlib.suppress(psutil.Error):
            for process in (self._root, *self._root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    size += process.memory_info().rss
        self.peak = max(self.peak, size)


def stops(rounds: int, *, stalled: int, clients: int) -> dict[str, Any]:
    """Stop so many gateways, one after the other, in each of which bodies stall."""
    times: list[float] = []
    answers: Counter[str] = Counter()
    for _ in track(range(rounds), "Stops"):
        took, said = stop(stalled=stalled, clients=clients)
        times.append(took)
        answers += said
    return {
        "count": stalled,
        "clients": clients,
        "stops": rounds,
        **_told(answers),
        "seconds": round(statistics.median(times), 1),
        "worst_seconds": round(max(times), 1),
        "met": set(answers) <= _NOT_NOW and max(times) < _STOP_S,
    }


def stop(*, stalled: int, clients: int) -> tuple[float, Counter[str]]:
    """Seconds from SIGTERM to the end of a gateway's process, and what the stalled requests were told."""
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(Path(folder), NOWHERE, "none", systems="v1") as running,
        contextlib.ExitStack() as open_,
    ):
        known = tokens(running, clients)
        waiting = [
            open_.enter_context(_half_sent(running.url, known[number % clients])) for number in range(stalled)
        ]
        # This question is in flight too.
        while _in_flight(running.url) <= stalled:
            time.sleep(_LOOK_S)
        began = time.perf_counter()
        os.kill(running.pid, signal.SIGTERM)
        # Not reaped here: whoever started it does that.
        while os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            time.sleep(_LOOK_S)
        took = time.perf_counter() - began
        return took, Counter(map(_status, waiting))


def _half_sent(url: str, token: str) -> socket.socket:
    at = urlsplit(url)
    connection = socket.create_connection((at.hostname or "", at.port or 80), timeout=60)
    head = f"POST /v1/images HTTP/1.1\r\nHost: x\r\nx-api-key: {token}\r\nContent-Type: image/jpeg\r\n"
    connection.sendall(f"{head}Content-Length: {2 * len(_PIECE)}\r\n\r\n".encode() + _PIECE)
    return connection


def _in_flight(url: str) -> int:
    lines = httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text.splitlines()
    return int(
        float(next(line.split()[1] for line in lines if line.startswith("retiderm_gateway_in_flight ")))
    )


def _status(connection: socket.socket) -> str:
    """Of what came before the connection's end."""
    said = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(2**16):
            said += piece
    line = said.split(b"\r\n")[0].split()
    return line[1].decode("ascii", "replace") if len(line) > 1 else _LOST


def _told(answers: Counter[str]) -> dict[str, Any]:
    statuses = {name: number for name, number in sorted(answers.items()) if name != _LOST}
    return {"answers": json.dumps(statuses), "lost": answers[_LOST]}


def _print(row: dict[str, Any]) -> None:
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    machine = {**hardware(), **versions("fastapi", "starlette", "uvicorn", "h11", "httptools")}
    columns = dict.fromkeys([*(name for row in rows for name in row), *machine])
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
