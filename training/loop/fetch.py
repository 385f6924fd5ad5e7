"""Labels from where they are: a folder, a zip, or the gateway over HTTP. Nothing is unpacked unseen."""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data.errors import RetidermError, SourceError, UsageError
from data.files import atomic_dir, read_json, sha256_bytes, write_json, write_text
from data.sources.base import fail
from data.sources.review_export import EXCLUDED, IMAGE_NAME, IMAGES, INFO, LABELS, Export, read_export
from data.store import link
from training.loop import places

if TYPE_CHECKING:
    from data.dataset import Head

#: Where the token for the gateway is read from; never from the command line, where others can see it.
TOKEN = "RETIDERM_REVIEW_TOKEN"
ROUTE = "/v1/review/labels/export"

_TIMEOUT_S = 60.0
_TRIES = 3
_PIECE = 1 << 20
#: Of what a zip unpacks to. More than any queue of a day, and less than a disk.
MOST_BYTES = 64 << 30
_SHOWN = 16
_UNUSED_S = 7 * 24 * 3600


class FetchError(RetidermError):
    """The gateway can't be reached, or refused."""

    code = "fetch"


def fetch(source: str, task: str, heads: Sequence[Head] = (), *, images: bool = True) -> Export:
    """Labels for a task, checked, in a folder of the loop's own that is named by their content.

    ``source`` is a folder, a ``.zip``, or the gateway's address (``https://…``), which is asked with the
    token of ``RETIDERM_REVIEW_TOKEN``. Without ``images`` labels can be counted, not learned from. What
    other tenants' exports named as erased counts as erased here too.

    Raises:
        SourceError: what came is no such export, or faulty.
        FetchError: the gateway can't be reached, or refused.
    """
    root = places.place(task, places.LABELS)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".new.", suffix=".part") as name:
        work = Path(name)
        if "://" in source:
            download(source, task, work / "export.zip", images=images)
            opened = unpack(work / "export.zip", work / "export")
        elif source.endswith(".zip"):
            opened = unpack(_there(source), work / "export")
        else:
            opened = _there(source)
        export = read_export(opened, task=task, heads=heads, images=images)
        if (excluded := _remembered(task, export)) != export.excluded:
            merged = work / "merged"
            (merged / IMAGES).mkdir(parents=True)
            _copy(export, merged, images=images)
            write_text(merged / EXCLUDED, "".join(f"{sha256}\n" for sha256 in sorted(excluded)))
            export = read_export(merged, task=task, heads=heads, images=False)
        # A count without pictures is not what a dataset is made of.
        target = root / (places.short(export.digest) + ("" if images else "-counted"))
        if not target.is_dir():
            with atomic_dir(target) as folder:
                _copy(export, folder, images=images)
        os.utime(target)
        tidy(root, keep=target, excluded=export.excluded)
    return read_export(target, task=task, heads=heads, images=images)


def _remembered(task: str, export: Export) -> frozenset[str]:
    """What an export names as erased, and what those of before named, of any tenant; kept for those to come.

    A base may hold another tenant's images, of whose erasure this export says nothing. What it labels itself
    was sent again.
    """
    root = places.place(task, places.EXCLUDED)
    root.mkdir(parents=True, exist_ok=True)
    labelled = {label.sha256 for label in export.labels}
    own = root / f"{sha256_bytes(export.tenant.encode())[:_SHOWN]}.json"
    known = {path: _read_remembered(path) for path in root.glob("*.json")}
    now = (known.get(own, set()) - labelled) | export.excluded
    if now != known.get(own, set()):
        write_json(own, {"tenant": export.tenant, "excluded": sorted(now)})
    return frozenset(set().union(*known.values()) - labelled) | export.excluded


def _read_remembered(path: Path) -> set[str]:
    try:
        return {str(sha256) for sha256 in read_json(path)["excluded"]}
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path} should say what was erased, and can't be read: {error}.",
            hint="Restore it from a copy. Without it images that were erased may be learned from.",
        ) from error


def tidy(root: Path, *, keep: Path, excluded: frozenset[str]) -> None:
    """Remove older exports: at once where they hold what was erased since, else when unused for a week."""
    for folder in root.iterdir():
        if folder == keep or not folder.is_dir() or folder.name.startswith("."):
            continue
        held = {path.stem for path in (folder / IMAGES).glob("*")}
        if not excluded.isdisjoint(held) or time.time() - folder.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(folder, ignore_errors=True)


