"""Windows from the gateway over HTTP, as folders."""

from __future__ import annotations

import shutil
import tempfile
import urllib.parse
import zipfile
import zlib
from pathlib import Path

from data.errors import DataError, UsageError
from data.files import atomic_dir
from serving.core.drift import read_window
from serving.core.drift.folder import ARRAYS, INFO
from training.loop.fetch import take_zip

ROUTE = "/v1/review/drift/window"

#: What the gateway is asked for, each a window's name here: the newest whole one, the one that fills, and
#: what readers say.
WINDOWS = ("newest", "running", "labels")

#: Of what one window unpacks to: a thousand images with embeddings of eight thousand numbers are 32 MiB.
MOST_BYTES = 256 << 20


def is_address(text: str) -> bool:
    """Whether it names a gateway and no folder."""
    return "://" in text


def fetch_windows(address: str, task: str, out: Path) -> list[Path]:
    """A task's windows as folders in ``out``; of those that hold nothing ``newest`` alone.

    ``address`` is the gateway's (``https://…``), which is asked with the token of ``RETIDERM_REVIEW_TOKEN``.

    Raises:
        UsageError: it is no address.
        FetchError: the gateway can't be reached, or refused.
        DataError: what came is no window.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{address!r} is no address.", hint="Begin it with http:// or https://.")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{ROUTE}/{urllib.parse.quote(task)}"
    found: list[Path] = []
    seen = set()
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name) / "window.zip"
        for which in WINDOWS:
            take_zip(f"{base}?which={which}", archive)
            window = out / which
            with atomic_dir(window) as folder:
                _unpack(archive, folder)
            held, info = read_window(window)
            # Until a window is whole the newest is the one that fills.
            if found and (not held.images or (info.source, info.started_at) in seen):
                shutil.rmtree(window)
                continue
            seen.add((info.source, info.started_at))
            found.append(window)
    return found


def _unpack(archive: Path, out: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            if sorted(entry.filename for entry in entries) != sorted((INFO, ARRAYS)):
                raise DataError(
                    "The gateway's zip is no window.", hint="Gateway and this program are of one release?"
                )
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise DataError(f"The gateway's window unpacks to more than {MOST_BYTES >> 20} MiB.")
            for entry in entries:
                (out / entry.filename).write_bytes(opened.read(entry))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"The gateway's window is no whole zip: {error}.", hint="Ask again; the download may be cut."
        ) from error
