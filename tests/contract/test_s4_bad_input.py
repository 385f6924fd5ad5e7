"""What contract S4 refuses: always ``{"error", "trace"}``, always a status that says whose fault it is."""

from __future__ import annotations

import io
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.contract import s4_files
from tests.contract.s4_server import ROLE, S4Server, ok_images, ok_pixels, png, slow_fit
from tests.integration.serving.harness import PATIENCE_S, until

ROI = "Bad"
GOOD = png(ok_pixels(0))
NAMES = {"role_id": ROLE, "roi_id": ROI, "mm_per_px": "0.2"}


@pytest.fixture(scope="module", autouse=True)
def fitted(s4: S4Server) -> None:
    assert s4.fit(ok_images(3), roi=ROI).status_code == 200


def refused(answer: httpx.Response, status: int = 400, *words: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error", "trace"}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert isinstance(body["trace"], str)
    assert body["trace"]
    for word in words:
        assert word in body["error"], body["error"]
    return str(body["trace"])


def _bomb() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _gif() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(ok_pixels(0)).save(stream, "GIF")
    return stream.getvalue()


UNDECODABLE = {
    "empty": b"",
    "text": b"this is no image",
    "half a PNG": GOOD[: len(GOOD) // 2],
    "half a JPEG": cv2.imencode(".jpg", ok_pixels(0))[1].tobytes()[:900],
    "a GIF": _gif(),
    "a TIFF": cv2.imencode(".tiff", ok_pixels(0))[1].tobytes(),
}


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_an_image_that_cant_be_decoded(s4: S4Server, kind: str) -> None:
    refused(s4.infer(UNDECODABLE[kind], roi=ROI))
    before = s4_files.read_roi(s4.models, ROLE, ROI)["emb"]
    refused(s4.fit([GOOD, UNDECODABLE[kind]], roi=ROI))
    assert np.array_equal(s4_files.read_roi(s4.models, ROLE, ROI)["emb"], before)


def test_a_bomb_is_refused_from_its_header(s4: S4Server) -> None:
    refused(s4.infer(_bomb(), roi=ROI), 413, "20000×20000")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/pdf", "video/mp4", "text/html; charset=utf-8"]
)
def test_only_image_content_types(s4: S4Server, content_type: str) -> None:
    for path, name in (("/infer", "image"), ("/fit_ok", "images")):
        answer = s4.client.post(path, data=NAMES, files={name: ("a.png", GOOD, content_type)})
        refused(answer, 400, content_type.split(";")[0])


def test_no_memory_for_the_region(s4: S4Server) -> None:
    refused(s4.infer(GOOD, roi="Nowhere"), 400, "Nowhere", "/fit_ok")
    refused(s4.calibrate([0.1], roi="Nowhere"), 400, "Nowhere")
    refused(s4.fit([GOOD], roi="Nowhere", incremental="true"), 400, "Nowhere")
    assert not (s4.models / ROLE / "Nowhere").exists()


# The last rows look like letters, dots and slashes: Cyrillic, full width, division slash, one dot leader, an
# override of the writing direction.
TRICKS = [
    "", ".", "..", "../x", "..%2fx", "a/b", "/etc", "a\\b", "..\\x", "a\0b", "a\nb", "a b", " a", "a ", "~",
    "$HOME", "a..b", ".hidden", "x" * 300, "x" * 65, "CON:", "a*", "%00", "-" * 65,
    "\u0421", "\uff52ole", "a\u2215b", "a\uff0fb", "\u2024\u2024", "a\u202eb", "\xe9",
]  # fmt: skip


@pytest.mark.parametrize("name", TRICKS, ids=[ascii(name)[:20] for name in TRICKS])
def test_ids_are_path_safe_tokens(s4: S4Server, name: str) -> None:
    outside = sorted(path.name for path in s4.models.parent.iterdir())
    for role, roi in ((name, ROI), (ROLE, name)):
        refused(s4.infer(GOOD, role=role, roi=roi))
        refused(s4.fit([GOOD], role=role, roi=roi))
        refused(s4.calibrate([0.1], role=role, roi=roi))
    assert sorted(path.name for path in s4.models.parent.iterdir()) == outside


@pytest.mark.parametrize(
    "value", ["0", "-0.2", "nan", "inf", "-inf", "", "abc", "0,2", "1_0", "1e200", "1e999", "0x1", "٣"]
)
def test_mm_per_px_is_a_number_above_0(s4: S4Server, value: str) -> None:
    refused(s4.infer(GOOD, roi=ROI, mm_per_px=value), 400, "mm_per_px")
    refused(s4.fit([GOOD], roi=ROI, mm_per_px=value), 400, "mm_per_px")


@pytest.mark.parametrize("missing", ["role_id", "roi_id", "mm_per_px"])
def test_a_field_is_missing(s4: S4Server, missing: str) -> None:
    fields = {key: value for key, value in NAMES.items() if key != missing}
    for path, name in (("/infer", "image"), ("/fit_ok", "images")):
        refused(s4.client.post(path, data=fields, files={name: ("a.png", GOOD, "image/png")}), 400, missing)
    body = {"role_id": ROLE, "roi_id": ROI, "mm_per_px": 0.2, "ok_scores": [0.1]}
    del body[missing]
    refused(s4.client.post("/calibrate_ng", json=body), 400, missing)


def test_the_image_is_missing(s4: S4Server) -> None:
    other = {"other": ("a.png", GOOD, "image/png")}
    refused(s4.client.post("/infer", data=NAMES, files=other), 400, "image")
    refused(s4.client.post("/fit_ok", data=NAMES, files=other), 400, "images")
    refused(
        s4.client.post("/infer", files={"image": (None, "text"), "x": ("x", b"")}, data=NAMES), 400, "image"
    )
    two = [("image", ("a.png", GOOD, "image/png"))] * 2
    refused(s4.client.post("/infer", data=NAMES, files=two), 400, "2 files")


def test_images_of_different_sizes_in_one_fit(s4: S4Server) -> None:
    answer = s4.fit([GOOD, GOOD, png(ok_pixels(1, width=97))], roi=ROI)
    refused(answer, 400, "Image 3", "97×64", "96×64")


def test_a_memory_of_another_extractor(s4: S4Server) -> None:
    emb = s4_files.read_roi(s4.models, ROLE, ROI)["emb"]
    narrow = emb[:, :8] / np.linalg.norm(emb[:, :8], axis=1, keepdims=True)
    cases: dict[str, tuple[np.ndarray, tuple[int, int], dict[str, Any] | None]] = {
        "Dim": (narrow, (8, 8), None),
        "Grid": (emb, (16, 16), None),
        "Name": (emb, (8, 8), {"extractor": "vit_small_patch14_dinov2.lvd142m"}),
        "Digest": (emb, (8, 8), {"extractor": s4.card.backbone, "extractor_digest": "0" * 64}),
        "Size": (emb, (8, 8), {"extractor": s4.card.backbone, "input_size": [128, 128]}),
    }
    for roi, (vectors, grid, metadata) in cases.items():
        s4_files.write_roi(s4.models, "Other", roi, vectors, grid, metadata=metadata)
        refused(s4.infer(GOOD, role="Other", roi=roi), 400, "another extractor")
        refused(s4.calibrate([0.1], role="Other", roi=roi), 400, "another extractor")
        refused(s4.fit([GOOD], role="Other", roi=roi, incremental="true"), 400, "another extractor")
        # Fitted anew it is this extractor's.
        assert s4.fit([GOOD], role="Other", roi=roi).status_code == 200
        assert s4.infer(GOOD, role="Other", roi=roi).status_code == 200


@pytest.mark.parametrize(
    "shape",
    [
        "{", "[]", "3", '"rect"', '{"kind": "star"}', '{"kind": 3}', '{"kind": ["rect"]}',
        '{"kind": "circle", "r": NaN}', '{"kind": "circle", "r": "9"}', '{"kind": "circle", "r": -1}',
        '{"kind": "circle", "r": 0}', '{"kind": "circle", "r": 1e999}',
        '{"kind": "circle", "cx": 500, "cy": 500, "r": 3}', '{"kind": "rect", "x": 96, "w": 9, "h": 9}',
        '{"kind": "rect", "x": -20, "y": -20, "w": 9, "h": 9}', '{"kind": "rect", "w": 0}',
        '{"kind": "annulus", "r": 5, "r_inner": 9}', '{"kind": "annulus", "r_inner": true}', "[" * 100000,
    ],
)  # fmt: skip
def test_a_shape_that_cant_be_used(s4: S4Server, shape: str) -> None:
    refused(s4.infer(GOOD, roi=ROI, shape=shape), 400, "hape")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 200000,
        b'{"role_id": "Master1", "roi_id": "Bad", "mm_per_px": 0.2, "ok_scores": [NaN]}',
        b'{"role_id": "Master1", "roi_id": "Bad", "mm_per_px": 0.2, "ok_scores": [Infinity]}',
        b'{"role_id": "Master1", "roi_id": "Bad", "mm_per_px": 0.2, "ok_scores": [1e999]}',
        b'{"role_id": "Master1", "roi_id": "Bad", "mm_per_px": 0.2, "ok_scores": [' + b"9" * 5000 + b"]}",
    ],
)  # fmt: skip
def test_a_body_that_cant_be_used(s4: S4Server, body: bytes) -> None:
    answer = s4.client.post("/calibrate_ng", content=body, headers={"content-type": "application/json"})
    refused(answer)


