"""loop/registry.py: what changes the registry is carried out to its end, whoever stops waiting for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.errors import Conflict
from serving.gateway.loop import registry as module
from serving.gateway.loop.registry import RegistryCommand

#: ``models VERB FOLDER …``: a promotion that patches a cluster and waits until it is told to go on; anything
#: else says what it was asked.
CODE = """
import json, pathlib, sys, time
verb, folder = sys.argv[2], pathlib.Path(sys.argv[3])
if verb == "promote":
    (folder / "patched").touch()
    try:
        while not (folder / "go").exists():
            time.sleep(0.01)
        (folder / "done").touch()
    finally:
        (folder / "ended").touch()
if verb == "refuse":
    sys.exit("Error: it is no good")
print(json.dumps({"asked": sys.argv[2:]}))
"""
COMMAND = (sys.executable, "-c", CODE)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


async def there(path: Path) -> None:
    await asyncio.to_thread(wait_for, path)


def test_a_promotion_outlasts_patience_and_whoever_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(module, "_TURN_S", 0.05)
    words = ("promote", str(tmp_path))

    async def work() -> None:
        command = RegistryCommand(COMMAND)
        told = await command.change(*words)
        assert told["under_way"] is True
        assert "Look at the ledger" in told["message"]
        await there(tmp_path / "patched")
        # The ledger can be looked at, and nobody else decides meanwhile.
        assert (await command.read("history", str(tmp_path)))["asked"][0] == "history"
        with pytest.raises(Conflict, match="Another decision is being carried out"):
            await command.change("rollback", str(tmp_path))
        (tmp_path / "go").touch()
        await there(tmp_path / "ended")
        assert (tmp_path / "done").exists()
        monkeypatch.setattr(module, "_PATIENCE_S", 240.0)
        monkeypatch.setattr(module, "_TURN_S", 240.0)
        assert (await command.change(*words))["asked"] == [*words, "--json"]

        # The client goes: so does nothing else.
        for name in ("go", "patched", "done", "ended"):
            (tmp_path / name).unlink()
        asked = asyncio.create_task(command.change(*words))
        await there(tmp_path / "patched")
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        (tmp_path / "go").touch()
        await there(tmp_path / "ended")
        assert (tmp_path / "done").exists()
        assert (await command.change("approve", str(tmp_path)))["asked"][0] == "approve"

    asyncio.run(work())


def test_a_promotion_outlasts_its_gateway(tmp_path: Path) -> None:
    code = (
        "import asyncio\n"
        "from serving.gateway.loop import registry as module\n"
        "module._PATIENCE_S = 0.05\n"
        f"command = module.RegistryCommand({COMMAND!r})\n"
        f"asyncio.run(command.change('promote', {str(tmp_path)!r}))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=240)
    wait_for(tmp_path / "patched")
    assert not (tmp_path / "ended").exists()
    (tmp_path / "go").touch()
    wait_for(tmp_path / "ended")
    assert (tmp_path / "done").exists()


def test_what_was_read_before_a_change_is_not_told_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long two commands take to start.
    monkeypatch.setattr(module, "_FRESH_S", 3600.0)

    async def work() -> None:
        command = RegistryCommand(COMMAND)
        first = await command.read("list", str(tmp_path))
        assert await command.read("list", str(tmp_path)) is first
        with pytest.raises(Conflict, match="it is no good"):
            await command.change("refuse", str(tmp_path))
        assert await command.read("list", str(tmp_path)) is not first

    asyncio.run(work())
