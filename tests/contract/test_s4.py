"""Contract S4 over HTTP, against a real server: the whole story, field by field, and the files it leaves."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.contract import s4_files
from tests.contract.s4_server import HEIGHT, ROI, ROLE, WIDTH, S4Server, ng_pixels, ok_images, ok_pixels, png

MM = 0.2


def picture_of(answer: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(answer["heatmap_png_base64"], validate=True)
    assert data.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def patches_of(server: S4Server, rgb: np.ndarray) -> np.ndarray:
    """[Ht, Wt, D] by the extractor's file alone."""
    session = onnxruntime.InferenceSession(str(server.extractor / "extractor.onnx"))
    side = session.get_inputs()[0].shape[1]
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    return session.run(["patches"], {"images": small[None]})[0][0]


def map_by_hand(server: S4Server, roi: str, rgb: np.ndarray) -> np.ndarray:
    """Distances by FAISS from the files, upsampled and blurred as the contract says."""
    patches = patches_of(server, rgb)
    stored = s4_files.read_roi(server.models, ROLE, roi)
    found = s4_files.distances(stored, patches.reshape(-1, patches.shape[-1]))
    grid = found.reshape(patches.shape[:2]).astype(np.float32)
    upsampled = cv2.resize(grid, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(upsampled, (0, 0), 1.0)


def test_health_has_exactly_the_contracts_keys(s4: S4Server) -> None:
    answer = s4.client.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"status", "device", "model", "version"}
    assert body["status"] == "ok"
    assert body["device"] == "cpu"
    assert body["model"] == s4.card.backbone


def test_the_whole_story(s4: S4Server) -> None:
    images = ok_images(6)
    fitted = s4.fit(images)
    assert fitted.status_code == 200, fitted.text
    body = fitted.json()
    assert set(body) == {
        "n_embeddings", "coreset_size", "token_shape", "coreset_rate_requested", "coreset_rate_applied",
    }  # fmt: skip
    assert body["n_embeddings"] == 6 * 64
    assert body["coreset_size"] == int(np.ceil(6 * 64 * 0.02))
    assert body["token_shape"] == [8, 8]
    assert body["coreset_rate_requested"] == 0.02
    assert body["coreset_rate_applied"] == pytest.approx(body["coreset_size"] / body["n_embeddings"])

    # The files, by a program that knows the contract only.
    script = Path(s4_files.__file__)
    said = subprocess.run(
        [sys.executable, str(script), str(s4.models), ROLE, ROI], capture_output=True, text=True, check=True
    )
    read = json.loads(said.stdout)
    assert read["dtype"] == "float32"
    assert read["coreset"] == read["index"] == body["coreset_size"]
    assert read["grid"] == [8, 8]
    assert read["longest"] == pytest.approx(1, abs=1e-5)
    assert read["calib"] is None
    assert read["metadata"]["extractor"] == s4.card.backbone
    assert read["metadata"]["input_size"] == [64, 64]
    assert isinstance(read["metadata"]["format"], int)

    # Not calibrated yet.
    marked = ng_pixels(100, left=70, top=8)
    first = s4.infer(png(marked)).json()
    assert set(first) == {
        "role_id", "roi_id", "score", "threshold", "heatmap_png_base64", "regions", "token_shape", "params",
    }  # fmt: skip
    assert (first["role_id"], first["roi_id"]) == (ROLE, ROI)
    assert first["threshold"] is None
    assert first["regions"] == []
    assert first["token_shape"] == [8, 8]
    assert isinstance(first["params"], dict)
    by_hand = map_by_hand(s4, ROI, marked)
    assert first["score"] == pytest.approx(np.percentile(by_hand, 99), abs=1e-5)
    assert 0 <= first["score"] <= 4
    low, high = np.percentile(by_hand, [1, 99])
    picture = picture_of(first)
    assert picture.shape == (HEIGHT, WIDTH)
    assert picture.dtype == np.uint8
    wanted = np.clip((by_hand - low) / (high - low), 0, 1) * 255
    assert np.abs(picture - wanted).max() <= 1

    # Calibrated by OK scores alone, then with NG scores.
    ok = [s4.infer(image).json()["score"] for image in ok_images(5, start=50)]
    alone = s4.calibrate(ok)
    assert alone.status_code == 200, alone.text
    assert alone.json() == {
        "threshold": pytest.approx(np.percentile(ok, 99)),
        "p99_ok": pytest.approx(np.percentile(ok, 99)),
        "p5_ng": None,
        "mm_per_px": MM,
        "area_mm2_thr": 1.0,
        "score_percentile": 99,
    }
    both = s4.calibrate(ok, [first["score"]], area_mm2_thr=0.5, score_percentile=98).json()
    middle = (np.percentile(ok, 99) + first["score"]) / 2
    assert both["threshold"] == pytest.approx(middle)
    assert both["p5_ng"] == pytest.approx(first["score"])
    assert both["area_mm2_thr"] == 0.5
    assert both["score_percentile"] == 98
    assert s4_files.read_roi(s4.models, ROLE, ROI)["calib"] == both
    overlapping = s4.calibrate([0.2, 0.3], [0.1]).json()
    assert overlapping["threshold"] == pytest.approx(1.02 * np.percentile([0.2, 0.3], 99))

    # Calibrated: the mark is the largest region, in pixels and in mm² of this request's scale.
    both = s4.calibrate(ok, [first["score"]]).json()
    found = s4.infer(png(marked), mm_per_px=0.5).json()
    assert found["threshold"] == pytest.approx(both["threshold"])
    areas = [region["area_px"] for region in found["regions"]]
    assert areas
    assert areas == sorted(areas, reverse=True)
    for region in found["regions"]:
        assert set(region) == {"bbox", "area_px", "area_mm2", "contour"}
        assert region["area_mm2"] == pytest.approx(region["area_px"] * 0.25)
        x, y, w, h = region["bbox"]
        points = np.array(region["contour"])
        assert points.shape[1] == 2
        assert (points.min(0) >= (x, y)).all()
        assert (points.max(0) <= (x + w - 1, y + h - 1)).all()
    x, y, w, h = found["regions"][0]["bbox"]
    assert x <= 76 < x + w
    assert y <= 14 < y + h
    clean = s4.infer(png(ok_pixels(50))).json()
    assert clean["score"] < both["threshold"]

    # A new fit is a new generation: the calibration went with the old one.
    assert s4.fit(ok_images(4, start=10)).status_code == 200
    assert s4_files.read_roi(s4.models, ROLE, ROI)["calib"] is None
    again = s4.infer(png(marked)).json()
    assert again["threshold"] is None
    assert again["regions"] == []


