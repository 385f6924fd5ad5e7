"""Windows from a gateway: real HTTP, and what can be wrong with the zip."""

from __future__ import annotations

import contextlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from data.errors import DataError, UsageError
from serving.core.drift import Window, WindowInfo, read_window, write_window
from tests.drift_windows import HEAD, window
from training.drift.fetch import fetch_windows, is_address
from training.loop.fetch import TOKEN, FetchError

DIGEST = "sha256:" + "1" * 64


@contextlib.contextmanager
def gateway(zips: dict[str, bytes], token: str = "secret") -> Iterator[str]:
    """An HTTP server with the gateway's one route."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = zips.get(parse_qs(parts.query)["which"][0])
            status = 200 if body is not None and parts.path == "/gw/v1/review/drift/window/demo" else 404
            status = status if self.headers.get("authorization") == f"Bearer {token}" else 401
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body or b"" if status == 200 else b"no")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/gw/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(folder: Path, given: Window, source: str = "gateway", started: str = "2026-01-01") -> bytes:
    place = folder / "window"
    write_window(place, given, WindowInfo("demo", DIGEST, started, started, "4", source))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for item in place.iterdir():
            archive.write(item, item.name)
    return buffer.getvalue()


def labels(images: int) -> Window:
    given = window(max(images, 1), 3, labelled=True).first(images)
    return Window(images=images, probabilities=given.probabilities, truth=given.truth)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "secret")


def test_a_gateways_windows_become_folders(tmp_path: Path) -> None:
    zips = {
        "newest": zipped(tmp_path, window(200, 1)),
        "running": zipped(tmp_path, window(60, 2), started="2026-01-02"),
        "labels": zipped(tmp_path, labels(50), "gateway, labels"),
    }
    with gateway(zips) as url:
        found = fetch_windows(url, "demo", tmp_path / "out")
    assert [path.name for path in found] == ["newest", "running", "labels"]
    held = [read_window(path)[0] for path in found]
    assert [one.images for one in held] == [200, 60, 50]
    assert held[2].of_labels
    assert HEAD.name in held[2].truth


def test_what_holds_nothing_new_is_left_out(tmp_path: Path) -> None:
    running = zipped(tmp_path, window(60, 2))
    with gateway({"newest": running, "running": running, "labels": zipped(tmp_path, labels(0))}) as url:
        found = fetch_windows(url, "demo", tmp_path / "out")
    assert [path.name for path in found] == ["newest"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["newest"]


def test_a_gateway_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway({}) as url:
        with pytest.raises(FetchError, match="404"):
            fetch_windows(url, "demo", tmp_path / "out")
        monkeypatch.delenv(TOKEN)
        with pytest.raises(FetchError, match="401") as refused:
            fetch_windows(url, "demo", tmp_path / "out")
    assert TOKEN in str(refused.value.hint)


@pytest.mark.parametrize("names", [("window.json",), ("window.json", "../window.npz"), ("a", "b")])
def test_a_zip_of_something_else_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    with gateway({"newest": buffer.getvalue()}) as url, pytest.raises(DataError, match="no window"):
        fetch_windows(url, "demo", tmp_path / "out")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("window.json", "window.npz"):
            archive.writestr(name, "x" * 5000)
    broken = bytearray(buffer.getvalue())
    start = broken.index(b"window.json") + len("window.json")
    broken[start : start + 6] = bytes(255 - byte for byte in broken[start : start + 6])
    with gateway({"newest": bytes(broken)}) as url, pytest.raises(DataError, match="no whole zip"):
        fetch_windows(url, "demo", tmp_path / "broken")
    with gateway({"newest": b"PK"}) as url, pytest.raises(DataError, match="no whole zip"):
        fetch_windows(url, "demo", tmp_path / "out")


def test_an_address_is_told_from_a_folder(tmp_path: Path) -> None:
    assert is_address("https://gateway.example.org")
    assert not is_address("var/drift")
    with pytest.raises(UsageError, match="no address"):
        fetch_windows("ftp://gateway", "demo", tmp_path)
