"""A process that uploads images until it is killed, and says each id that it would have acknowledged.

``python -m tests.integration.gateway.uploader DATABASE FOLDER TENANT [WHERE]``; with ``WHERE`` it kills
itself at that place: ``bytes`` (they are safe, no transaction yet), ``row`` (before the commit), ``commit``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from serving.gateway.blobs import keep
from serving.gateway.store import Store
from tests.gateway_rows import folder_blobs, image_of


def main() -> None:
    """Upload until the end."""
    database, folder, tenant, *where = sys.argv[1:]
    store, blobs = Store(database), folder_blobs(Path(folder))

    def die(place: str) -> None:
        if where == [place]:
            os.kill(os.getpid(), signal.SIGKILL)

    for n in range(100_000):
        kept = keep(blobs, tenant, f"{os.getpid()}-{n}".encode() * 2000, "image/png")
        die("bytes")
        with store.write(tenant, "uploader") as scope:
            image = image_of(scope, kept)
            scope.audit("image.add", f"image:{image.id}")
            die("row")
        die("commit")
        print(image.id, flush=True)


if __name__ == "__main__":
    main()
