"""What the documents point at is there: files, make targets, commands."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"(https?|mailto):", target):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file), target


def test_commands_exist(document: Path) -> None:
    for line in _commands(document):
        for command in re.findall(r"(?:^|&& |; |\| )\s*(?:\S*/)?retiderm ((?:[a-z][a-z-]* ?)+)", line):
            assert _known(tuple(command.split())), f"{document.name}: retiderm {command}"


def test_make_targets_exist(document: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in _commands(document):
        for target in re.findall(r"(?:^|[\s`])make ([a-z][a-z-]+)\b", line):
            assert target in known, f"{document.name}: make {target}"


def _commands(document: Path) -> list[str]:
    """What is set as code: fenced lines, and spans within a line."""
    lines, fenced = [], False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            lines.append(line.partition(" #")[0])
        else:
            lines.extend(re.findall(r"`([^`]+)`", line))
    return lines


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@cache
def _known(words: tuple[str, ...]) -> bool:
    """Whether the first word is our command and the second, in a group, one of its own."""
    import typer

    from pipelines.cli import build

    if words[0] not in _names(typer.main.get_command(build(None))):
        return False
    group: Any = typer.main.get_command(build(words[0]))
    command = group.commands[words[0]]
    names = _names(command)
    return not names or len(words) == 1 or words[1] in names


def _names(command: Any) -> set[str]:
    return set(getattr(command, "commands", {}))
