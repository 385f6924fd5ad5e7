"""The kinds of bad input to anomaly models: over the platform's wires, and to the PatchCore service (S4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import httpx
import numpy as np

from tests.anomaly_bundles import file, surface, with_blot
from tests.contract.s4_server import ROI, ROLE, S4Server, ok_images, ok_pixels, png
from tests.integration.serving import pictures
from tests.integration.serving.harness import WIRES, Reply, Servers, ask
from tests.integration.serving.kinds import Ask, Kind

TASK = "anomaly"
OK = file(surface(512, seed=70))


def anomaly_kinds() -> Iterator[Kind]:
    """What a model of kind ``anomaly`` is shown over every wire."""
    jpeg = pictures.file(surface(512, seed=70), "jpeg")
    yield _kind("a JPEG cut in half", 422, [jpeg[: len(jpeg) // 2]])
    yield _kind("text named .jpg", 415, [b"This is a screw, honestly.\n" * 20])
    yield _kind("zero bytes", 415, [b""])
    yield _kind("a bomb: 400 megapixels in 400 bytes", 413, [pictures.bomb()])
    yield _kind("one pixel", 200, [file(surface()[:1, :1])], "ungradable: too_small")
    strip = pictures.file(np.full((1, 6000, 3), 120, np.uint8), "png")
    yield _kind("a strip of 6,000 × 1 pixels", 200, [strip], "ungradable: too_small")
    yield _kind("all black", 200, [file(np.zeros((300, 300, 3), np.uint8))], "ungradable: blank")
    blurred = np.asarray(cv2.GaussianBlur(surface(512), (0, 0), 25))
    yield _kind("out of focus", 200, [file(blurred)], "retake: blurred")
    grey = cv2.cvtColor(surface(512), cv2.COLOR_RGB2GRAY)
    yield _kind("grey", 200, [bytes(cv2.imencode(".png", grey)[1])], "gradable")
    wide = np.hstack([surface(512), surface(512)])
    yield _kind("another shape than the model's", 200, [file(wide)], "gradable")
    broken = OK[: len(OK) // 2]
    bad = file(with_blot(surface(512, seed=71), 0.7, 0.3))
    yield _kind("a batch with one damaged image: the others are answered", 200, [bad, broken], "gradable")
    yield _kind("too many images in the batch", 413, [jpeg] * 65)
    yield _kind("an explanation that there isn't", 400, [OK], explain="heads")


def _kind(
    name: str, want: int, files: Sequence[bytes], verdict: str = "", explain: str | None = None
) -> Kind:
    def over(wire: str) -> Ask:
        def run(servers: Servers) -> Reply:
            return ask(servers, wire, files, task=TASK, explain=explain)

        return run

    return Kind(name, want, {wire: over(wire) for wire in WIRES}, verdict)


@dataclass(frozen=True)
class RegionKind:
    """A request to the PatchCore service, and the status that it must get."""

    name: str
    call: str
    want: int
    run: Callable[[S4Server], httpx.Response]


def fitted(server: S4Server) -> None:
    """The region that the requests are about."""
    assert server.fit(ok_images(3)).status_code == 200


def region_kinds() -> Iterator[RegionKind]:
    """What the PatchCore service is sent."""
    good = png(ok_pixels(0))
    files: Mapping[str, tuple[int, bytes]] = {
        "a PNG cut in half": (400, good[: len(good) // 2]),
        "text named .png": (400, b"this is no image"),
        "zero bytes": (400, b""),
        "a bomb: 400 megapixels in 400 bytes": (413, pictures.bomb()),
        "a GIF": (400, pictures.file(ok_pixels(0), "gif")),
    }
    for name, (want, data) in files.items():
        yield RegionKind(name, "/infer", want, lambda s, data=data: s.infer(data))  # type: ignore[misc]
    yield RegionKind("one broken image among good ones", "/fit_ok", 400, lambda s: s.fit([good, b"x"]))
    yield RegionKind(
        "images of different sizes",
        "/fit_ok",
        400,
        lambda s: s.fit([good, png(ok_pixels(1, width=97))]),
    )
    yield RegionKind("no memory for the region", "/infer", 400, lambda s: s.infer(good, roi="Nowhere"))
    yield RegionKind(
        "no memory for the region", "/calibrate_ng", 400, lambda s: s.calibrate([0.1], roi="Nowhere")
    )
    yield RegionKind("a name that climbs out", "/infer", 400, lambda s: s.infer(good, role="../.."))
    yield RegionKind("a name with a slash", "/fit_ok", 400, lambda s: s.fit([good], roi="a/b"))
    for value in ("0", "nan", "0,2"):
        yield RegionKind(
            f"`mm_per_px` of {value}",
            "/infer",
            400,
            lambda s, value=value: s.infer(good, mm_per_px=value),  # type: ignore[misc]
        )
    for name, shape in (
        ("a shape that isn't JSON", "{"),
        ("a shape that there isn't", '{"kind": "star"}'),
        ("a shape beside the image", '{"kind": "circle", "cx": 500, "cy": 500, "r": 3}'),
        ("a ring whose hole is larger", '{"kind": "annulus", "r": 5, "r_inner": 9}'),
    ):
        yield RegionKind(
            name,
            "/infer",
            400,
            lambda s, shape=shape: s.infer(good, shape=shape),  # type: ignore[misc]
        )
    for name, change in (
        ("no OK score", {"ok": []}),
        ("a score that is no number", {"ok": ["0.1"]}),
        ("a score under 0", {"ok": [-0.1]}),
        ("a percentile over 100", {"ok": [0.1], "score_percentile": 101}),
    ):
        yield RegionKind(name, "/calibrate_ng", 400, _calibrate(change))
    yield RegionKind("the image is missing", "/infer", 400, lambda s: s.client.post("/infer", data=_names()))
    yield RegionKind(
        "a file that is no image by its content type",
        "/infer",
        400,
        lambda s: s.client.post("/infer", data=_names(), files={"image": ("a.png", good, "application/pdf")}),
    )
    yield RegionKind(
        "JSON instead of a form", "/infer", 400, lambda s: s.client.post("/infer", json=_names())
    )
    yield RegionKind("a path that there isn't", "/predict", 404, lambda s: s.client.get("/predict"))


def _calibrate(change: Mapping[str, Any]) -> Callable[[S4Server], httpx.Response]:
    return lambda s: s.calibrate(**change)


def _names() -> dict[str, str]:
    return {"role_id": ROLE, "roi_id": ROI, "mm_per_px": "0.2"}
