"""Labels from a folder, a zip and a server, and what is refused on the way."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.errors import SourceError, UsageError
from data.paths import Home
from data.sources.review_export import read_export
from tests.review_exports import Exported, picture
from training.loop import fetch as module
from training.loop.fetch import TOKEN, FetchError, address_of, fetch


def export(folder: Path, *values: str) -> Path:
    made = Exported()
    for number, value in enumerate(values or ("low", "high")):
        made.label(picture(number), value)
    return made.write(folder)


def zipped(folder: Path, out: Path, **more: bytes) -> Path:
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
        for name, data in more.items():
            archive.writestr(name, data)
    return out


def test_a_folder_and_its_zip_are_the_same(home: Home, tmp_path: Path) -> None:
    folder = export(tmp_path / "export")
    first = fetch(str(folder), "tiny")
    assert first.root.parent == home.root / "loop" / "tiny" / "labels"
    assert fetch(str(zipped(folder, tmp_path / "export.zip")), "tiny").root == first.root
    assert [path.name for path in first.root.parent.iterdir()] == [first.root.name]
    (folder / "labels.jsonl").write_text("")  # one's own may change
    assert len(fetch(str(tmp_path / "export.zip"), "tiny").labels) == 2


@pytest.mark.parametrize(
    "name", ["../up.txt", "/etc/passwd", "images/../../up.png", "notes.txt", "images/x.png"]
)
def test_a_zip_with_a_strange_name_is_not_unpacked(home: Home, tmp_path: Path, name: str) -> None:
    archive = zipped(export(tmp_path / "export"), tmp_path / "export.zip", **{name: b"x"})
    with pytest.raises(SourceError, match="don't belong there"):
        fetch(str(archive), "tiny")
    assert not (tmp_path / "up.txt").exists()
    assert list((home.root / "loop" / "tiny" / "labels").iterdir()) == []


def test_a_damaged_or_endless_zip(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(export(tmp_path / "export"), tmp_path / "export.zip")
    content = archive.read_bytes()
    archive.write_bytes(content[:-30])
    with pytest.raises(SourceError, match="no whole zip"):
        fetch(str(archive), "tiny")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("labels.jsonl", "x" * 5000)
    broken = bytearray(archive.read_bytes())
    start = broken.index(b"labels.jsonl") + len("labels.jsonl")
    broken[start : start + 6] = bytes(255 - byte for byte in broken[start : start + 6])
    archive.write_bytes(broken)
    with pytest.raises(SourceError, match="no whole zip"):
        fetch(str(archive), "tiny")
    archive.write_bytes(content)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(SourceError, match="unpacks to more than"):
        fetch(str(archive), "tiny")
    with pytest.raises(SourceError, match="no export of labels at"):
        fetch(str(tmp_path / "nowhere"), "tiny")


def test_older_exports_go_when_they_hold_what_was_erased_or_lie_unused(home: Home, tmp_path: Path) -> None:
    first = fetch(str(export(tmp_path / "a", "low", "high")), "tiny")
    second = fetch(str(export(tmp_path / "b", "low", "low")), "tiny")
    assert first.root.is_dir()
    later = Exported()
    later.label(picture(9), "low")
    old = time.time() - 8 * 24 * 3600
    os.utime(first.root, (old, old))
    third = fetch(str(later.write(tmp_path / "c")), "tiny")
    assert not first.root.exists()
    assert second.root.is_dir()
    later.excluded = [second.labels[0].sha256]
    fetch(str(later.write(tmp_path / "c")), "tiny")
    assert not second.root.exists()
    assert third.root.is_dir()


def test_what_one_tenant_erased_holds_for_anothers_export_too(home: Home, tmp_path: Path) -> None:
    erased, again = (hashlib.sha256(picture(number)).hexdigest() for number in (1, 2))
    ours = Exported(info={"tenant": "ours"}, excluded=[erased, again])
    assert fetch(str(ours.write(tmp_path / "ours")), "tiny", images=False).excluded == {erased, again}
    theirs = Exported(info={"tenant": "theirs"})
    # They have the second one too, with a label: it is theirs.
    theirs.label(picture(2), "low")
    plain = read_export(theirs.write(tmp_path / "theirs")).digest
    found = fetch(str(tmp_path / "theirs"), "tiny")
    assert found.excluded == {erased}
    assert found.digest != plain
    assert (tmp_path / "theirs" / "excluded.txt").read_text() == ""  # one's own folder is left as it is
    # Another task's datasets are another matter.
    elsewhere = Exported(task="other", info={"tenant": "theirs"})
    assert fetch(str(elsewhere.write(tmp_path / "other")), "other").excluded == frozenset()
    # Sent again, with a label, it is one's own once more.
    ours.excluded = []
    ours.label(picture(1), "low")
    assert fetch(str(ours.write(tmp_path / "ours")), "tiny").excluded == {again}
    assert fetch(str(tmp_path / "theirs"), "tiny").excluded == frozenset()
    (kept,) = (home.root / "loop" / "tiny" / "excluded").glob("*.json")
    kept.write_text("{}")
    with pytest.raises(SourceError, match="should say what was erased"):
        fetch(str(tmp_path / "theirs"), "tiny")


class Gateway:
    """A small server that gives a zip, or what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                gateway.asked.append((self.path, self.headers.get("Authorization")))
                status, body, headers = gateway.answers.pop(0)
                self.send_response(status)
                for name, value in {"Connection": "close", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setenv(TOKEN, "rtd_secret")
    made = Gateway()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_gateway_is_asked_with_the_token(home: Home, tmp_path: Path, gateway: Gateway) -> None:
    body = zipped(export(tmp_path / "export"), tmp_path / "export.zip").read_bytes()
    gateway.answers = [(503, b"busy", {}), (200, body, {"Content-Length": str(len(body))})]
    found = fetch(gateway.address, "tiny")
    assert len(found.labels) == 2
    assert gateway.asked == [("/v1/review/labels/export?task=tiny", "Bearer rtd_secret")] * 2


def test_to_count_labels_no_pictures_are_asked_for(home: Home, tmp_path: Path, gateway: Gateway) -> None:
    folder = export(tmp_path / "export")
    for path in (folder / "images").iterdir():
        path.unlink()
    body = zipped(folder, tmp_path / "export.zip").read_bytes()
    gateway.answers = [(200, body, {})]
    assert len(fetch(gateway.address, "tiny", images=False).labels) == 2
    assert gateway.asked[0][0].endswith("?task=tiny&images=no")


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "Set RETIDERM_REVIEW_TOKEN"), (403, "needs the role"), (404, "no review")]
)
def test_a_refusal_says_what_to_do(home: Home, gateway: Gateway, status: int, hint: str) -> None:
    gateway.answers = [(status, b'{"error": "no"}', {})]
    with pytest.raises(FetchError, match=f"answered {status}") as error:
        fetch(gateway.address, "tiny")
    assert hint in str(error.value.hint)
    assert "rtd_secret" not in str(error.value)


