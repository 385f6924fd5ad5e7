"""Decoding: every kind of image comes out upright RGB, and bad bytes bring nothing but an ``ImageError``."""

from __future__ import annotations

import io
import resource
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data.errors import ImageDamaged, ImageError, ImageTooLarge, NotAnImage
from data.image import DecodeLimits, decode, read_header

FORMATS = {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP", "tiff": "TIFF", "gif": "GIF"}


def scene(height: int = 60, width: int = 90) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, so that a turn shows."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([255 * x / width, 255 * y / height, 120 + 100 * np.sin(x / 9 + y / 5)]).astype(np.uint8)


def encode(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(scene())).save(stream, FORMATS[kind], **options)
    return stream.getvalue()


def close(one: NDArray[np.uint8], two: NDArray[np.uint8], mean: float) -> bool:
    return one.shape == two.shape and float(np.abs(one.astype(int) - two.astype(int)).mean()) <= mean


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_reads_and_names_itself(kind: str) -> None:
    data = encode(kind)
    header = read_header(data)
    assert (header.format, header.width, header.height, header.frames) == (kind, 90, 60, 1)
    # GIF has 256 colours, JPEG and WebP lose a little.
    assert close(decode(data), scene(), {"gif": 9, "jpeg": 3, "webp": 5}.get(kind, 0))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_comes_out_upright(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert close(decode(data), upright, 2)


@pytest.mark.parametrize("turn", [1, 6, 7])
def test_reduced_decoding_is_upright_and_large_enough(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = scene(400, 600)
    data = encode("jpeg", Image.fromarray(picture), exif=exif, quality=95)
    for least, shorter in ((201, 400), (200, 200), (101, 200), (100, 100), (50, 50), (1, 50)):
        reduced = decode(data, min_side=least)
        assert min(reduced.shape[:2]) == shorter
        whole = decode(data)
        small = cv2.resize(whole, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert close(reduced, np.asarray(small, np.uint8), 2)


def test_sixteen_bits_are_scaled_not_cut() -> None:
    ramp = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    for extension in (".png", ".tiff"):
        for stored in (ramp, np.dstack([ramp, ramp, ramp])):
            data = cv2.imencode(extension, stored)[1].tobytes()
            out = decode(data)
            assert out.dtype == np.uint8
            assert np.abs(out[..., 0] - ramp / 257).max() <= 0.5


def test_grey_palette_two_level_cmyk_and_alpha() -> None:
    picture = Image.fromarray(scene())
    grey = np.asarray(picture.convert("L"))
    assert close(decode(encode("png", picture.convert("L"))), np.dstack([grey] * 3), 0)
    palette = picture.convert("P")
    assert close(decode(encode("png", palette)), np.asarray(palette.convert("RGB")), 0)
    two = picture.convert("1")
    assert close(decode(encode("png", two)), np.asarray(two.convert("RGB")), 0)
    assert close(decode(encode("jpeg", picture.convert("CMYK"), quality=95)), scene(), 4)
    clear = picture.copy()
    clear.putalpha(0)
    assert close(decode(encode("png", clear)), scene(), 0)  # colours as stored, whatever the opacity


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.fromarray(np.full((30, 40, 3), value, np.uint8)) for value in (10, 120, 240)]
    data = encode(kind, frames[0], save_all=True, append_images=frames[1:])
    assert read_header(data).frames == 3
    assert abs(float(decode(data).mean()) - 10) < 3


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.999, 0.97, 0.9, 0.5, 0.1])
def test_a_cut_file_is_damaged(kind: str, share: float) -> None:
    data = encode(kind, Image.fromarray(scene(200, 300)))
    with pytest.raises(ImageDamaged):
        decode(data[: int(len(data) * share) - 1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello",
        b"BM is how this text begins, and it goes on for a while",
        b"%PDF-1.7 ...",
        b"RIFF1234WAVE",
    ],
)
def test_what_is_no_image_says_so(data: bytes) -> None:
    with pytest.raises(NotAnImage) as caught:
        decode(data)
    assert caught.value.hint


def png_claiming(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (head, body, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_limits_hold_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageTooLarge):
        decode(b"\xff" * 11, DecodeLimits(max_bytes=10))
    # 144 megapixels that compress to nothing; Pillow would warn of it and OpenCV would allocate it.
    bomb = cv2.imencode(".png", np.zeros((12_000, 12_000), np.uint8))[1].tobytes()
    jpeg = bytearray(encode("jpeg"))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLarge):
        decode(bomb)
    for width, height in ((65_000, 65_000), (2**31 - 1, 2**31 - 1), (50_000_001, 1)):
        with pytest.raises(ImageTooLarge):
            decode(png_claiming(width, height))
    with pytest.raises(ImageDamaged):
        decode(png_claiming(0, 5))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(ImageTooLarge):
        decode(bytes(jpeg))


def test_a_png_chunk_that_claims_gigabytes_costs_nothing() -> None:
    data = bytearray(encode("png"))
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = struct.pack(">I", 2**31 - 1)
    started, most = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageDamaged):
        decode(bytes(data))
    # Processor time and memory: how long it takes depends on the machine's other work.
    assert time.process_time() - started < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 2**19  # of 2 GB, in kB


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = encode("jpeg", Image.fromarray(scene()), progressive=True)
    at = data.rindex(b"\xff\xda")
    with pytest.raises(ImageDamaged, match="scans"):
        decode(data[:at] + data[at:-2] * 1000 + data[-2:])


