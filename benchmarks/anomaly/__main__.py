"""PatchCore side by side with anomalib's current release, in one run: coreset, ``/infer``, AUROC.

Run::

    python -m benchmarks.anomaly --mvtec /data/mvtec/screw --more /data/ham10000/images

Three parts, each of which can be run alone with ``--parts``: ``coreset`` (35k, 200k and a million patches;
a plain loop and anomalib's ``KCenterGreedy`` beside ours), ``latency`` (a warm ``/infer`` at 448, a row a
step) and ``quality`` (AUROC). Results go to ``benchmarks/results/anomaly.json``, ``anomaly.csv`` (every
figure) and ``anomaly_points.csv`` (pass or fail of each thing that must hold); a part that is not run keeps
what is stored of it. Ends with 1 when a point fails.

anomalib is installed into an environment of its own by the first run. Its pretrained weights would come from
the hub; it gets this project's default ones (EfficientNet-Lite0) as a file instead, with the normalisation
that belongs to them. ``--small`` shows in a minute or two that everything works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.anomaly import environment
from benchmarks.anomaly.parts import PARTS, SMALL, Run, Scale
from benchmarks.anomaly.records import merge, section, write
from benchmarks.anomaly.tables import tables
from data.files import read_json
from data.provenance import cpu_quota

OUT = Path(__file__).parents[1] / "results" / "anomaly.json"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.anomaly",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--mvtec", type=Path, metavar="DIR", help="an object of the MVTec layout")
    add("--more", type=Path, nargs="*", default=[], metavar="DIR", help="other photographs, for the coreset")
    add("--parts", nargs="*", choices=tuple(PARTS), default=tuple(PARTS))
    add("--threads", type=int, default=cpu_quota(), help="of every contender")
    add("--rounds", type=int, help="of each of the coreset's cases")
    add("--small", action="store_true", help="a short try; writes below RETIDERM_HOME/bench")
    add("--upgrade", action="store_true", help="install anomalib's current release anew")
    add("--out", type=Path, help=f"the JSON; default: {OUT.relative_to(OUT.parents[2])}")
    add("--table", action="store_true", help="print what is stored as tables, and measure nothing")
    return parser


def main() -> int:
    """Measure the parts that are asked for; 1 when a point fails."""
    parser = arguments()
    given = parser.parse_args()
    out = given.out or (environment.folder() / "small.json" if given.small else OUT)
    if given.table:
        if not out.is_file():
            parser.error(f"{out.name} is not there: measure first.")
        print(tables(read_json(out)))
        return 0
    if given.mvtec is None:
        parser.error("Name the images: --mvtec DIR, an object of the MVTec layout.")
    began = time.monotonic()
    scale = SMALL if given.small else Scale()
    if given.rounds:
        few, many, most = ((size[0], given.rounds) for size in (scale.few, scale.many, scale.most))
        scale = replace(scale, few=few, many=many, most=most)
    python = environment.install(upgrade=given.upgrade)
    theirs = environment.installed(python)
    if not environment.weights().is_file():
        environment.run(None, "weights", {}, given.threads)
    failed = 0
    with tempfile.TemporaryDirectory(dir=environment.folder()) as work:
        what = Run(given.mvtec, given.more, scale, given.threads, python, Path(work), began)
        what.say(f"anomalib {theirs['anomalib']}, {given.threads} threads each")
        for name in given.parts:
            part = PARTS[name](what)
            failed += sum(not point.passed for point in part.points)
            # Written part by part: what has been measured outlives a later failure.
            files = write(out, merge(out, {name: section(part, given.threads, theirs)}))
        what.say(f"{failed} points failed. Written: {', '.join(map(str, files))}")
    if given.small:
        print("These figures mean nothing: --small shows only that everything works.")
        return 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
