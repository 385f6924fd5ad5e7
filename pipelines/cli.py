"""The ``retiderm`` command.

Each subcommand lives beside the code that it calls. Only the one that is asked for is imported, so that
``retiderm --help`` answers at once and the serving image needs neither torch nor kfp.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from data.errors import CheckFailed, RetidermError, StepFailed, UsageError

_SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a subcommand lives: ``module:app``; ``single`` takes one command out of that app."""

    module: str
    help: str
    panel: str
    extra: str
    single: bool = False


_LINE, _LOOK, _SERVE, _CLUSTER = "The line", "Look and decide", "Serve", "Kubeflow"


def _pipeline(module: str, help: str, panel: str) -> Mount:
    return Mount(f"pipelines.commands.{module}", help, panel, "pipelines", single=True)


COMMANDS: dict[str, Mount] = {
    "run": _pipeline("run", "Train, check, register and promote a model from a source of images.", _LINE),
    "demo": _pipeline(
        "demo", "The whole line on made-up images: train two models, serve them, ask them.", _LINE
    ),
    "data": Mount("data.cli", "Sources, canonical datasets, checks and the quality gate.", _LOOK, "train"),
    "tasks": Mount(
        "pipelines.commands.tasks", "The tasks: what is predicted, with which settings.", _LOOK, "train"
    ),
    "train": Mount("training.cli", "Fit and judge on a dataset folder, without a pipeline.", _LOOK, "train"),
    "models": Mount(
        "training.registry.cli",
        "Versions: list, compare, approve, promote, roll back, verify.",
        _LOOK,
        "train",
    ),
    "serve": Mount(
        "serving.cli",
        "Serve what is promoted on this machine: KServe V1, V2, gRPC, and the REST of apps.",
        _SERVE,
        "serving",
        single=True,
    ),
    "gateway": Mount(
        "serving.cli",
        "The REST services of apps alone, over models served elsewhere.",
        _SERVE,
        "gateway",
        single=True,
    ),
    "token": Mount("serving.gateway.cli", "API keys and bearer tokens for the gateway.", _SERVE, "gateway"),
    "predict": Mount("serving.cli", "Ask a served model about one image.", _SERVE, "serving", single=True),
    "tune": Mount(
        "serving.tune", "Measure which runtime is fastest here, and use it.", _SERVE, "serving", single=True
    ),
    "anomaly": Mount(
        "pipelines.commands.anomaly",
        "PatchCore over HTTP: serve it for existing clients, and make its extractor.",
        _SERVE,
        "pipelines",
    ),
    "drift": Mount(
        "training.drift.cli",
        "Whether images, answers or labels have moved away from what a model knows.",
        _LOOK,
        "train",
    ),
    "loop": Mount(
        "pipelines.commands.loop",
        "Labels from review: what they come to, and retraining.",
        _LOOK,
        "pipelines",
    ),
    "compile": _pipeline("cluster", "Write the pipelines as YAML for Kubeflow.", _CLUSTER),
    "submit": _pipeline("cluster", "Send a pipeline to Kubeflow, once or on a schedule.", _CLUSTER),
}

_HELP = """From labelled photographs of retinas and skin to checked, calibrated, explained answers.

\bA first look, with made-up images (about 4 minutes on two cores):
  retiderm demo

\bYour own images, then serve what the gate accepted and ask it:
  retiderm run dr_grading --data aptos:/data/aptos2019
  retiderm serve &
  retiderm predict eye.jpg --task dr_grading --explain why.png

Everything made is kept under RETIDERM_HOME (./var when not set)."""


def build(chosen: str | None) -> typer.Typer:
    """The command line with the chosen subcommand mounted for real and the others as their one-line help."""
    app = typer.Typer(
        name="retiderm",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    ) -> None:
        pass  # --debug is taken from the line by main(), so that it works in any place.

    for name, mount in COMMANDS.items():
        if name == chosen:
            _mount(app, name, mount)
        else:
            app.command(name, help=mount.help, rich_help_panel=mount.panel)(_stub)

    @app.command("version", help="This version, and those of what it stands on.", rich_help_panel=_LOOK)
    def version() -> None:
        from data.provenance import versions

        names = (
            "retiderm",
            "kfp",
            "kserve",
            "mlflow",
            "torch",
            "timm",
            "onnxruntime",
            "opencv-python-headless",
        )
        for name, value in versions(*names).items():
            typer.echo(f"{name:24} {value}")

    return app


def _stub() -> None:
    raise AssertionError("only the chosen subcommand is ever called")


def _mount(app: typer.Typer, name: str, mount: Mount) -> None:
    sub: typer.Typer = importlib.import_module(mount.module).app
    for command in sub.registered_commands:
        if command.help is None and command.callback is not None:
            command.help = reflow(command.callback.__doc__ or "")
    if not mount.single:
        app.add_typer(sub, name=name, help=mount.help, no_args_is_help=True, rich_help_panel=mount.panel)
        return
    for command in sub.registered_commands:
        if command.name == name or (command.callback is not None and command.callback.__name__ == name):
            command.name = name
            command.rich_help_panel = mount.panel
            app.registered_commands.append(command)
            return
    raise AssertionError(f"{mount.module} has no command {name!r}")


def reflow(text: str) -> str:
    """A docstring with each paragraph on one line: typer would keep its line breaks in a narrower window.

    Paragraphs that begin with ``\\b``, and lists, stay as they are.
    """
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(
        paragraph if re.search(r"^(\x08|\s|-)", paragraph, re.MULTILINE) else " ".join(paragraph.split())
        for paragraph in paragraphs
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits 0, 1 (it failed), 2 (wrongly asked) or 130 (interrupted)."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    debug = bool(os.environ.get("RETIDERM_DEBUG"))
    ours = line[: line.index("--")] if "--" in line else line
    if "--debug" in ours:
        line.remove("--debug")
        debug = True
        os.environ["RETIDERM_DEBUG"] = "1"
    chosen = next((word for word in line if not word.startswith("-")), None)
    try:
        build(chosen)(args=line, prog_name="retiderm")
    except RetidermError as error:
        if debug:
            raise
        report(error)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if (
            debug
            or chosen not in COMMANDS
            or missing in {"data", "training", "components", "pipelines", "serving"}
        ):
            raise
        extra = COMMANDS[chosen].extra
        report(
            UsageError(
                f"`retiderm {chosen}` needs {missing!r}, which is not installed.",
                hint=f"Install the extra: pip install 'retiderm[{extra}]'.",
            )
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def report(error: RetidermError) -> None:
    """Say on standard error what happened and what to do next."""
    where = f"step {error.step}: " if isinstance(error, StepFailed) else ""
    print(f"error: {where}{error.message}", file=sys.stderr)
    for line in _shown(error.rows if isinstance(error, CheckFailed) else ()):
        print(f"  {line}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def _shown(rows: Sequence[str]) -> Iterator[str]:
    """The first rows of each check (``size: a.png: …``), so that many of one kind don't hide another."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row.partition(": ")[0] if ": " in row else "", []).append(row)
    for kind, found in kinds.items():
        yield from found[:_SHOWN_ROWS]
        if len(found) > _SHOWN_ROWS:
            yield f"… and {len(found) - _SHOWN_ROWS} more{f' of {kind}' if kind else ''}"


if __name__ == "__main__":
    main()