def test_islands_below_the_area_are_dropped_by_the_requests_scale(s4: S4Server) -> None:
    roi = "Islands"
    s4.fit(ok_images(4), roi=roi)
    marked = png(ng_pixels(3, left=20, top=20))
    score = s4.infer(marked, roi=roi).json()["score"]
    s4.calibrate([score / 4], roi=roi, area_mm2_thr=1.0)
    large = s4.infer(marked, roi=roi, mm_per_px=0.5).json()["regions"]
    assert large
    tiny = s4.infer(marked, roi=roi, mm_per_px=0.0001).json()
    assert tiny["regions"] == []
    assert tiny["score"] == pytest.approx(s4.infer(marked, roi=roi, mm_per_px=0.5).json()["score"])


def _in_the_rect(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x > 10) & (x < 40) & (y > 5) & (y < 25)


@pytest.mark.parametrize(
    ("shape", "inside"),
    [
        (None, lambda x, y: np.ones_like(x, bool)),
        ("", lambda x, y: np.ones_like(x, bool)),
        ("null", lambda x, y: np.ones_like(x, bool)),
        ({}, lambda x, y: np.ones_like(x, bool)),
        ({"kind": "rect"}, lambda x, y: np.ones_like(x, bool)),
        ({"kind": "rect", "x": 10, "y": 5, "w": 30, "h": 20}, _in_the_rect),
        ({"x": 10, "y": 5, "w": 30, "h": 20}, _in_the_rect),
        ({"kind": "circle"}, lambda x, y: (x - 48) ** 2 + (y - 32) ** 2 <= 32**2),
        ({"kind": "CIRCLE", "cx": 30, "cy": 30, "r": 12}, lambda x, y: (x - 30) ** 2 + (y - 30) ** 2 <= 144),
        (
            {"kind": "circle", "cx": 30, "cy": 30, "r": 12, "r_inner": 0, "w": 5, "angle_deg": 3},
            lambda x, y: (x - 30) ** 2 + (y - 30) ** 2 <= 144,
        ),
        (
            {"kind": "annulus", "cx": 48, "cy": 32, "r": 30, "r_inner": 10},
            lambda x, y: ((x - 48) ** 2 + (y - 32) ** 2 <= 900) & ((x - 48) ** 2 + (y - 32) ** 2 >= 100),
        ),
    ],
)  # fmt: skip
def test_a_shape_masks_and_nothing_else(s4: S4Server, shape: Any, inside: Any) -> None:
    roi = "Shapes"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(4), roi=roi)
    marked = ng_pixels(5, left=24, top=24)
    answer = s4.infer(png(marked), roi=roi, shape=shape)
    assert answer.status_code == 200, answer.text
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    mask = inside(x, y)
    by_hand = map_by_hand(s4, roi, marked)
    assert answer.json()["score"] == pytest.approx(np.percentile(by_hand[mask], 99), abs=1e-5)
    picture = picture_of(answer.json())
    assert picture.shape == (HEIGHT, WIDTH)
    assert (picture[~mask] == 0).all()
    assert picture[mask].max() == 255


