"""From a 1 megapixel JPEG to the answer with its overlay: every step, every wire, and under load.

Run: ``python -m benchmarks.serving [--rounds 100] [--seconds 10] [--out FILE.csv]``.

ResNet-50 with random weights (time doesn't depend on them), exported as any other model and served by
``retiderm serve`` on loopback, two processes. In each round every contender has one turn, in an order drawn
anew, so that a busy machine slows all of them alike; ``beyond`` is the median of the differences from the
bare session's time in the same round. Then an open loop: requests come at random at 50, 100 and 200 % of the
measured capacity, whether or not the earlier ones are answered, while health is asked ten times a second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from benchmarks.preprocess import encoded
from benchmarks.serving.bundle import bundle_folder
from benchmarks.serving.load import measure_load
from benchmarks.serving.process import measure_process
from benchmarks.serving.servers import served
from benchmarks.serving.steps import measure_steps
from benchmarks.serving.table import Table
from data.provenance import cpu_quota

OUT = Path(__file__).parent.parent / "results" / "serving.csv"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--no-load", action="store_true", help="the steps only")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    cv2.setNumThreads(1)  # as the transformer does
    bundle = bundle_folder()
    data = encoded("JPEG", 1000, 1000, 92)
    table = Table()
    print(f"1000x1000 JPEG, {len(data)} bytes; ResNet-50 at 224; {cpu_quota()} cores")
    with served(bundle) as running:
        measure_steps(table, bundle, data, running, given.rounds)
        if not given.no_load:
            measure_load(table, data, running, given.seconds)
            measure_process(table, bundle, running)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    table.write(given.out)
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