def download(address: str, task: str, out: Path, *, images: bool = True) -> None:
    """Ask the gateway for a task's labels, as a zip. Tried again where it is busy or the line breaks."""
    take_zip(address_of(address, task, images=images), out)


def take_zip(url: str, out: Path) -> None:
    """Get a zip of the gateway's review, with the token of ``RETIDERM_REVIEW_TOKEN``.

    Tried again where the gateway is busy or the line breaks; no redirect is followed.

    Raises:
        FetchError: the gateway can't be reached, or refused.
    """
    request = urllib.request.Request(url, headers={"Accept": "application/zip"})
    token = os.environ.get(TOKEN)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    last = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(2.0**attempt)
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_S) as answer, out.open("wb") as stream:
                _pour(answer, stream)
            return
        except urllib.error.HTTPError as error:
            body = error.read(500).decode(errors="replace").strip()
            error.close()
            if error.code not in (429, 502, 503, 504):
                raise _refused(url, error.code, body) from None
            last = f"{error.code}: {body}"
        except (OSError, EOFError, ValueError, http.client.HTTPException) as error:
            last = str(getattr(error, "reason", error)) or type(error).__name__
    raise FetchError(
        f"{url} can't be had: {last}",
        hint="Check the address and that the gateway runs, then try again.",
    )


def address_of(address: str, task: str, *, images: bool = True) -> str:
    """The route's whole address: ``address`` may be the gateway's or already the route's."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{address!r} is no address.", hint="Begin it with http:// or https://.")
    path = parts.path.rstrip("/")
    if not path.endswith(ROUTE):
        path += ROUTE
    query = dict(urllib.parse.parse_qsl(parts.query)) | {"task": task}
    if not images:
        query["images"] = "no"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, urllib.parse.urlencode(query), ""))


def unpack(archive: Path, out: Path) -> Path:
    """Unpack an export's zip into a new folder, after every name in it was looked at.

    Raises:
        SourceError: it is no zip, is damaged, or holds anything that is not part of an export.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            names = [entry.filename for entry in entries]
            strange = [
                repr(name[:120])
                for name in names
                if name not in (INFO, LABELS, EXCLUDED) and IMAGE_NAME.fullmatch(name) is None
            ]
            if strange:
                raise fail(f"{len(strange)} name(s) in the export's zip don't belong there", strange)
            if len(set(names)) != len(names):
                raise SourceError("The export's zip holds a name twice.", hint="Export the labels anew.")
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise SourceError(f"The export's zip unpacks to more than {MOST_BYTES >> 30} GiB.")
            (out / IMAGES).mkdir(parents=True)
            for entry in entries:
                with opened.open(entry) as stream, (out / entry.filename).open("xb") as target:
                    shutil.copyfileobj(stream, target, _PIECE)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SourceError(
            f"The export is no whole zip: {error}.", hint="Export the labels anew; the download may be cut."
        ) from error
    return out


def _there(source: str) -> Path:
    path = Path(source).expanduser().resolve()
    if not path.exists():
        raise SourceError(
            f"There is no export of labels at {source}.",
            hint="Give a folder, a .zip, or the gateway's address (https://…).",
        )
    return path


def _copy(export: Export, folder: Path, *, images: bool) -> None:
    for name in (INFO, LABELS, EXCLUDED):  # not linked: somebody may edit his own
        shutil.copyfile(export.root / name, folder / name)
    if images:
        for name in sorted({label.file for label in export.labels}):
            link(export.root / name, folder / name)


def _pour(answer: Any, stream: IO[bytes]) -> None:
    """Take a body whole; a length that was said and isn't reached is an error."""
    said = answer.headers.get("Content-Length")
    taken = 0
    while piece := answer.read(_PIECE):
        stream.write(piece)
        taken += len(piece)
        if taken > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 30} GiB")
    if said is not None and taken != int(said):
        raise EOFError(f"the answer ended after {taken} of {said} bytes")


def _refused(url: str, status: int, body: str) -> FetchError:
    hint = {
        401: f"Set {TOKEN} to a token of the role reviewer or admin: `retiderm token` makes one.",
        403: f"The token of {TOKEN} may not do that: it needs the role reviewer or admin.",
        404: "The gateway there has no review, or nothing of this task. Check the address.",
    }.get(status)
    return FetchError(f"The gateway at {url} answered {status}: {body[:300]}", hint=hint)


class _StaysThere(urllib.request.HTTPRedirectHandler):
    """No redirects: the token would go wherever they lead."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_StaysThere())