def _jpeg(rgb: np.ndarray, orientation: int) -> bytes:
    return _saved(rgb, "JPEG", orientation, quality=98)


def _saved(rgb: np.ndarray, kind: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, kind, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("orientation", "left", "top"), [(1, 2, 2), (3, 82, 50), (6, 2, 50), (8, 82, 2)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_output_pixels_are_input_pixels(
    s4: S4Server, kind: str, orientation: int, left: int, top: int
) -> None:
    roi = "Geometry"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(6), roi=roi, memory_fit="true")
        s4.calibrate([0.02], roi=roi)
    marked = ng_pixels(7, left=left, top=top)
    answer = s4.infer(_saved(marked, kind, orientation), roi=roi).json()
    picture = picture_of(answer)
    # The width of the stored pixels, and the brightest place where the mark lies: nothing was turned.
    assert picture.shape == (HEIGHT, WIDTH)
    y, x = np.unravel_index(picture.astype(int).argmax(), picture.shape)
    assert left - 8 <= x < left + 20
    assert top - 6 <= y < top + 18
    bright = picture > 200
    ys, xs = np.nonzero(bright)
    assert abs(xs.mean() - (left + 5.5)) < 6
    assert abs(ys.mean() - (top + 5.5)) < 6
    x, y, w, h = answer["regions"][0]["bbox"]
    assert x <= left + 6 < x + w
    assert y <= top + 6 < y + h


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 2), (13, 201)])
def test_any_size_is_answered_at_its_own_size(s4: S4Server, size: tuple[int, int]) -> None:
    roi = "Sizes"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(3), roi=roi)
    width, height = size
    answer = s4.infer(png(np.full((height, width, 3), 120, np.uint8)), roi=roi)
    assert answer.status_code == 200, answer.text
    assert picture_of(answer.json()).shape == (height, width)
    assert 0 <= answer.json()["score"] <= 4


def test_an_incremental_fit_joins_and_says_its_bound(s4: S4Server) -> None:
    roi = "Joined"
    first = s4.fit(ok_images(4), roi=roi).json()
    s4.calibrate([0.1], roi=roi)
    before = s4_files.read_roi(s4.models, ROLE, roi)
    odd = ng_pixels(3, left=24, top=24)
    unknown = s4.infer(png(odd), roi=roi).json()["score"]
    joined = s4.fit([png(odd)] * 2, roi=roi, incremental="true").json()
    assert joined["n_embeddings"] == first["n_embeddings"] + 2 * 64
    assert joined["coreset_size"] == int(np.ceil(joined["n_embeddings"] * 0.02))
    known = s4.infer(png(odd), roi=roi).json()
    assert known["score"] < unknown / 2
    assert known["threshold"] is None, "a new memory is calibrated anew"

    # The bound holds over every patch that it was ever fitted with, the old images' too.
    after = s4_files.read_roi(s4.models, ROLE, roi)
    ever = [patches_of(s4, ok_pixels(n)) for n in range(4)] + [patches_of(s4, odd)]
    farthest = s4_files.distances(after, np.concatenate([p.reshape(-1, p.shape[-1]) for p in ever])).max()
    assert farthest <= joined["cover_radius_bound"] + 1e-6
    assert after["metadata"]["n_embeddings"] == joined["n_embeddings"]
    assert len(before["emb"]) == first["coreset_size"]


