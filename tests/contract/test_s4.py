"""Contract S4 over HTTP, against a real server: the whole story, field by field, and what is seen of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.contract import s4_files
from tests.contract.s4_by_hand import map_by_hand, picture_of
from tests.contract.s4_server import HEIGHT, ROI, ROLE, WIDTH, S4Server, ng_pixels, ok_images, ok_pixels, png

MM = 0.2


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
