"""Files that are no good images, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from serving.client import encode
from tests.integration.serving import pictures
from tests.integration.serving.harness import (
    WIRES,
    ask,
    call_grpc,
    grpc_request,
    json_input,
    post_binary,
    post_v1,
    post_v2,
)
from tests.integration.serving.kinds import (
    GOOD,
    JPEG,
    Ask,
    Kind,
    binary_request,
)


def image_kinds() -> Iterator[Kind]:
    """What is wrong with the images themselves."""
    yield from _files()
    yield from _batches()


def _image(name: str, want: int, data: bytes, verdict: str = "", task: str = "dr_grading") -> Kind:
    return _images(name, want, [data], verdict, task)


def _images(
    name: str, want: int, files: Sequence[bytes], verdict: str = "", task: str = "dr_grading"
) -> Kind:
    def over(wire: str) -> Ask:
        return lambda servers: ask(servers, wire, files, task=task)

    return Kind(name, want, {wire: over(wire) for wire in WIRES}, verdict)


def _strip(width: int, height: int) -> bytes:
    return pictures.file(np.full((height, width, 3), 120, np.uint8), "png")


def _files() -> Iterator[Kind]:
    yield _image("a JPEG cut in half", 422, JPEG[: len(JPEG) // 2])
    yield _image("a PNG cut in half", 422, GOOD[: len(GOOD) // 2])
    yield _image("a JPEG without its end", 422, JPEG[:-40])
    yield _image("only a JPEG's first bytes, then noise", 422, JPEG[:24] + bytes(range(256)) * 8)
    yield _image("a PNG whose pixels don't unpack", 422, pictures.png(64, 64, b"not zlib"))
    yield _image("a PNG whose header says 0 × 0", 422, pictures.png(0, 0, b""))
    yield _image("a bomb: 400 megapixels in 400 bytes", 413, pictures.bomb())
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    yield _image("a file over the limit of bytes", 413, pictures.file(noise, "png"))
    yield _image("zero bytes", 415, b"")
    yield _image("text named .jpg", 415, b"This is a photograph, honestly.\n" * 20)
    yield _image("a PDF named .png", 415, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n" + b"x" * 200)
    yield _image("an SVG", 415, b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    yield _image("an HTML error page", 415, b"<!doctype html><html><body>403</body></html>")
    yield _image("a zip archive", 415, b"PK\x03\x04" + bytes(100))
    yield _image("one pixel", 200, pictures.file(pictures.sharp()[:1, :1], "png"), "ungradable: too_small")
    black = pictures.file(np.zeros((300, 300, 3), np.uint8), "png")
    yield _image("a strip of 6,000 × 1 pixels", 200, _strip(6000, 1), "ungradable: too_small")
    yield _image("a strip of 1 × 200,000 pixels", 200, _strip(1, 200_000), "ungradable: too_small")
    # This task's pictures are cut to their middle, which must not make a giant of the strip first.
    for wide in (6000, 200_000):
        name = f"a strip of {wide:,} × 1 pixels, to a model that looks at the middle"
        yield _image(name, 200, _strip(wide, 1), "ungradable: too_small", "profile")
    yield _image("all black", 200, black, "ungradable: blank")
    yield _image("out of focus", 200, pictures.file(pictures.blurred(), "png"), "retake: blurred")
    yield _image("CMYK", 200, pictures.as_mode("CMYK", "jpeg"), "gradable")
    yield _image("16 bits a channel", 200, pictures.sixteen_bit(), "gradable")
    yield _image("grey", 200, pictures.as_mode("L", "jpeg"), "gradable")
    yield _image("with transparency", 200, pictures.as_mode("RGBA", "png"), "gradable")
    yield _image("a palette", 200, pictures.as_mode("P", "png"), "gradable")
    yield _image("animated GIF: the first frame", 200, pictures.animated("gif"), "gradable")
    yield _image("animated WebP: the first frame", 200, pictures.animated("webp"), "gradable")


def _batches() -> Iterator[Kind]:
    cut = GOOD[:400]
    yield _images("a batch with one damaged image: the others are answered", 200, [GOOD, cut], "gradable")
    yield _images("a batch of damaged images and others", 422, [cut, b"text"])
    yield _images("a batch of texts", 415, [b"text", b"more text"])
    yield _images("too many images in the batch", 413, [JPEG] * 17)
    yield Kind(
        "a million images of no bytes",
        413,
        {
            "v2 binary": lambda s: post_binary(
                s, *binary_request(None, {"shape": [10**6]}, raw=bytes(4 * 10**6))
            )
        },
    )
    yield Kind(
        "a million images of no bytes that say they are one",
        400,
        {"v2 binary": lambda s: post_binary(s, *binary_request(None, {"shape": [1]}, raw=bytes(4 * 10**6)))},
    )
    yield Kind(
        "no image at all",
        400,
        {
            "v1": lambda s: post_v1(s, {"instances": []}),
            "v2 json": lambda s: post_v2(s, {"inputs": [json_input([])]}),
            "v2 binary": lambda s: post_binary(s, *encode([])),
            "grpc": lambda s: call_grpc(s.grpc, grpc_request([])),
        },
    )