@pytest.mark.parametrize(
    "change",
    [
        {"ok_scores": []}, {"ok_scores": None}, {"ok_scores": "0.1"}, {"ok_scores": {"a": 1}},
        {"ok_scores": [None]}, {"ok_scores": [True]}, {"ok_scores": [[0.1]]}, {"ok_scores": ["0.1"]},
        {"ok_scores": [-0.1]}, {"ng_scores": [None]}, {"ng_scores": 1}, {"ng_scores": [-1]}, {"mm_per_px": 0},
        {"mm_per_px": -1}, {"mm_per_px": "0.2"}, {"mm_per_px": True}, {"area_mm2_thr": -1},
        {"area_mm2_thr": "x"}, {"score_percentile": 101}, {"score_percentile": -1},
        {"score_percentile": "99"}, {"role_id": 3}, {"roi_id": None}, {"roi_id": ["a"]},
    ],
)  # fmt: skip
def test_a_calibration_that_cant_be_made(s4: S4Server, change: dict[str, Any]) -> None:
    body = {"role_id": ROLE, "roi_id": ROI, "mm_per_px": 0.2, "ok_scores": [0.1], **change}
    refused(s4.client.post("/calibrate_ng", json=body))
    assert s4_files.read_roi(s4.models, ROLE, ROI)["calib"] is None


