"""The model registry as the gateway reaches it: the ``retiderm`` command, as a process of its own.

The gateway needs neither MLflow nor torch for it, and a decision that a reviewer clicks is the very one that
a person at a terminal makes: gate, ledger and all. Where there is no such command the page says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from data.errors import Conflict, ServingError
from serving.gateway.errors import ModelAway
from serving.gateway.retention import LearnedVersion

_LOG = logging.getLogger("retiderm.gateway")

#: For what only reads. What changes something is never ended: see :meth:`RegistryCommand.change`.
_TIMEOUT_S = 120.0
_FRESH_S = 10.0
#: How long an answer waits for a decision to be carried out, and one decision for another's turn. A cluster
#: may take ten minutes; the page gives up after 130 s.
_PATIENCE_S = 90.0
_TURN_S = 20.0
_LOOK_S = 0.05


class RegistryAway(ModelAway):
    """There is no registry within reach of this gateway."""

    code = "registry_away"


class RegistryCommand:
    """Runs ``retiderm models …``: one that reads and one that changes at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._reading = asyncio.Lock()
        self._changing = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._read: dict[tuple[str, ...], tuple[float, Any]] = {}
        self._changes = 0

    async def read(self, *words: str) -> Any:
        """What ``retiderm models <words> --json`` prints; seconds old at most.

        Raises:
            RegistryAway: there is no such command, or it can't reach the registry.
        """
        known = self._read.get(words)
        if known is not None and time.monotonic() - known[0] < _FRESH_S:
            return known[1]
        async with self._reading:
            changes = self._changes
            found = await self._run(*words)
        if changes == self._changes:
            self._read[words] = (time.monotonic(), found)
        return found

    def forget(self) -> None:
        """Let the next reading be a new one."""
        self._read.clear()

    async def change(self, *words: str, files: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """Run what changes the registry. ``files``: options, each with what the file behind it is to hold.

        The process is never ended from here, whoever stops waiting for it, this gateway too: between two
        steps of a promotion the cluster would serve what the ledger doesn't know.

        Returns:
            What it printed; ``{"under_way": True, "message": …}`` where it goes on.

        Raises:
            Conflict: the registry refused; its words say why. Or another decision is being carried out.
            RegistryAway: as for :meth:`read`.
        """
        try:
            async with asyncio.timeout(_TURN_S):
                await self._changing.acquire()
        except TimeoutError:
            raise Conflict(
                "Another decision is being carried out, so that nothing was done.",
                hint="Look at the ledger, then decide again.",
            ) from None
        task = asyncio.create_task(self._carry_out(words, files))
        self._under_way.add(task)
        task.add_done_callback(self._over)
        await asyncio.wait({task}, timeout=_PATIENCE_S)
        if task.done():
            return task.result()
        told = f"It goes on, and has not ended within {_PATIENCE_S:.0f} s."
        return {"under_way": True, "message": f"{told} Look at the ledger before you decide again."}

    async def learned(self, contents: Sequence[str]) -> dict[str, list[LearnedVersion]]:
        """For each of these images (SHA-256) the versions that had learned from it, where there are any.

        Raises:
            RegistryAway: as for :meth:`read`; or the data of some version is not to be found there.
            Conflict: the registry refused.
        """
        with tempfile.NamedTemporaryFile("w", prefix="retiderm-", suffix=".txt") as file:
            file.write("".join(f"{sha256}\n" for sha256 in contents))
            file.flush()
            async with self._reading:
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
        try:
            process = await asyncio.create_subprocess_exec(
                *self._called(),
                *words,
                "--json",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise self._cannot_run(error) from None
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
        assert process.returncode is not None
        return _told(process.returncode, out, err)

    async def _carry_out(self, words: Sequence[str], files: Mapping[str, Any]) -> Any:
        """Run it to its end, as a process that neither this task's end nor the gateway's takes along."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._changed)
            self._changed()
            options: list[str] = []
            for option, content in files.items():
                file = stack.enter_context(
                    tempfile.NamedTemporaryFile("w", prefix="retiderm-", suffix=".json")
                )
                json.dump(content, file)
                file.flush()
                options += (option, file.name)
            # Files, not pipes: nobody may read any more when it writes.
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            try:
                process = subprocess.Popen(
                    [*self._called(), *words, *options, "--json"],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError as error:
                raise self._cannot_run(error) from None
            while process.poll() is None:
                await asyncio.sleep(_LOOK_S)
            for said in (out, err):
                said.seek(0)
            return _told(process.returncode, out.read(), err.read())

    def _changed(self) -> None:
        self._changes += 1
        self._read.clear()

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        self._changing.release()
        # Whoever asked may have stopped waiting: what was refused is told all the same.
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.warning("a decision was not carried out: %s", getattr(error, "message", error))

    def _called(self) -> tuple[str, ...]:
        if not self._command:
            raise _away("GATEWAY_REGISTRY_COMMAND is empty")
        return (*self._command, "models")

    def _cannot_run(self, error: OSError) -> ServingError:
        return _away(f"{self._command[0]} can't be run: {error.strerror}")


def _told(status: int, out: bytes, err: bytes) -> Any:
    """What the command printed; its refusal as an error."""
    said = err.decode(errors="replace")
    refusal = next((line for line in said.splitlines() if line.lower().startswith("error:")), "")
    if status == 0:
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
