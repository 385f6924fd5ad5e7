from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import RequestError
from serving.patchcore import form as forms
from serving.patchcore.errors import TooLarge
from serving.patchcore.form import Form, read_form
from serving.patchcore.settings import Limits

LIMITS = Limits()


def encoded(fields: dict[str, str], files: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    request = httpx.Request(
        "POST", "http://x", data=fields, files=[(n, ("f.png", d, "image/png")) for n, d in files]
    )
    return request.headers["content-type"], request.read()


def read(content_type: str, body: bytes, step: int, limits: Limits = LIMITS) -> Form:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    async def offload(call: Any, *args: Any) -> Any:
        return await asyncio.to_thread(call, *args)

    return asyncio.run(read_form(content_type, pieces(), limits, offload))


@given(
    files=st.lists(
        st.tuples(st.sampled_from(["images", "image"]), st.binary(max_size=300)), min_size=1, max_size=6
    ),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    step=st.integers(1, 400),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_was_sent_is_read_however_it_is_cut(
    files: list[tuple[str, bytes]], text: str, step: int
) -> None:
    with read(*encoded({"shape": text}, files), step) as form:
        assert form.fields == {"shape": [text]}
        got = [(name, form.read(part)) for name, parts in form.files.items() for part in parts]
    assert sorted(got) == sorted(files)


def test_a_large_form_goes_to_the_disk_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_IN_MEMORY", 10_000)
    monkeypatch.setattr(forms, "_FLUSH", 4_000)
    files = [("images", bytes([n]) * 3_000) for n in range(12)]
    with read(*encoded({}, files), 1_000) as form:
        assert [form.read(part) for part in form.files["images"]] == [data for _, data in files]
        assert [form.read(part) for part in reversed(form.files["images"])] == [
            data for _, data in reversed(files)
        ]


def test_limits_end_the_reading_at_once() -> None:
    body = encoded({}, [("images", b"x" * 2_000)] * 4)
    for limits, words in (
        (replace(LIMITS, max_image_bytes=1_000), "1,000 bytes"),
        (replace(LIMITS, max_images=3), "3 files"),
    ):
        with pytest.raises(TooLarge, match=words):
            read(*body, 500, limits)
    with pytest.raises(TooLarge, match="field"):
        read(*encoded({"shape": "x" * 300_000}, [("image", b"")]), 5_000)
    with pytest.raises(TooLarge, match="64 fields"):
        read(*encoded({f"f{n}": "" for n in range(65)}, [("image", b"")]), 5_000)


@pytest.mark.parametrize("cut", [3, 4, 30, 100, 400])
def test_a_form_cut_off_anywhere_is_refused(cut: int) -> None:
    content_type, body = encoded({"role_id": "a"}, [("image", b"y" * 500)])
    with pytest.raises(RequestError):
        read(content_type, body[:-cut], 50)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "multipart/form-data", "multipart/mixed; boundary=b", "application/json"],
)
def test_what_is_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(RequestError, match="form"):
        read(content_type, b"--b--", 10)