def test_the_frameworks_own_errors_have_the_same_shape(s4: S4Server) -> None:
    refused(s4.client.get("/nothing"), 404)
    refused(s4.client.get("/models/../etc/passwd"), 404)
    refused(s4.client.get("/infer"), 405)
    refused(s4.client.put("/fit_ok", content=b"x" * 100000), 405)
    refused(s4.client.delete("/health"), 405)
    refused(s4.client.post("/infer"), 400)
    refused(s4.client.post("/infer", json={"role_id": ROLE}), 400, "form")
    refused(s4.client.post("/infer", data=NAMES), 400, "form")
    refused(s4.client.post("/infer", content=b"x", headers={"content-type": "multipart/form-data"}), 400)
    for body in (
        b"",
        b"--b",
        b"--b\r\n",
        b"--b\r\nx",
        b"--b\r\n\r\nx\r\n--b--",
        b"nothing",
        b"--b\r\n" + b"h" * 9000,
    ):
        answer = s4.client.post(
            "/infer", content=body, headers={"content-type": "multipart/form-data; boundary=b"}
        )
        refused(answer)


def test_a_form_that_ends_too_soon(s4: S4Server) -> None:
    head = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n"
    )
    answer = s4.client.post(
        "/infer", content=head + GOOD, headers={"content-type": "multipart/form-data; boundary=b"}
    )
    refused(answer, 400, "ends before")


def test_fields_that_contradict_each_other(s4: S4Server) -> None:
    files = [("role_id", (None, ROLE)), ("role_id", (None, "Other")), ("image", ("a.png", GOOD, "image/png"))]
    refused(s4.client.post("/infer", files=files, data={"roi_id": ROI, "mm_per_px": "1"}), 400, "role_id")
    refused(s4.fit([GOOD], roi=ROI, incremental="maybe"), 400, "incremental")


def test_a_trace_is_a_reference_that_the_log_knows(s4: S4Server) -> None:
    reference = refused(s4.infer(b"x", roi=ROI))
    assert len(reference) == 16
    line = next(line for line in s4.log.read_text().splitlines() if reference in line)
    assert "serving.patchcore.service.infer" in line
    assert "NotAnImage" in line


def test_damaged_files_are_the_servers_fault_and_name_no_path(s4: S4Server) -> None:
    for roi, change in {
        "NoZip": lambda f: (f / "memory.npz").write_bytes(b"not a zip"),
        "Pickle": lambda f: np.savez(f / "memory.npz", emb=np.array([{}], object), token_h=8, token_w=8),
        "Nan": lambda f: np.savez(
            f / "memory.npz", emb=np.full((2, 16), np.nan, np.float32), token_h=8, token_w=8
        ),
        "Calib": lambda f: (f / "calib.json").write_text("{"),
    }.items():
        s4.fit([GOOD], roi=roi)
        change(s4.models / ROLE / roi)
        answer = s4.infer(GOOD, roi=roi)
        reference = refused(answer, 500)
        assert str(s4.models) not in answer.text
        assert reference in s4.log.read_text()
        assert s4.fit([GOOD], roi=roi).status_code == 200
        assert s4.infer(GOOD, roi=roi).status_code == 200


