"""Every speed benchmark in turn: ``python -m benchmarks [NAME...]``; each writes its figures to ``results/``.

Some need images or a model of yours: without the option that names them they are left out, and said to be.
Not among them, since each takes long or an environment of its own: ``python -m benchmarks.quality`` (``make
bench-quality``), ``python -m benchmarks.anomaly`` (``make bench-anomaly``) and ``python -m benchmarks.loop``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def _nothing(given: Namespace) -> list[str]:
    return []


@dataclass(frozen=True)
class Benchmark:
    """What it measures; which of the options it can't do without; and its own command line, made of them."""

    title: str
    needs: tuple[str, ...] = ()
    arguments: Callable[[Namespace], list[str]] = _nothing


#: By the module's name, in the order in which they run.
BENCHMARKS = {
    "preprocess": Benchmark("an image's preparation"),
    "gradcam": Benchmark("what a map costs beside the answer"),
    "training": Benchmark("a training step"),
    "ingest": Benchmark(
        "a source's way to a dataset", ("ingest",), lambda o: [o.ingest, "--csv", str(RESULTS / "ingest.csv")]
    ),
    "serving": Benchmark("answers over each wire, and under load"),
    "gateway": Benchmark("the gateway's own time, and 64 clients at once"),
    "gateway_load": Benchmark("the gateway's memory under large uploads, and how soon it stops"),
    "review": Benchmark("the review page with 10,000 cases that wait"),
    "runtimes": Benchmark(
        "three backbones on every runtime and precision",
        arguments=lambda o: ["--images", str(o.images)] if o.images else [],
    ),
    "precisions": Benchmark(
        "what int8 costs a trained model",
        ("bundle", "data"),
        lambda o: ["--bundle", str(o.bundle), "--data", str(o.data)],
    ),
    "drift": Benchmark(
        "shifts that must alarm, and draws without one",
        ("bundle", "data"),
        lambda o: ["--bundle", str(o.bundle), "--data", str(o.data)],
    ),
    "face": Benchmark(
        "faces found, landmarks, measures",
        ("faces", "others"),
        lambda o: ["--faces", str(o.faces), "--others", *map(str, o.others)],
    ),
    "scan": Benchmark("a face scan end to end", ("faces",), lambda o: ["--faces", str(o.faces)]),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named ones, or all that can be run, each in a process of its own; 1 if any failed."""
    parser = _parser()
    given = parser.parse_args(argv)
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    failed = []
    for name in given.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        missing = [f"--{option}" for option in benchmark.needs if not getattr(given, option)]
        if missing and given.names:
            parser.error(f"{name} needs {' and '.join(missing)}")
        if missing:
            print(f"== benchmarks.{name} left out: it needs {' and '.join(missing)}", flush=True)
            continue
        print(f"== benchmarks.{name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *benchmark.arguments(given)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    known = "\n".join(f"  {name:<14}{item.title}{_needed(item)}" for name, item in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\nbenchmarks:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="one of the above; all when none is named")
    parser.add_argument("--ingest", metavar="KIND:PATH", help="the images that the ingest is timed on")
    parser.add_argument("--images", type=Path, help="photographs for the runtimes; drawn ones without")
    parser.add_argument("--faces", type=Path, help="photographs that all show a face")
    parser.add_argument("--others", type=Path, nargs="+", help="folders of photographs that show none")
    parser.add_argument("--bundle", type=Path, help="a trained model's bundle")
    parser.add_argument("--data", type=Path, help="the dataset folder that it was trained on")
    return parser


def _needed(item: Benchmark) -> str:
    return f" (needs {', '.join(f'--{option}' for option in item.needs)})" if item.needs else ""


if __name__ == "__main__":
    sys.exit(main())
