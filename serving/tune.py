"""``retiderm tune``: time the installed runtimes on a bundle's precisions; keep the fastest right one."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from data.errors import RetidermError, ServingError, UsageError
from data.provenance import cpu_quota, hardware
from serving.core.bundle import GOLDEN, Bundle
from serving.core.runtimes import KINDS, Measured, Runtime, Tuned, check_golden, read_tuned, write_tuned
from serving.core.runtimes.kinds import approved, load
from serving.core.runtimes.tuned import WORTH, host_kind, tuned_path

ROUNDS = 50

#: What nobody need think about: used unless something else is faster by more than the clock's noise.
_USUAL = ("onnxruntime", "fp32")
_WARMING = 3

app = typer.Typer(add_completion=False)


def tune(
    bundle: Bundle,
    *,
    precisions: Sequence[str] = (),
    rounds: int = ROUNDS,
    threads: int | None = None,
) -> Tuned:
    """Measure every installed runtime on every approved precision (or those named), and choose.

    A candidate must give the golden answers within its precision's tolerance. They are timed on one
    image, logits alone, in an order drawn anew each round, so that a busy moment falls on all alike.
    Chosen is the lowest median; fp32 with ONNX Runtime unless another is faster by at least a
    twentieth. Nothing is written: see ``write_tuned``.

    Raises:
        UsageError: the bundle is no classifier's.
        BundleError: a named precision isn't approved.
        ServingError: nothing here can run the bundle.
    """
    if bundle.card.kind != "classification":
        raise UsageError(
            f"The model {bundle.card.task!r} is of kind {bundle.card.kind}: ONNX Runtime runs it, in fp32.",
            hint="There is nothing to choose: serve it as it is.",
        )
    names = list(precisions) or [name for name, item in bundle.card.precisions.items() if item.approved]
    if rounds < 1:
        raise UsageError("A measurement needs at least one round.")
    threads = threads or cpu_quota()
    rows: list[Measured] = []
    opened: dict[tuple[str, str], Runtime] = {}
    for name in names:
        item = approved(bundle, name)
        for kind in KINDS.values():
            if not kind.runs(name, item):
                continue
            row, runtime = _try(bundle, kind.name, name, threads)
            rows.append(row)
            if runtime is not None:
                opened[kind.name, name] = runtime
    try:
        times = _times(opened, bundle, rounds)
    finally:
        for runtime in opened.values():
            runtime.close()
    rows = [_timed(row, times.get((row.runtime, row.precision))) for row in rows]
    best = _choose([row for row in rows if row.passed])
    if best is None:
        said = "; ".join(f"{row.runtime} {row.precision}: {row.reason}" for row in rows)
        raise ServingError(
            f"Nothing here can run the bundle of {bundle.card.task!r} ({said or 'no approved precision'}).",
            hint="Install the extra: pip install 'retiderm[edge]', or export the bundle again.",
        )
    return Tuned(
        task=bundle.card.task,
        digest=bundle.digest,
        host=host_kind(),
        hardware=hardware(),
        threads=threads,
        tuned_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        runtime=best.runtime,
        precision=best.precision,
        version=best.version,
        table=tuple(rows),
    )


def _try(bundle: Bundle, kind: str, precision: str, threads: int) -> tuple[Measured, Runtime | None]:
    """Load and check one candidate; a row without times, and the runtime where it is a candidate."""
    item = bundle.card.precisions[precision]
    row = Measured(kind, precision, bytes=bundle.card.files[item.file].bytes, tolerance=item.tolerance)
    runtime: Runtime | None = None
    try:
        if not KINDS[kind].installed:
            raise ServingError("It is not installed.")
        runtime = load(KINDS[kind], bundle, precision, threads)
        result = check_golden(runtime, bundle)
    except RetidermError as error:
        version = runtime.name if runtime is not None else ""
        if runtime is not None:
            runtime.close()
        return dataclasses.replace(row, version=version, reason=error.message), None
    return (
        dataclasses.replace(
            row,
            version=runtime.name,
            max_difference=result.max_difference,
            labels_changed=result.labels_changed,
            passed=True,
        ),
        runtime,
    )


def _times(
    opened: dict[tuple[str, str], Runtime], bundle: Bundle, rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each candidate in each round."""
    image = bundle.arrays(GOLDEN)["images"][:1]
    rng = np.random.default_rng(0)
    keys = list(opened)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    for number in range(rounds + _WARMING):
        for index in rng.permutation(len(keys)):
            key = keys[index]
            started = time.perf_counter()
            opened[key].run(image, ("logits",))
            if number >= _WARMING:
                times[key].append((time.perf_counter() - started) * 1e3)
    return times