def test_an_answer_that_is_cut_is_asked_for_again_and_then_an_error(
    home: Home, tmp_path: Path, gateway: Gateway
) -> None:
    body = zipped(export(tmp_path / "export"), tmp_path / "export.zip").read_bytes()
    gateway.answers = [(200, body[:50], {"Content-Length": str(len(body))})] * 3
    with pytest.raises(FetchError, match="can't be had"):
        fetch(gateway.address, "tiny")
    assert len(gateway.asked) == 3


def test_a_body_in_chunks_that_is_cut_is_asked_for_again(
    home: Home, tmp_path: Path, gateway: Gateway
) -> None:
    body = zipped(export(tmp_path / "export"), tmp_path / "export.zip").read_bytes()
    gateway.answers = [
        (200, b"1000\r\nabc", {"Transfer-Encoding": "chunked"}),
        (200, body, {"Content-Length": str(len(body))}),
    ]
    assert len(fetch(gateway.address, "tiny").labels) == 2
    gateway.answers = [(200, b"1000\r\nabc", {"Transfer-Encoding": "chunked"})] * 3
    with pytest.raises(FetchError, match="can't be had"):
        fetch(gateway.address, "tiny")


def test_the_token_follows_no_redirect(home: Home, gateway: Gateway) -> None:
    gateway.answers = [(302, b"", {"Location": f"{gateway.address}/elsewhere"})]
    with pytest.raises(FetchError, match="answered 302"):
        fetch(gateway.address, "tiny")
    assert len(gateway.asked) == 1


def test_addresses() -> None:
    route = "/v1/review/labels/export"
    assert address_of("https://g.example", "t") == f"https://g.example{route}?task=t"
    assert (
        address_of(f"https://g.example/base{route}?x=1", "t") == f"https://g.example/base{route}?x=1&task=t"
    )
    with pytest.raises(UsageError, match="no address"):
        address_of("ftp://g.example", "t")
