"""Evidently's page of a window, made when it is asked for by the ``retiderm`` command as its own process.

The gateway's image has no Evidently, which brings pandas, SciPy and Plotly. Where the command is there, as on
a laptop or beside the registry, it is handed the very window that is judged here; elsewhere there is no page.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from data.errors import Conflict
from serving.core.drift import Window, WindowInfo, write_window
from serving.gateway.loop.registry import RegistryAway

_TIMEOUT_S = 100.0
#: Pages of some 4 MB each.
_KEPT = 4
_PAGE = "page.html"


class Pages:
    """Makes pages, one at a time, and keeps the last few by their window.

    ``command`` is how ``retiderm`` is run; empty for not at all.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._one = asyncio.Lock()
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    @property
    def there(self) -> bool:
        """Whether a page can be made, as far as that is known without trying."""
        if self._command[:2] == (sys.executable, "-m"):
            # This very environment: what it lacks the command lacks.
            wanted = (self._command[2].partition(".")[0], "evidently")
            return all(importlib.util.find_spec(name) is not None for name in wanted)
        return bool(self._command)

    async def page(
        self,
        run: Callable[..., Awaitable[None]],
        tenant: str,
        window: Window,
        info: WindowInfo,
        bundle: Path,
    ) -> bytes:
        """The page of a tenant's window of the bundle in that folder. ``run`` does blocking work elsewhere.

        Raises:
            RegistryAway: it can't be made here.
            Conflict: the window is too small for one.
        """
        key = (tenant, info.bundle_digest, info.source, info.started_at, info.ended_at, window.images)
        async with self._one:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            if not self.there:
                raise RegistryAway("This gateway can't make Evidently's page.", hint=_HINT)
            with tempfile.TemporaryDirectory(prefix="retiderm-page-") as name:
                place, out = Path(name) / "window", Path(name) / "out"
                await run(write_window, place, window, info)
                await self._make(place, bundle, out)
                found = out / place.name / _PAGE
                if not found.is_file():
                    raise Conflict(
                        f"The window holds {window.images} images, too few for a page.",
                        hint="Ask again when more have come.",
                    )
                self._kept[key] = found.read_bytes()
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]

    async def _make(self, window: Path, bundle: Path, out: Path) -> None:
        words = ("drift", "check", str(window), "--bundle", str(bundle), "--out", str(out), "--json")
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise RegistryAway(f"{self._command[0]} can't be run: {error.strerror}.", hint=_HINT) from None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                _, told = await process.communicate()
        except TimeoutError:
            raise RegistryAway("The page was not made in time.", hint="Ask again later.") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            text = told.decode(errors="replace").strip()
            said = next((line for line in text.splitlines() if line.startswith("error: ")), "")
            raise RegistryAway(
                f"The page was not made: {said.removeprefix('error: ') or 'the command failed'}"[:500],
                hint=_HINT,
            )


_HINT = "`retiderm drift check` makes it of the window's zip, where Evidently is installed."
