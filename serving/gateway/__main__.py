"""``python -m serving.gateway``: the gateway with what its environment says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data.errors import RetidermError, UsageError
from serving.options import set_up


def main() -> int:
    """Serve until SIGTERM or SIGINT. Exits with 1 where it failed, with 2 where it was wrongly asked."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.gateway",
        description="The REST services of apps. docs/gateway.md names the environment's variables.",
    )
    parser.add_argument("--ready-file", type=Path, help="write url and pid here when ready")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the starting process ends")
    options = parser.parse_args()
    set_up(options)
    from serving.gateway.server import leave, quiet_logs, run
    from serving.gateway.settings import Settings

    quiet_logs()
    try:
        if run(Settings.from_env(), ready_file=options.ready_file):
            leave(0)
    except RetidermError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
