"""Every speed benchmark in turn: ``python -m benchmarks [NAME...]``; each writes its CSV to ``results/``.

The quality of the models on real sets takes hours and needs the sets: see ``python -m benchmarks.quality``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MODULES = ("preprocess", "gradcam", "training", "ingest", "serving")


def main() -> int:
    """Run the named ones, or all, each in a process of its own; 1 if any failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *MODULES], metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--ingest", metavar="KIND:PATH", help="the images that the ingest is timed on")
    given = parser.parse_args()
    names = given.names or MODULES
    options = {"ingest": [given.ingest, "--csv", str(RESULTS / "ingest.csv")]}
    failed = []
    for name in names:
        if name == "ingest" and not given.ingest:
            print("== benchmarks.ingest left out: name the images to time it on with --ingest KIND:PATH")
            continue
        print(f"== benchmarks.{name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options.get(name, [])]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