def test_a_fit_of_every_embedding_keeps_every_embedding(s4: S4Server) -> None:
    whole = s4.fit(ok_images(2), roi="Whole", memory_fit="true").json()
    assert whole["coreset_size"] == whole["n_embeddings"] == 128
    assert whole["coreset_rate_requested"] == whole["coreset_rate_applied"] == 1.0
    usual = s4.fit(ok_images(2), roi="Whole", memory_fit="false").json()
    assert usual["coreset_size"] == 3


def test_the_old_guis_form_is_read_as_it_is_written(s4: S4Server) -> None:
    """.NET's MultipartFormDataContent: quoted boundary, bare names, two file names, a type on every part."""

    def form(parts: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
        boundary = "e7c1a9b2-91f4-4d0e-8f5e-0a2b6c3d4e5f"
        body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
        return body + f"--{boundary}--\r\n".encode(), {
            "content-type": f'multipart/form-data; boundary="{boundary}"'
        }

    def text(name: str, value: str) -> tuple[str, bytes]:
        head = f"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name={name}"
        return head, value.encode()

    def file(name: str, data: bytes) -> tuple[str, bytes]:
        named = f"name={name}; filename=roi.png; filename*=utf-8''roi.png"
        return f"Content-Type: image/png\r\nContent-Disposition: form-data; {named}", data

    where = [text("role_id", ROLE), text("roi_id", "Dotnet"), text("mm_per_px", "0.2")]
    body, headers = form([*where, text("memory_fit", "false"), *(file("images", i) for i in ok_images(3))])
    fitted = s4.client.post("/fit_ok", content=body, headers=headers)
    assert fitted.status_code == 200, fitted.text
    for name in ("image", "file"):
        body, headers = form(
            [*where, text("model_key", "Dotnet"), file(name, png(ok_pixels(1))), text("shape", "")]
        )
        assert s4.client.post("/infer", content=body, headers=headers).status_code == 200
    # It asks whether a route is there with OPTIONS, and takes 405 for yes.
    assert s4.client.options("/infer").status_code == 405


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "application/octet-stream", None])
def test_what_names_an_image_is_its_bytes(s4: S4Server, content_type: str | None) -> None:
    roi = "Types"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(3), roi=roi)
    bmp = cv2.imencode(".bmp", ok_pixels(1))[1].tobytes()
    for data in (png(ok_pixels(1)), _jpeg(ok_pixels(1), 1), bmp):
        answer = s4.client.post(
            "/infer",
            data={"role_id": ROLE, "roi_id": roi, "mm_per_px": "0.2"},
            files={"image": ("roi", data, content_type)},
        )
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["grey", "grey 16", "colour 16", "alpha"])
def test_other_depths_and_channels_are_read(s4: S4Server, kind: str) -> None:
    roi = "Types"
    if not (s4.models / ROLE / roi).exists():
        s4.fit(ok_images(3), roi=roi)
    rgb = ok_pixels(2)
    pixels = {
        "grey": rgb[..., 0],
        "grey 16": rgb[..., 0].astype(np.uint16) * 257,
        "colour 16": rgb[..., ::-1].astype(np.uint16) * 257,
        "alpha": np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 7, np.uint8)]),
    }[kind]
    answer = s4.infer(cv2.imencode(".png", pixels)[1].tobytes(), roi=roi).json()
    if kind in ("colour 16", "alpha"):
        assert answer["score"] == pytest.approx(s4.infer(png(rgb), roi=roi).json()["score"], abs=1e-6)
    assert 0 <= answer["score"] <= 4


OLD = {
    "threshold": 0.4,
    "p99_ok": 0.3,
    "p5_ng": 0.5,
    "mm_per_px": 0.2,
    "area_mm2_thr": 1.0,
    "score_percentile": 99,
}


