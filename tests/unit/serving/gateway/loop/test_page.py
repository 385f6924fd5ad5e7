"""Pages of windows: made by a command, once for each window, and none where there is no command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import Conflict
from serving.core.drift import Window, WindowInfo
from serving.gateway.loop.page import Pages
from serving.gateway.loop.registry import RegistryAway
from tests.drift_windows import window

DIGEST = "sha256:" + "1" * 64

#: Does as ``retiderm drift check`` does, with a count of how often it ran.
SCRIPT = """
import pathlib, sys
words = sys.argv[1:]
count = pathlib.Path(__file__).with_suffix(".count")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
assert words[:2] == ["drift", "check"], words
place, out = pathlib.Path(words[2]), pathlib.Path(words[words.index("--out") + 1])
assert (place / "window.npz").is_file()
bundle = words[words.index("--bundle") + 1]
if bundle == "broken":
    print("Traceback", file=sys.stderr)
    sys.exit("error: The bundle is broken.")
if bundle != "empty":
    (out / place.name).mkdir(parents=True)
    (out / place.name / "page.html").write_text("a page of " + bundle)
"""


async def run(work: Callable[..., None], *given: object) -> None:
    await asyncio.to_thread(work, *given)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "retiderm.py"
    path.write_text(SCRIPT)
    return path


def made(
    pages: Pages, given: Window, *, tenant: str = "clinic", bundle: str = "b", ended: str = "2"
) -> bytes:
    info = WindowInfo("demo", DIGEST, "1", ended, "4", "gateway")
    return asyncio.run(pages.page(run, tenant, given, info, Path(bundle)))


def test_a_page_is_made_once_for_each_window(script: Path) -> None:
    pages = Pages((sys.executable, str(script)))
    assert pages.there

    def count() -> int:
        return int(script.with_suffix(".count").read_text())

    assert made(pages, window(60)) == b"a page of b"
    assert made(pages, window(60), bundle="elsewhere") == b"a page of b"
    assert count() == 1
    # Another tenant's is another page, whatever it has in common; and so is a longer window.
    made(pages, window(60), tenant="another")
    made(pages, window(61), ended="3")
    assert count() == 3
    for number in range(4):
        made(pages, window(60), ended=f"later {number}")
    made(pages, window(60))
    assert count() == 8


def test_what_the_command_says_is_told(script: Path) -> None:
    pages = Pages((sys.executable, str(script)))
    with pytest.raises(RegistryAway, match=r"not made: The bundle is broken\."):
        made(pages, window(60), bundle="broken")
    with pytest.raises(Conflict, match="60 images, too few"):
        made(pages, window(60), bundle="empty")


def test_without_the_command_there_is_none(tmp_path: Path) -> None:
    for command in ((), (sys.executable, "-m", "no_such_package.cli"), (str(tmp_path / "nothing"),)):
        pages = Pages(command)
        assert pages.there == (len(command) == 1)
        with pytest.raises(RegistryAway):
            made(pages, window(60))
    assert Pages((sys.executable, "-m", "pipelines.cli")).there
