"""Every kind of bad input over every wire, and docs/bad-input.md, which is written from what came back.

``RETIDERM_WRITE_DOCS=1 pytest tests/integration/serving/test_bad_input.py`` writes the document again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tests.integration.serving.harness import WIRES, Reply, Servers, ask
from tests.integration.serving.kinds import GOOD, GRPC, Kind, all_kinds, tensor_kinds
from tests.unit.data.bad_datasets import BAD_DATASETS

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "bad-input.md"
SECTIONS = ("serving", "data")

_TITLES = {"v1": "V1", "v2 json": "V2 JSON", "v2 binary": "V2 binary", "grpc": "gRPC"}

_INTRO = """# Bad input

What is answered to input that is wrong, over each way in. The tables are written by the tests from what real
servers answered; a test fails when they are out of date, and
`RETIDERM_WRITE_DOCS=1 pytest tests/integration/serving/test_bad_input.py` writes them again. A REST error is
`{"error": message, "code": code}`; over gRPC the code is in the trailing metadata `error-code`. A 503 says
when to come again: `Retry-After`, over gRPC `retry-after`.
"""


def test_every_kind_gets_its_status_and_the_document_says_so(servers: Servers) -> None:
    kinds, tensors = list(all_kinds()), list(tensor_kinds())
    assert len(kinds) + len(tensors) >= 25
    wrong: list[str] = []
    text = "## Image files and requests, to the transformer\n\n" + _table(kinds, servers, wrong)
    text += "\n## Tensors, to the predictor\n\n" + _table(tensors, servers, wrong)
    assert not wrong, "\n".join(wrong)
    # After all of it both still answer.
    for wire in WIRES:
        assert ask(servers, wire, [GOOD]).ok
    _compare("serving", text)


def test_the_document_names_every_kind_of_bad_data_set() -> None:
    text = "## Data sets, to `retiderm run` and `retiderm data`\n\n"
    text += "The step stops with exit code 1 (2 where the command itself is wrong); no dataset is left.\n\n"
    text += "| what is wrong | error | what is said, in part |\n|---|---|---|\n"
    for name, _, error, message in BAD_DATASETS:
        text += f"| {name} | `{error.code}` | {message} |\n".replace("\\", "")
    _compare("data", text)


def _table(kinds: Iterable[Kind], servers: Servers, wrong: list[str]) -> str:
    lines = [
        "| what is sent | " + " | ".join(_TITLES.values()) + " | what is said |",
        "|---|" + "---|" * (len(WIRES) + 1),
    ]
    for kind in kinds:
        replies = {wire: run(servers) for wire, run in kind.asks.items()}
        for wire, reply in replies.items():
            want = GRPC[kind.want] if wire == "grpc" else kind.want
            if reply.status != want:
                wrong.append(f"{kind.name} over {wire}: {reply.status}, not {want}: {reply.message}")
            if reply.ok and _said(reply) != (kind.verdict or _said(reply)):
                wrong.append(f"{kind.name} over {wire}: {_said(reply)!r}, not {kind.verdict!r}")
            if len(reply.message) > 400 or "Traceback" in reply.message:
                wrong.append(f"{kind.name} over {wire} says too much: {reply.message[:200]}")
        cells = [str(replies[wire].status) if wire in replies else "" for wire in WIRES]
        said = list(dict.fromkeys(_said(reply) for reply in replies.values()))
        lines.append("| " + " | ".join([kind.name, *cells, " / ".join(said)]) + " |")
    return "\n".join(lines) + "\n"


def _said(reply: Reply) -> str:
    if not reply.ok:
        message = re.sub(r"[0-9a-f]{64}", "…", reply.message)
        # Two JSON parsers word the same complaint differently, and again with each release.
        message = re.sub(
            r"\((?:unexpected|Recursion|recursion|at character|Expecting)[^)]*\)", "(…)", message
        )
        code = f"`{reply.code}` " if reply.code else ""
        return (code + message).replace("|", "\\|").replace("\n", " ")
    first = reply.documents[0]
    verdict = first["quality"]["verdict"]
    return ": ".join([verdict, *first["quality"]["reasons"][:1]])


def _compare(section: str, text: str) -> None:
    old = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else _INTRO
    parts = {name: _between(old, name) for name in SECTIONS} | {section: text}
    new = _INTRO
    for name, part in parts.items():
        new += f"\n<!-- {name}: begin -->\n{part}<!-- {name}: end -->\n"
    if os.environ.get("RETIDERM_WRITE_DOCS"):
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(new, encoding="utf-8")
        return
    assert old == new, f"{DOCUMENT.name} is out of date: run this test with RETIDERM_WRITE_DOCS=1"


def _between(text: str, name: str) -> str:
    return text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"<!-- {name}: end -->")[0]
