"""``retiderm serve``, ``retiderm gateway`` and ``retiderm predict``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import RetidermError, ServingError, UsageError
from data.paths import home
from serving.core.pointer import FILE as POINTER

if TYPE_CHECKING:
    from rich.console import Console

    from serving.supervise import Endpoints

_GATEWAY_HOST, _GATEWAY_PORT = "127.0.0.1", 8000
# As many regions as a person reads; --json has them all.
_REGIONS = 10

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")

_Root = Annotated[
    Path | None, typer.Option(help="Serving root: every promoted task in it. Default: RETIDERM_HOME/serving.")
]
_Bundle = Annotated[Path | None, typer.Option(help="One bundle's folder instead, whatever is promoted.")]


@app.command()
def serve(
    root: _Root = None,
    bundle: _Bundle = None,
    model_version: Annotated[
        str | None, typer.Option(help="With --bundle: the version that it answers as.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0: every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="REST: KServe V1 and V2.")] = 8080,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC. Default: the next free after --port.")] = None,
    predictor_port: Annotated[int | None, typer.Option(help="The predictor's gRPC, on loopback.")] = None,
    precision: Annotated[
        str,
        typer.Option(help="One of the cards' approved precisions; auto: as retiderm tune chose, else fp32."),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads of an inference. Default: the CPU quota.")
    ] = None,
    grace: Annotated[float, typer.Option(help="Seconds that a stop gives to what is in flight.")] = 30.0,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the addresses here when ready; removed at the stop.")
    ] = None,
    with_gateway: Annotated[
        bool, typer.Option("--gateway/--no-gateway", help="The REST services of apps too, or models alone.")
    ] = True,
    gateway_host: Annotated[
        str | None, typer.Option(help="The gateway's address. BACKSERVER_HOST; default: 127.0.0.1.")
    ] = None,
    gateway_port: Annotated[
        int | None, typer.Option(help="The gateway's port; 0: any. BACKSERVER_PORT; default: 8000.")
    ] = None,
) -> None:
    """Serve what is promoted: predictor, transformer and gateway as processes of this machine, until Ctrl-C.

    A promotion or rollback takes effect within a second, without losing a request. The gateway's first token
    is made at the first start, and shown once; [bold]retiderm token[/bold] makes others. Asked directly, by
    [bold]retiderm predict[/bold] too, models want none: they listen on loopback.
    """
    from serving.supervise import GatewayPlan, ServePlan
    from serving.supervise import serve as run

    if root is None and bundle is None:
        bundle = _old_bundle()
    plan = ServePlan(
        root=None if bundle is not None else (root or home().serving),
        bundle=bundle,
        model_version=model_version,
        host=host,
        port=port,
        grpc_port=grpc_port,
        predictor_port=predictor_port,
        precision=precision,
        threads=threads,
        grace_s=grace,
        ready_file=ready_file,
        gateway=GatewayPlan(
            gateway_host or os.environ.get("BACKSERVER_HOST", "").strip() or _GATEWAY_HOST,
            gateway_port if gateway_port is not None else _old_port(),
        )
        if with_gateway
        else None,
    )
    if root is not None and bundle is not None:
        raise UsageError("Name either --root or --bundle.")
    run(plan, _show, _show_token)


def _show(endpoints: Endpoints) -> None:
    from rich.console import Console

    # Addresses that are wrapped can't be copied.
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold green]ready[/bold green]    {', '.join(endpoints.models)}")
    console.print(f"models   {endpoints.url}/v2/models/{endpoints.models[0]}/infer")
    console.print(f"gRPC     {endpoints.grpc}")
    console.print(f"metrics  {endpoints.url}/metrics and {endpoints.predictor}/metrics")
    if endpoints.gateway is not None:
        console.print(f"gateway  {endpoints.gateway}")
        console.print(f"docs     {endpoints.gateway}/docs")
        if _reviews():
            console.print(f"review   {endpoints.gateway}/review/")


def _reviews() -> bool:
    """Whether the gateway has the readers' page, as its own settings read it."""
    named = [name.strip() for name in os.environ.get("GATEWAY_SYSTEMS", "").split(",")]
    return not any(named) or "review" in named


def _show_token(token: str | None) -> None:
    # As it is: a terminal that wrapped it would break it.
    if token is not None:
        typer.echo(f"token    {token}")
        typer.echo("         an admin's, shown this once; others: retiderm token create NAME")
    else:
        typer.echo("token    there are some already: retiderm token list, create, rotate")


def _old_bundle() -> Path | None:
    """The bundle that S0's and S2's variable names, where nothing is promoted."""
    named = os.environ.get("MODEL_PATH", "").strip()
    if not named or any(home().serving.glob(f"*/{POINTER}")):
        return None
    return Path(named)


def _old_port() -> int:
    text = os.environ.get("BACKSERVER_PORT", "").strip()
    if text and not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise UsageError("BACKSERVER_PORT is not a port.", hint="It is a number from 0 to 65535.")
    return int(text or _GATEWAY_PORT)


