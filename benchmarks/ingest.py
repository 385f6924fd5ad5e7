"""How fast a source becomes a dataset, and in how much memory.

    python -m benchmarks.ingest ham10000:PATH --csv benchmarks/results/ingest.csv

Each repetition is a process of its own with an empty store, so that nothing is warm but the page cache and
the peak memory is that of one ingest. The bound: 400 images/s or more from 200x150 JPEG on 2 cores, and less
than 1 GB.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data.provenance import code_digest, hardware, versions

HEADS = {
    "ham10000": {"diagnosis": ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]},
    "synthetic-lesion": {"diagnosis": ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]},
}
GRADES = {"grade": ["no_dr", "mild", "moderate", "severe", "proliferative"]}
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pandas", "pyarrow")


def one(spec: str, folder: Path) -> dict[str, float]:
    """Ingest once, here; called in a process of its own."""
    from data.dataset import Head
    from data.ingest import ingest

    heads = [Head(name, tuple(classes)) for name, classes in HEADS.get(spec.split(":")[0], GRADES).items()]
    started, cpu = time.perf_counter(), time.process_time()
    made = ingest(spec, heads, folder / "dataset", task="benchmark", store=folder / "store")
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    frame = made.frame()
    return {
        "images": len(frame),
        "median_megapixels": round(float((frame["width"] * frame["height"]).median()) / 1e6, 3),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "images_per_second": round(len(frame) / seconds),
        "peak_rss_mib": round(peak),
    }


def main() -> None:
    """Read the command line, measure, print, write the CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", nargs="+", help="sources, KIND:PATH each")
    parser.add_argument("--csv", type=Path, help="write the table here")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder to work in (default: the system's temporary one)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(one(options.spec[0], options.work)))
        return
    machine = {**hardware(), **{f"version_{name}": value for name, value in versions(*LIBRARIES).items()}}
    rows = []
    for spec in options.spec:
        for repetition in range(options.repeat):
            folder = Path(tempfile.mkdtemp(dir=options.work, prefix="ingest-"))
            try:
                command = [sys.executable, "-m", "benchmarks.ingest", spec, "--child", "--work", str(folder)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            finally:
                shutil.rmtree(folder)
            measured = json.loads(done.stdout.splitlines()[-1])
            row = {
                "date": datetime.date.today().isoformat(),
                "source": spec.partition(":")[0],
                "repetition": repetition + 1,
                **measured,
                "bound_images_per_second": 400,
                "bound_peak_rss_mib": 1024,
                **machine,
                "code_digest": code_digest("data"),
            }
            rows.append(row)
            print({name: row[name] for name in ("source", *measured)}, flush=True)
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