# ---- limits, on the server that has small ones ----


def test_a_request_over_the_limits_of_size(s4_small: S4Server) -> None:
    assert s4_small.fit(ok_images(2), roi=ROI).status_code == 200
    noise = np.random.default_rng(0).integers(0, 256, (250, 250, 3), dtype=np.uint8)
    refused(s4_small.infer(png(noise), roi=ROI), 413, "bytes")
    refused(s4_small.infer(png(np.zeros((600, 600, 3), np.uint8)), roi=ROI), 413, "600×600")
    refused(s4_small.fit([b"x"] * 1501, roi=ROI), 413, "1,500 files")
    refused(s4_small.fit([b"x" * 90_000] * 17, roi=ROI), 413, "1,500,000 bytes")
    refused(s4_small.calibrate([0.1] * 1001, roi=ROI), 413, "scores")
    refused(s4_small.calibrate([0.123456789] * 30000, roi=ROI), 413, "bytes")

    def chunked() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(50):
            yield b"y" * 10_000

    refused(
        s4_small.client.post(
            "/infer", content=chunked(), headers={"content-type": "multipart/form-data; boundary=b"}
        ),
        413,
    )
    refused(s4_small.client.post("/nothing", content=chunked()), 404)
    many = {f"field{n}": "x" for n in range(100)}
    refused(
        s4_small.client.post("/infer", data={**NAMES, **many}, files={"image": ("a", GOOD)}), 413, "fields"
    )
    long = {**NAMES, "shape": "x" * 150_000}
    refused(s4_small.client.post("/infer", data={**long, "other": "y"}, files={"image": ("a", GOOD)}), 400)
    # The connection is still good, and so is the server.
    assert s4_small.infer(GOOD, roi=ROI).status_code == 200


def test_real_traces_in_debug_mode_only(s4_small: S4Server) -> None:
    trace = refused(s4_small.infer(b"x", roi="Bad"))
    assert "Traceback" in trace
    assert "NotAnImage" in trace


def test_a_body_that_does_not_arrive(tmp_path: Path) -> None:
    with S4Server(tmp_path, {"PATCHCORE_UPLOAD_S": "1"}).running() as server:
        url = urlsplit(str(server.client.base_url))
        with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S) as connection:
            connection.sendall(
                b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: 1000\r\n\r\n--b\r\n"
            )
            answer = b""
            while b'"trace"' not in answer:
                piece = connection.recv(4096)
                assert piece, answer
                answer += piece
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"error"' in answer


def test_a_fit_that_takes_too_long_changes_nothing_and_a_full_queue_says_so(tmp_path: Path) -> None:
    roi = "Slow"
    limits = {"PATCHCORE_FIT_S": "2", "PATCHCORE_MAX_WAITING_FITS": "1", "CORESET_RATE": "0.9"}
    with S4Server(tmp_path, limits).running() as server:
        # On a busy machine these two seconds may be short for a small fit as well.
        until(lambda: server.fit(ok_images(3), roi=roi).status_code == 200)
        before = s4_files.read_roi(server.models, ROLE, roi)
        images, stop = slow_fit(), threading.Event()
        slow: list[httpx.Response] = []
        others: list[httpx.Response] = []

        def keep_fitting() -> None:
            while not stop.is_set():
                slow.append(server.fit(images, roi=roi))

        def is_full() -> bool:
            others.append(server.fit([GOOD], roi="Other"))
            return others[-1].status_code == 503

        with ThreadPoolExecutor(2) as pool:
            fitting = [pool.submit(keep_fitting) for _ in range(2)]
            try:
                until(is_full)
                refused(others[-1], 503, "waiting")
                assert int(others[-1].headers["retry-after"]) >= 1
                # What is quick is answered meanwhile.
                assert server.client.get("/health").status_code == 200
                assert server.infer(GOOD, roi=roi).status_code == 200
                until(lambda: any(answer.status_code != 503 for answer in slow))
            finally:
                stop.set()
            for each in fitting:
                each.result()
        for answer in slow:
            if answer.status_code == 503:
                refused(answer, 503, "waiting")
            else:
                refused(answer, 504, "2 s")
        after = s4_files.read_roi(server.models, ROLE, roi)
        assert before["metadata"]["generation"] == after["metadata"]["generation"]
        until(lambda: server.fit([GOOD], roi="Other").status_code == 200)