@app.command()
def gateway(
    host: Annotated[str | None, typer.Option(help="Address. BACKSERVER_HOST; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0: any. BACKSERVER_PORT; default: 8000.")] = None,
    models: Annotated[
        str | None,
        typer.Option(help="The transformer's REST. GATEWAY_MODELS_URL; default: http://127.0.0.1:8080."),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the address here when ready; removed at the stop.")
    ] = None,
) -> None:
    """The REST services of apps alone, over models that are served elsewhere, until Ctrl-C.

    Everything else is said by the environment; docs/gateway.md names the variables.
    """
    import argparse
    from dataclasses import replace

    from serving.gateway.server import quiet_logs, run
    from serving.gateway.settings import Settings
    from serving.options import set_up

    named: dict[str, Any] = {"host": host, "port": port, "models_url": models}
    settings = replace(Settings.from_env(), **{k: v for k, v in named.items() if v is not None})
    set_up(argparse.Namespace(die_with_parent=False))
    quiet_logs()
    run(settings, ready_file=ready_file)


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="An image file: JPEG, PNG, BMP, WebP, TIFF or GIF.")],
    task: Annotated[
        str | None, typer.Option(help="Which model. Not needed where only one is served.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(help="Write the image with the answer's regions coloured here (PNG).")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Ask this server, as http://127.0.0.1:8080. Default: answer here.")
    ] = None,
    root: _Root = None,
    bundle: _Bundle = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the document instead of a table.")] = False,
) -> None:
    """Ask a model about one image: its quality, the answer and how sure it is, or what is unusual and where.

    Without --url the promoted model answers in this process, by the same code as the server's.
    """
    try:
        data = image.read_bytes()
    except OSError as error:
        raise UsageError(f"Can't read {image}: {error.strerror}.") from None
    if url is not None:
        document, overlay = _online(url, task, data, explain is not None)
    else:
        document, overlay = _offline(root, bundle, task, data, explain is not None)
    if explain is not None and overlay:
        explain.write_bytes(overlay)
    if as_json:
        document.pop("explanation", None)
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _table(image.name, document, explain if overlay else None)


def _online(url: str, task: str | None, data: bytes, explain: bool) -> tuple[dict[str, Any], bytes]:
    from serving.client import ask

    if task is None:
        raise UsageError("A server has several models: choose with --task.")
    reply = ask(url, task, [data], explain="overlay" if explain else "")
    return reply.documents()[0], reply.overlay()


def _offline(
    root: Path | None, bundle: Path | None, task: str | None, data: bytes, explain: bool
) -> tuple[dict[str, Any], bytes]:
    from serving.offline import answer, find_served

    served = find_served(None if bundle is not None else (root or home().serving), bundle, task)
    result = answer(served, data, explain=explain)
    return result.to_dict(), result.overlay or b""


def _table(name: str, document: dict[str, Any], overlay: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    quality, model = document["quality"], document["model"]
    reasons = f" ({', '.join(quality['reasons'])})" if quality["reasons"] else ""
    console.print(f"{name}: [bold]{quality['verdict']}[/bold]{reasons}")
    if quality["verdict"] != "gradable":
        console.print("No answer: the model looks at gradable images only. Take the photograph again.")
    for head, answer in document["heads"].items():
        table = Table(title=head, title_justify="left")
        table.add_column("class")
        table.add_column("probability", justify="right")
        table.add_column("in the set")
        for label, value in sorted(answer["probabilities"].items(), key=lambda item: -item[1]):
            style = "bold" if label == answer["label"] else ""
            table.add_row(label, f"{value:.3f}", "yes" if label in answer["set"] else "", style=style)
        console.print(table)
        if answer["uncertain"]:
            console.print("[yellow]uncertain[/yellow]: a person should look at this one.")
    if "anomaly" in document:
        _show_anomaly(console, document["anomaly"])
    console.print(f"{model['name']} version {model['version']}, {model['precision']}, {model['digest'][:19]}")
    if overlay is not None:
        console.print(f"explanation: {overlay}")


def _show_anomaly(console: Console, anomaly: dict[str, Any]) -> None:
    from rich.table import Table

    threshold = "none: not calibrated" if anomaly["threshold"] is None else f"{anomaly['threshold']:.4g}"
    label = f"[bold]{anomaly['label']}[/bold]  " if anomaly["label"] else ""
    console.print(f"{label}score {anomaly['score']:.4g}, threshold {threshold}")
    if not anomaly["regions"]:
        return
    table = Table(title="regions, in pixels of the photograph", title_justify="left")
    for column in ("x", "y", "width", "height", "area"):
        table.add_column(column, justify="right")
    for region in anomaly["regions"][:_REGIONS]:
        table.add_row(*map(str, region["bbox"]), f"{region['area_px']:.0f}")
    console.print(table)
    if len(anomaly["regions"]) > _REGIONS:
        console.print(f"and {len(anomaly['regions']) - _REGIONS} smaller ones")


def main() -> None:
    """``python -m serving.cli``: exits 0, 1 (it failed) or 2 (wrongly asked)."""
    try:
        app()
    except RetidermError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) and not isinstance(error, ServingError) else 1)


if __name__ == "__main__":
    main()
