"""Every kind of bad input over every wire, and docs/bad-input.md, which is written from what came back.

``RETIDERM_WRITE_DOCS=1 pytest tests/integration/serving/test_bad_input.py`` writes the document again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from data.errors import ImageError
from serving.core.bundle import Bundle
from serving.scan import ACNE, CONDITION, BundleModels, FaceScan, analyze_face
from tests.anomaly_bundles import tiny_anomaly_bundle
from tests.contract.s4_server import S4Server
from tests.integration.serving.anomaly_kinds import OK, TASK, anomaly_kinds, fitted, region_kinds
from tests.integration.serving.face_kinds import ANSWERED, face_kinds
from tests.integration.serving.field_kinds import field_kinds
from tests.integration.serving.harness import WIRES, Reply, Servers, ask, promote
from tests.integration.serving.image_kinds import image_kinds
from tests.integration.serving.kinds import GOOD, GRPC, Kind
from tests.integration.serving.request_kinds import request_kinds
from tests.integration.serving.tensor_kinds import tensor_kinds
from tests.profiles import face_bundle
from tests.unit.data.bad_datasets import BAD_DATASETS

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "bad-input.md"
SECTIONS = ("serving", "anomaly", "face", "data")

_TITLES = {"v1": "V1", "v2 json": "V2 JSON", "v2 binary": "V2 binary", "grpc": "gRPC"}

_INTRO = """# Bad input

What is answered to input that is wrong, over each way in. The tables are written by the tests from what real
servers answered; a test fails when they are out of date, and
`RETIDERM_WRITE_DOCS=1 pytest tests/integration/serving/test_bad_input.py` writes them again. A REST error is
`{"error": message, "code": code}`; over gRPC the code is in the trailing metadata `error-code`. A 503 says
when to come again: `Retry-After`, over gRPC `retry-after`.
"""


def test_every_kind_gets_its_status_and_the_document_says_so(servers: Servers) -> None:
    kinds, tensors = [*image_kinds(), *field_kinds(), *request_kinds()], [*tensor_kinds()]
    assert len(kinds) + len(tensors) >= 25
    wrong: list[str] = []
    text = "## Image files and requests, to the transformer\n\n" + _table(kinds, servers, wrong)
    text += "\n## Tensors, to the predictor\n\n" + _table(tensors, servers, wrong)
    assert not wrong, "\n".join(wrong)
    # After all of it both still answer.
    for wire in WIRES:
        assert ask(servers, wire, [GOOD]).ok
    _compare("serving", text)


@pytest.fixture(scope="module")
def anomaly_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    base = tmp_path_factory.mktemp("anomaly")
    promote(base / "root", tiny_anomaly_bundle(base / "bundle"), "1")
    limits = ("--max-batch", "64")
    with Servers(base / "root", base / "servers", transformer_options=limits).running() as running:
        yield running


@pytest.fixture(scope="module")
def s4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S4Server]:
    with S4Server(tmp_path_factory.mktemp("s4")).running() as server:
        fitted(server)
        yield server


def test_anomaly_models_refuse_as_the_document_says(anomaly_servers: Servers, s4: S4Server) -> None:
    wrong: list[str] = []
    text = "## To a model of kind `anomaly`, over the transformer\n\n"
    text += _table(anomaly_kinds(), anomaly_servers, wrong)
    text += "\n## To the PatchCore service\n\n"
    text += (
        'An error is `{"error": message, "trace": reference}`; the log has the trace under the reference.\n\n'
    )
    text += "| what is sent | to | status | what is said |\n|---|---|---|---|\n"
    for kind in region_kinds():
        reply = kind.run(s4)
        body = reply.json()
        if reply.status_code != kind.want or set(body) != {"error", "trace"}:
            wrong.append(f"{kind.name} to {kind.call}: {reply.status_code}, not {kind.want}: {reply.text}")
        text += f"| {kind.name} | `{kind.call}` | {reply.status_code} | {_cell(body.get('error', ''))} |\n"
    assert not wrong, "\n".join(wrong)
    for wire in WIRES:
        assert ask(anomaly_servers, wire, [OK], task=TASK).ok
    _compare("anomaly", text)


def test_faces_are_refused_as_the_document_says(tmp_path: Path) -> None:
    bundles: list[Bundle] = [
        face_bundle(tmp_path / asked.task, asked, quality="photo") for asked in (ACNE, CONDITION)
    ]
    models = BundleModels.open(*(bundle.root for bundle in bundles), threads=1)
    wrong: list[str] = []
    text = "## Photographs, to a face scan\n\n"
    text += (
        "`serving.scan.analyze_face`. A scan without a result says why by its code; a file that can't be\n"
    )
    text += "decoded is an error. What couldn't be measured in a result is null, a class `unknown`.\n\n"
    text += "| what is shown | code | what is said |\n|---|---|---|\n"
    for kind in face_kinds():
        try:
            scan = analyze_face(kind.data, models)
        except ImageError as error:
            code, said = error.code, str(error)
        else:
            document = scan.to_dict("7f")
            if isinstance(scan, FaceScan):
                missing = _unmeasured(document["cv_analysis"])
                if missing != kind.missing:
                    wrong.append(f"{kind.name}: {missing} are missing, not {kind.missing}")
                code, said = ANSWERED, f"without {', '.join(missing)}" if missing else ""
            else:
                code, said = document["reason"]["code"], document["reason"]["message"]
                if document["status"] != "failed" or "ml_analysis" in document or "cv_analysis" in document:
                    wrong.append(f"{kind.name}: has something that could be taken for an answer")
        if code != kind.want:
            wrong.append(f"{kind.name}: {code}, not {kind.want}")
        shown = code if code == ANSWERED else f"`{code}`"
        text += f"| {kind.name} | {shown} | {_cell(said)} |\n"
    assert not wrong, "\n".join(wrong)
    _compare("face", text)


def _unmeasured(measured: dict[str, object]) -> tuple[str, ...]:
    """What of a result's ``cv_analysis`` says nothing."""

    def empty(value: object) -> bool:
        return all(map(empty, value.values())) if isinstance(value, dict) else value in (None, "unknown")

    return tuple(name for name, value in measured.items() if empty(value))


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
        return _cell(code + message)
    first = reply.documents[0]
    verdict = first["quality"]["verdict"]
    return ": ".join([verdict, *first["quality"]["reasons"][:1]])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


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