def _timed(row: Measured, times: Sequence[float] | None) -> Measured:
    if not times:
        return row
    median, p95 = np.quantile(times, [0.5, 0.95])
    return dataclasses.replace(row, median_ms=round(float(median), 3), p95_ms=round(float(p95), 3))


def _choose(candidates: Sequence[Measured]) -> Measured | None:
    def median(row: Measured) -> float:
        return float("inf") if row.median_ms is None else row.median_ms

    if not candidates:
        return None
    best = min(candidates, key=median)
    usual = next((row for row in candidates if (row.runtime, row.precision) == _USUAL), None)
    return usual if usual is not None and median(best) > WORTH * median(usual) else best


@app.command("tune")
def command(
    task: Annotated[str | None, typer.Argument(help="A promoted task.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="One bundle's folder instead.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Serving root of the task. Default: RETIDERM_HOME/serving.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="Only this one; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = ROUNDS,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of an inference. Default: the CPU quota.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show what is kept; measure nothing.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget it: fp32 with ONNX Runtime again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Choose what runs a model on this kind of machine, by measuring it.

    Times each installed runtime (ONNX Runtime, OpenVINO, TFLite) on each precision that the export
    approved, leaves out those that don't give the bundle's golden answers, and keeps the fastest under
    RETIDERM_HOME/tuned. Predictors take it at their next start.
    """
    from data.paths import home

    opened = _open(task, bundle, root or home().serving)
    if forget:
        tuned_path(opened.digest).unlink(missing_ok=True)
        typer.echo(f"{opened.card.task}: fp32 with ONNX Runtime.")
        return
    if show:
        kept = read_tuned(opened.digest)
        if kept is None:
            raise UsageError(
                f"{opened.card.task} was not tuned on this kind of machine.",
                hint=f"Tune it: retiderm tune {opened.card.task}.",
            )
        _print(kept, as_json)
        return
    found = tune(opened, precisions=precision or (), rounds=rounds, threads=threads)
    path = write_tuned(found)
    _print(found, as_json)
    if not as_json:
        typer.echo(f"kept: {path}")


def _open(task: str | None, bundle: Path | None, root: Path) -> Bundle:
    from serving.offline import find_served

    if task is not None and bundle is not None:
        raise UsageError("Name either a task or --bundle.")
    return find_served(None if bundle is not None else root, bundle, task).open(verify=True)


def _print(tuned: Tuned, as_json: bool) -> None:
    if as_json:
        import json

        typer.echo(json.dumps(tuned.to_dict(), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{tuned.task} {tuned.digest[7:19]}, {tuned.threads} threads", title_justify="left")
    for column in ("precision", "runtime", "median ms", "p95 ms", "MB", "off golden", ""):
        table.add_column(column, justify="right" if column.endswith(("ms", "MB", "golden")) else "left")
    for row in tuned.table:
        chosen = (row.runtime, row.precision) == (tuned.runtime, tuned.precision)
        table.add_row(
            row.precision,
            row.version or row.runtime,
            _number(row.median_ms, "{:.2f}"),
            _number(row.p95_ms, "{:.2f}"),
            f"{row.bytes / 1e6:.1f}",
            _number(row.max_difference, "{:.1e}"),
            "chosen" if chosen else (row.reason or ""),
            style="bold" if chosen else ("" if row.passed else "dim"),
        )
    Console().print(table)


def _number(value: float | None, how: str) -> str:
    return "" if value is None else how.format(value)


def register(parent: typer.Typer) -> None:
    """Add the command to another command line."""
    parent.command("tune")(command)
