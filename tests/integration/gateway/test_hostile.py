"""Requests that mean harm: bytes at random, injections into every part, bombs. No 500, nothing told."""

from __future__ import annotations

import io
import random
import socket
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from serving.gateway.access import Role
from serving.gateway.systems import all_systems
from tests.gateway_live import Live, form_of, live_gateway, live_models, photograph

LEAKS = ("Traceback", "site-packages", 'File "', "sqlalchemy", "psycopg", "SELECT ", "INSERT ", "/serving/")
INJECTIONS = (
    "' OR '1'='1", "1; DROP TABLE patients;--", "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%00",
    "\x00", "{{7*7}}", "${jndi:ldap://x}", "<script>alert(1)</script>", "😀" * 50, b"\xed\xa0\x80",
    "a" * 5000, "-1", "1e999", "NaN", "true", "[]", "\r\nx-evil: 1",
)  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("hostile")
    with (
        live_models(folder / "models") as servers,
        live_gateway(folder / "gateway", servers.url, GATEWAY_SYSTEMS=",".join(all_systems())) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def token(live: Live) -> str:
    return live.token(Role.ADMIN, kind="bearer")


@pytest.fixture(scope="module")
def routes(live: Live) -> list[tuple[str, str]]:
    """Method and path of every route in the document."""
    document = httpx.get(f"{live.url}/openapi.json", trust_env=False, timeout=60).json()
    return [(method.upper(), path) for path, item in document["paths"].items() for method in item]


def harmless(live: Live, status: int, text: str, what: Any) -> None:
    """No 500, and nothing that would help an attacker."""
    assert status != 500, (what, text[:500])
    found = [word for word in (*LEAKS, str(live.folder)) if word in text]
    assert not found, (what, found, text[:500])


def say(address: tuple[str, int], data: bytes) -> bytes:
    """Send bytes as they are; what comes back until the server closes or says no more."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def at_random(live: Live, token: str, routes: list[tuple[str, str]], count: int, seed: int) -> Counter[int]:
    """``count`` requests: half are bytes at random on the socket, half random bodies for a real route."""
    chance = random.Random(seed)
    host, _, port = live.url.removeprefix("http://").partition(":")
    statuses: Counter[int] = Counter()
    kinds = ["application/json", "multipart/form-data; boundary=x", "image/jpeg", "text/plain", "", "x" * 200]
    with live.client(token) as client:
        for n in range(count):
            junk = chance.randbytes(chance.choice([0, 1, 7, 60, 900, 20_000]))
            if n % 2:
                lines = [b"GET /", b"POST /check-image", b"\x16\x03\x01", b"", b"PUT /v1/"]
                try:
                    answer = say((host, int(port)), chance.choice(lines) + junk)
                except ConnectionError:
                    continue  # closed on us while we still sent
                harmless(live, 500 if b" 500 " in answer[:20] else 0, answer.decode("latin1"), junk[:50])
                continue
            method, path = chance.choice(routes)
            path = path.format_map(_Filled(chance))
            kind = chance.choice(kinds)
            if kind.startswith("multipart") and chance.random() < 0.7:
                junk = (
                    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
                    + junk
                    + b"\r\n--x--\r\n"
                )
            if kind == "application/json" and chance.random() < 0.5:
                junk = b'{"case_id": ' + chance.choice([b'"a"', b"1", b"null", b"[]", junk]) + b"}"
            headers = {"content-type": kind, "authorization": f"Bearer {token}"}
            response = client.request(method, path, content=junk, headers=headers)
            statuses[response.status_code] += 1
            harmless(live, response.status_code, response.text, (method, path, junk[:80]))
    return statuses


class _Same(dict[str, str]):
    """One word for each name in a path."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def __missing__(self, _: str) -> str:
        return self._word


class _Filled(dict[str, str]):
    """A word at random for each name in a path."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    def __missing__(self, _: str) -> str:
        words = [
            "0",
            "x",
            "%2e%2e",
            "00000000-0000-0000-0000-000000000000",
            "dr_grading",
            "%f0%9f",
            "a" * 300,
        ]
        return self._chance.choice(words)


def test_bytes_at_random(live: Live, token: str, routes: list[tuple[str, str]]) -> None:
    statuses = at_random(live, token, routes, 600, 0)
    assert statuses[400] + statuses[404] + statuses[422] > 50, statuses
    assert httpx.get(f"{live.url}/livez", trust_env=False, timeout=60).status_code == 200


@pytest.mark.slow
def test_ten_thousand_times_bytes_at_random(live: Live, token: str, routes: list[tuple[str, str]]) -> None:
    statuses = at_random(live, token, routes, 10_000, 1)
    assert sum(statuses.values()) == 5_000
    assert httpx.get(f"{live.url}/livez", trust_env=False, timeout=60).status_code == 200


@pytest.mark.parametrize("word", INJECTIONS, ids=range(len(INJECTIONS)))
def test_injections_into_every_part(
    live: Live, token: str, routes: list[tuple[str, str]], word: str | bytes
) -> None:
    raw = word if isinstance(word, bytes) else word.encode()
    text = raw.decode("utf-8", "replace")
    with live.client(token) as client:
        for method, path in routes:
            shown = path.format_map(_Same(quote(text, safe="")))
            bodies: list[dict[str, Any]] = [
                {"params": {"case_id": text, "patient_id": text, "limit": text, "status": text}}
            ]
            if method in ("POST", "PUT", "PATCH"):
                names = ("case_id", "name", "image_id", "reason", "task", "email")
                bodies.append({"json": dict.fromkeys(names, text)})
                fields = {"patient_id": text, "role_id": text}
                bodies.append({"files": form_of(photograph(0), name="../../x"), "data": fields})
            for body in bodies:
                response = client.request(method, shown, headers={"authorization": f"Bearer {token}"}, **body)
                harmless(live, response.status_code, response.text, (method, shown, body))
                assert "x-evil" not in response.headers
        for name in (
            "x-request-id",
            "idempotency-key",
            "origin",
            "x-api-key",
            "authorization",
            "content-length",
        ):
            if b"\r" in raw or b"\x00" in raw:
                continue
            try:
                response = client.get("/readyz", headers={name: raw})
            except httpx.HTTPError:
                continue
            harmless(live, response.status_code, response.text, name)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would be large."""
    size = 60_000
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 3_000_000, 9)
    chunks = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    yield "png of 3.6 gigapixels", b"\x89PNG\r\n\x1a\n" + chunks
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0", b"\0" * 10_000_000)
    yield "zip", stream.getvalue()
    yield "gzip of zeros", zlib.compress(b"\0" * 10_000_000, 9)
    yield "jpeg cut off", photograph(0)[:200]
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


@pytest.mark.parametrize("bomb", list(bombs()), ids=lambda bomb: bomb[0])
def test_bombs(live: Live, token: str, bomb: tuple[str, bytes]) -> None:
    with live.client(token) as client:
        for path in ("/check-image", "/upload"):
            response = client.post(path, files=form_of(bomb[1]))
            assert response.status_code == 400, response.text
            assert response.json() == {"detail": "Invalid image file"}
        packed = client.post(
            "/check-image",
            content=bomb[1],
            headers={"content-type": "image/jpeg", "content-encoding": "gzip"},
        )
        assert packed.status_code in (400, 415), packed.text


def test_bodies_over_the_limit_are_refused_before_they_are_read(live: Live, token: str) -> None:
    host, _, port = live.url.removeprefix("http://").partition(":")
    head = (
        f"POST /check-image HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\ncontent-length: 99999999999\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]

    def endless() -> Iterator[bytes]:
        for _ in range(30):
            yield b"\0" * 2**20

    with live.client(token) as client:
        try:
            response = client.post("/check-image", content=endless(), headers={"content-type": "image/png"})
        except httpx.HTTPError:
            return  # it hung up on us in the middle, as it may
        assert response.status_code == 413
