"""A process that migrates an empty database and kills itself after so many statements.

``python -m tests.integration.gateway.migrator DATABASE STATEMENTS``
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from serving.gateway.store import Store, migrate


def main() -> None:
    """Migrate, and die on the way."""
    database, count = sys.argv[1], int(sys.argv[2])
    store = Store(database)
    done = 0

    def counted(*args: Any) -> None:
        nonlocal done
        if str(args[2]).lstrip().upper().startswith(("CREATE", "INSERT")):
            done += 1
            if done == count:
                print(f"dying after: {args[2]}"[:60], flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(store.engine, "after_cursor_execute", counted)
    migrate.upgrade(store)
    print(f"whole after {done}", flush=True)


if __name__ == "__main__":
    main()
