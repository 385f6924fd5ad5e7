from __future__ import annotations

import errno
import json
import logging

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from data.errors import (
    BundleError,
    ImageDamaged,
    ImageTooLarge,
    IntegrityError,
    NotAnImage,
    RequestError,
)
from serving.patchcore.errors import BodyTimeout, Busy, Reporter, TooLarge, TooSlow, trail, without_paths

TABLE = [
    (RequestError("r"), 400),
    (NotAnImage("n"), 400),
    (ImageDamaged("d"), 400),
    (ImageTooLarge("l"), 413),
    (TooLarge("t"), 413),
    (BodyTimeout("b"), 408),
    (Busy("q", retry_after=7), 503),
    (TooSlow("s"), 504),
    (IntegrityError("i"), 500),
    (BundleError("e"), 500),
    (HTTPException(404), 404),
    (HTTPException(405, headers={"Allow": "POST"}), 405),
    (HTTPException(422), 400),
    (RequestValidationError([{"loc": ("body", "x"), "msg": "m", "type": "t"}]), 400),
    (KeyError("secret"), 500),
    (OSError(errno.ENOSPC, "No space left", "/secret/models"), 500),
    (PermissionError(errno.EROFS, "Read-only", "/secret/models"), 500),
]


@pytest.mark.parametrize(("error", "status"), TABLE, ids=lambda value: type(value).__name__)
def test_every_error_has_one_shape(error: Exception, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "retiderm.patchcore")
    answer = Reporter().response(error)
    body = json.loads(bytes(answer.body))
    assert answer.status_code == status
    assert set(body) == {"error", "trace"}
    assert body["error"]
    assert body["trace"] in caplog.text
    assert "secret" not in body["error"]
    assert answer.headers.get("retry-after") == ("7" if status == 503 else None)
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize(("number", "word"), [(errno.ENOSPC, "full"), (errno.EROFS, "write")])
def test_a_disk_that_takes_nothing_is_told_without_its_place(number: int, word: str) -> None:
    body = json.loads(bytes(Reporter().response(OSError(number, "so", "/secret/models")).body))
    assert word in body["error"]
    assert "secret" not in body["error"]


def _deep() -> None:
    try:
        open("/no/such/place/photo.png")  # noqa: PTH123, SIM115
    except OSError as error:
        raise RuntimeError("while reading /no/such/place/photo.png\nand more") from error


def test_the_log_has_the_way_to_the_error_and_no_path() -> None:
    try:
        _deep()
    except RuntimeError as error:
        line = trail(error)
    assert "_deep:" in line
    assert "RuntimeError: while reading <path>" in line
    assert "caused by" in line
    assert "FileNotFoundError: [Errno 2] No such file" in line
    assert "/no/such" not in line
    assert "photo" not in line
    assert "\n" not in line


def test_debugging_puts_the_real_trace_into_the_answer() -> None:
    try:
        _deep()
    except RuntimeError as error:
        body = json.loads(bytes(Reporter(debug=True).response(error).body))
    assert "Traceback (most recent call last)" in body["trace"]
    assert "FileNotFoundError" in body["trace"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("POST /fit_ok", True), ("1/2 of 3/4", True), ("mm²/px", True), ("at 2026-11-20", True),
        ("np.uint8/16", True), ("/data/models/a/b.npz", False), ("in '/tmp/x'", False),
        (r"C:\models\a", False), ("(/a/b)", False),
    ],
)  # fmt: skip
def test_paths_are_told_from_other_slashes(text: str, kept: bool) -> None:
    assert (without_paths(text) == text) == kept


def test_nothing_can_forge_a_line_of_the_log() -> None:
    assert "\n" not in without_paths("role\nINFO forged\r\x1b[2J")
