"""The options that predictor and transformer share as processes, and what every process of ours sets up."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from serving.source import Source, open_source

MOUNT = Path("/mnt/models")

_LINE = "%(asctime)s %(levelname)s %(name)s %(message)s"


def parser(description: str) -> argparse.ArgumentParser:
    """The options. In a pod nothing has to be said: one bundle is mounted where KServe puts it."""
    options = argparse.ArgumentParser(description=description, allow_abbrev=False)
    options.add_argument("--root", type=Path, help="serving root: follow every promoted task in it")
    options.add_argument("--bundle", type=Path, help=f"serve one bundle's folder (default: {MOUNT})")
    options.add_argument(
        "--model-version", default=os.environ.get("MODEL_VERSION"), help="one bundle's version"
    )
    # A pod learns from its service's annotations that it is a challenger's (an absent one gives "").
    options.add_argument(
        "--challenger-mode",
        choices=["", "shadow", "share"],
        default=os.environ.get("MODEL_MODE", ""),
        help="one bundle answers beside a champion, as <task>-challenger",
    )
    options.add_argument(
        "--challenger-share",
        type=float,
        default=os.environ.get("MODEL_SHARE") or "0",
        help="how much of the requests it is to be asked, 0 to 1",
    )
    options.add_argument(
        "--linger-s", type=float, default=10.0, help="how long a challenger that was withdrawn still answers"
    )
    # KServe's own spelling of the ports, which its controller and its documents use.
    options.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a pod")
    options.add_argument("--http_port", "--http-port", type=int, default=8080)
    options.add_argument("--grpc_port", "--grpc-port", type=int, default=8081)
    options.add_argument("--max-body-mb", type=int, default=64, help="largest request body, in MiB")
    options.add_argument("--grace-s", type=float, default=30.0, help="time for what is in flight at a stop")
    options.add_argument("--poll-s", type=float, default=1.0, help="how often the pointers are read")
    options.add_argument("--die-with-parent", action="store_true", help="stop when the starting process ends")
    # KServe's controller adds these to a container's arguments.
    options.add_argument("--model_name", help=argparse.SUPPRESS)
    return options


def source_of(options: argparse.Namespace) -> Source:
    """What to serve, by the options."""
    bundle = options.bundle
    if options.root is None and bundle is None:
        bundle = MOUNT
    return open_source(
        options.root, bundle, options.model_version, options.challenger_mode, options.challenger_share
    )


def set_up(options: argparse.Namespace) -> None:
    """Logging to standard error, never with images or their paths; and an end with the parent where asked."""
    logging.basicConfig(level=logging.INFO, format=_LINE, stream=sys.stderr)
    # KServe's choice of a response class, which it makes again at every start.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    logging.getLogger("kserve").setLevel(logging.WARNING)
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)
    # It tells of every instruction set that it was not built for.
    logging.getLogger("faiss").setLevel(logging.WARNING)
    if options.die_with_parent:
        parent = os.getppid()
        # Linux's own notice of a parent's death, kill -9 included: PR_SET_PDEATHSIG is 1.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if parent != os.getppid():
            sys.exit("the starting process ended")
