"""Memory, and how fast a predictor starts."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.serving.servers import Running, free_port
from benchmarks.serving.table import Table


def measure_process(table: Table, bundle: Path, running: Running) -> None:
    """Rows of memory and of the predictor's start."""
    import httpx
    import psutil

    for name, pid in running.pids.items():
        memory = psutil.Process(pid).memory_info().rss / 2**20
        table.add(f"{name}, resident memory after all of this", value=round(memory), unit="MiB")
    imports, starts = [], []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import kserve"], check=True)
        imports.append(time.monotonic() - started)
        http = free_port()
        ports = ["--http-port", str(http), "--grpc-port", str(free_port())]
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.predictor", "--bundle", str(bundle), *ports],
            stderr=subprocess.DEVNULL,
        )
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{http}/v2/health/ready").status_code == 200:
                    break
            time.sleep(0.02)
        starts.append(time.monotonic() - started)
        memory = psutil.Process(process.pid).memory_info().rss / 2**20
        process.terminate()
        process.wait(60)
    table.add("predictor, resident memory when ready", value=round(memory), unit="MiB")
    table.add("KServe's own import", value=round(statistics.median(imports), 2), unit="s")
    beyond = statistics.median(s - i for s, i in zip(starts, imports, strict=True))
    table.add("predictor, ready after KServe's import", value=round(beyond, 2), unit="s")