@pytest.mark.parametrize("flat", [False, True], ids=["folders", "flat"])
@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize(
    "metadata", [None, {"coreset_rate": 0.02, "applied_rate": 0.0208}], ids=["bare", "metadata"]
)
@pytest.mark.parametrize("calib", [None, OLD], ids=["uncalibrated", "calibrated"])
def test_files_in_every_old_layout_are_served(
    s4: S4Server, flat: bool, index: bool, metadata: dict[str, Any] | None, calib: dict[str, Any] | None
) -> None:
    role = "Old"
    roi = f"R{flat:d}{index:d}{metadata is not None:d}{calib is not None:d}"
    patches = np.concatenate([patches_of(s4, ok_pixels(n)).reshape(-1, 16) for n in range(3)])
    emb = patches[np.random.default_rng(0).permutation(len(patches))[:20]]
    s4_files.write_roi(
        s4.models, role, roi, emb, (8, 8), flat=flat, metadata=metadata, index=index, calib=calib
    )

    marked = ng_pixels(9, left=40, top=20)
    answers = [s4.infer(png(marked), role=role, roi=roi) for _ in range(2)]
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json() == answers[1].json()
    answer = answers[0].json()
    grid = s4_files.distances({"emb": emb, "index": None}, patches_of(s4, marked).reshape(-1, 16)).reshape(
        8, 8
    )
    upsampled = cv2.resize(grid.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    by_hand = cv2.GaussianBlur(upsampled, (0, 0), 1.0)
    assert answer["score"] == pytest.approx(np.percentile(by_hand, 99), abs=1e-5), "squared L2 on every path"
    if calib is None:
        assert answer["threshold"] is None
    else:
        # Without index.faiss the old service measured, and so calibrated, Euclidean distances.
        threshold = 0.4 if index else 0.4**2
        assert answer["threshold"] == pytest.approx(threshold)
        if not index:
            migrated = s4_files.read_roi(s4.models, role, roi)["calib"]
            assert migrated["threshold"] == pytest.approx(threshold)
            assert migrated["p99_ok"] == pytest.approx(0.09)
            assert migrated["p5_ng"] == pytest.approx(0.25)
            assert f"roi={roi}" in s4.log.read_text() or f"ROI {roi}" in s4.log.read_text()

    # A new fit writes the contract's folder, and the old calibration no longer counts.
    assert s4.fit(ok_images(2), role=role, roi=roi).status_code == 200
    assert s4_files.read_roi(s4.models, role, roi)["calib"] is None
    assert s4.infer(png(marked), role=role, roi=roi).json()["threshold"] is None


def test_the_log_has_the_timings_and_no_image_and_no_path(s4: S4Server) -> None:
    roi = "Logged"
    s4.fit(ok_images(3), roi=roi)
    s4.infer(png(ok_pixels(1)), roi=roi)
    s4.calibrate([0.1], roi=roi)
    s4.infer(b"no image", roi=roi)
    lines = [line for line in s4.log.read_text().splitlines() if f"roi={roi}" in line]
    fit = next(line for line in lines if " fit_ok " in line)
    for word in ("role=Master1", "device=cpu", "images=3", "embeddings=192", "coreset=4", "token_shape=8x8",
                 "decode_ms=", "extract_ms=", "coreset_ms=", "publish_ms=", "total_ms="):  # fmt: skip
        assert word in fit
    infer = next(line for line in lines if " infer " in line)
    for word in ("decode_ms=", "extract_ms=", "search_ms=", "encode_ms=", "token_shape=8x8"):
        assert word in infer
    whole = s4.log.read_text()
    for secret in (str(s4.models), str(s4.models.parent), "ok-0.png", "roi.png", "site-packages"):
        assert secret not in whole


def test_metrics_and_documentation_are_served(s4: S4Server) -> None:
    assert 'retiderm_step_seconds_count{model="patchcore"' in s4.client.get("/metrics").text
    assert s4.client.get("/docs").status_code == 200
    paths = s4.client.get("/openapi.json").json()["paths"]
    assert {"/health", "/fit_ok", "/calibrate_ng", "/infer"} <= set(paths)
    form = paths["/infer"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"role_id", "roi_id", "mm_per_px", "image", "shape"}