def test_scans_are_those_of_the_picture_and_not_of_what_follows_it() -> None:
    """A phone's film behind the photograph, and a segment inside of it, with the bytes of a scan's marker."""
    data = encode("jpeg", Image.fromarray(scene()), progressive=True)
    film = b"\xff\xda\x00\x0c" * 2000
    assert np.array_equal(decode(data + film), decode(data))
    segment = b"\xff\xe9" + (len(film[:60_000]) + 2).to_bytes(2, "big") + film[:60_000]
    assert np.array_equal(decode(data[:2] + segment + data[2:]), decode(data))
    # Behind the end there may be another end; before it, whatever says to be a scan counts as one.
    at = data.rindex(b"\xff\xda")
    many = data[:at] + data[at:-2] * 1000 + data[-2:]
    for hidden in (many + film, many[:at] + b"\xff\x02\xff\xff" + many[at:], many + data[-2:]):
        with pytest.raises(ImageDamaged, match="scans"):
            decode(hidden)


def test_a_file_of_segments_alone_is_not_walked_to_its_end() -> None:
    data = encode("jpeg", Image.fromarray(scene()))
    with pytest.raises(ImageDamaged, match="scans"):
        decode(data[:2] + b"\xff\xfe\x00\x02" * 30_000 + data[2:] + b"\xff\xda" * 200)


def test_a_pixel_decodes() -> None:
    for kind in FORMATS:
        assert decode(encode(kind, Image.new("RGB", (1, 1), "red"))).shape == (1, 1, 3)


def test_float_samples_are_refused() -> None:
    data = cv2.imencode(".tiff", scene().astype(np.float32))[1].tobytes()
    with pytest.raises(NotAnImage, match="float32"):
        decode(data)


def test_stray_bytes_after_the_end_do_no_harm() -> None:
    for kind in ("jpeg", "png", "webp"):
        assert close(decode(encode(kind) + b"trailing" * 20), decode(encode(kind)), 0)


def test_a_loop_in_a_tiff_or_gif_ends() -> None:
    tiff = bytearray(encode("tiff"))
    (first,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, first)
    struct.pack_into("<I", tiff, first + 2 + 12 * count, first)
    assert read_header(bytes(tiff)).frames == 1
    endless = encode("gif")[:13] + b"\x21\xf9\x00" * 2_000_000
    started = time.process_time()
    read_header(endless)
    assert time.process_time() - started < 0.5


SEEDS = {kind: encode(kind, Image.fromarray(scene(40, 50))) for kind in FORMATS} | {
    "progressive": encode("jpeg", Image.fromarray(scene(40, 50)), progressive=True),
    "lossless": encode("webp", Image.fromarray(scene(40, 50)), lossless=True),
}
LIMITS = DecodeLimits(max_pixels=1_000_000)


def decodes_or_says_why(data: bytes, min_side: int | None = None) -> None:
    try:
        pixels = decode(data, LIMITS, min_side=min_side)
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM"]),
)
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_only_image_errors(data: bytes, magic: bytes) -> None:
    decodes_or_says_why(magic + data)


@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    st.floats(0, 1),
    st.sampled_from([None, 16]),
)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_images_raise_only_image_errors(
    kind: str, changes: list[tuple[float, int]], keep: float, min_side: int | None
) -> None:
    data = bytearray(SEEDS[kind])
    for where, value in changes:
        # Squared, so that most changes fall on the header.
        data[int(where * where * len(data))] = value
    decodes_or_says_why(bytes(data[: max(1, int(len(data) * (1 - keep**4)))]), min_side)


def test_headers_agree_with_pillow_on_real_photographs(shared_data: Path) -> None:
    files = [
        *sorted((shared_data / "faces").iterdir()),
        *sorted((shared_data / "idrid_640" / "images").iterdir())[::20],
    ]
    for path in files:
        header = read_header(path.read_bytes())
        with Image.open(path) as image:
            assert (header.width, header.height) == image.size


def test_mutated_real_photographs_raise_only_image_errors(shared_data: Path) -> None:
    rng = np.random.default_rng(5)
    files = sorted((shared_data / "ham10000_200x150" / "images").iterdir())[:40]
    for path in files:
        for _ in range(8):
            data = bytearray(path.read_bytes())
            for _ in range(int(rng.integers(1, 10))):
                data[int(rng.random() ** 2 * len(data))] = int(rng.integers(256))
            decodes_or_says_why(bytes(data))
