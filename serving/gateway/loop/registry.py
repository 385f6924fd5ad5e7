"""The model registry as the gateway reaches it: the ``retiderm`` command, as a process of its own.

The gateway needs neither MLflow nor torch for it, and a decision that a reviewer clicks is the very one that
a person at a terminal makes: gate, ledger and all. Where there is no such command the page says so.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from data.errors import Conflict, ServingError
from serving.gateway.errors import ModelAway
from serving.gateway.retention import LearnedVersion

_TIMEOUT_S = 120.0
_FRESH_S = 10.0


class RegistryAway(ModelAway):
    """There is no registry within reach of this gateway."""

    code = "registry_away"


class RegistryCommand:
    """Runs ``retiderm models …``. One at a time: the registry's own locks would make them wait anyway."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._one = asyncio.Lock()
        self._read: dict[tuple[str, ...], tuple[float, Any]] = {}

    async def read(self, *words: str) -> Any:
        """What ``retiderm models <words> --json`` prints; seconds old at most.

        Raises:
            RegistryAway: there is no such command, or it can't reach the registry.
        """
        known = self._read.get(words)
        if known is not None and time.monotonic() - known[0] < _FRESH_S:
            return known[1]
        async with self._one:
            found = await self._run(*words)
        self._read[words] = (time.monotonic(), found)
        return found

    async def change(self, *words: str) -> Any:
        """Run what changes the registry.

        Raises:
            Conflict: the registry refused; its words say why.
            RegistryAway: as for :meth:`read`.
        """
        async with self._one:
            self._read.clear()
            return await self._run(*words)

    async def learned(self, contents: Sequence[str]) -> dict[str, list[LearnedVersion]]:
        """For each of these images (SHA-256) the versions that had learned from it, where there are any.

        Raises:
            RegistryAway: as for :meth:`read`; or the data of some version is not to be found there.
            Conflict: the registry refused.
        """
        with tempfile.NamedTemporaryFile("w", prefix="retiderm-", suffix=".txt") as file:
            file.write("".join(f"{sha256}\n" for sha256 in contents))
            file.flush()
            async with self._one:
                said = await self._run("learned", "--sha256-file", file.name)
        if said["unknown"]:
            named = ", ".join(f"{one['model']} {one['version']}" for one in said["unknown"][:10])
            raise _away(f"the data that {named} learned from is not there")
        found: dict[str, list[LearnedVersion]] = {}
        for one in said["versions"]:
            version = LearnedVersion(one["model"], one["version"], one["dataset_digest"])
            for sha256 in one["images"]:
                found.setdefault(sha256, []).append(version)
        return found

    async def _run(self, *words: str) -> Any:
        if not self._command:
            raise _away("GATEWAY_REGISTRY_COMMAND is empty")
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "models",
                *words,
                "--json",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise _away(f"{self._command[0]} can't be run: {error.strerror}") from None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise _away(f"it did not answer within {_TIMEOUT_S:.0f} s") from None
        except asyncio.CancelledError:
            process.kill()
            raise
        said = err.decode(errors="replace")
        refusal = next((line for line in said.splitlines() if line.lower().startswith("error:")), "")
        if process.returncode == 0:
            try:
                return json.loads(out)
            except ValueError:
                raise _away("its answer can't be read") from None
        if "No module named" in said:
            raise _away("this gateway is installed without it")
        raise Conflict(refusal.partition(":")[2].strip() or "The registry refused; its log says why.")


def _away(why: str) -> ServingError:
    return RegistryAway(
        f"No registry is reachable from here: {why}.",
        retry_after=30,
        hint="Approve and roll back with retiderm models, where the registry is.",
    )
