"""Metadata goes, the picture stays: the same pixels, upright, and nothing that says where or by whom."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from data.errors import ImageDamaged, ImageError
from data.image import decode, read_header
from data.metadata import orientation, strip

SECRET = "SECRET52N13E"
SAVES: dict[str, tuple[str, dict[str, object]]] = {
    "jpeg": ("JPEG", {"comment": SECRET.encode(), "xmp": SECRET.encode()}),
    "progressive": ("JPEG", {"progressive": True, "comment": SECRET.encode()}),
    "restarts": ("JPEG", {"restart_marker_blocks": 2}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"xmp": SECRET.encode()}),
    "lossless": ("WEBP", {"lossless": True}),
}


def picture() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(small, np.ones((4, 4, 1), np.uint8)))


def full_of_secrets(kind: str, turn: int, profile: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    exif[0x010F] = exif[0x0132] = exif[0x013B] = SECRET
    exif.get_ifd(0x8825)[1] = SECRET
    form, options = SAVES[kind]
    if form == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", SECRET)
        text.add_text("Author", SECRET, zip=True)
        text.add_itxt("XML:com.adobe.xmp", SECRET)
        options = {**options, "pnginfo": text}
    stream = io.BytesIO()
    picture().save(stream, form, exif=exif, icc_profile=profile, **options)
    data = stream.getvalue()
    if form == "JPEG":
        # IPTC, a maker's own segment, and a JFIF thumbnail.
        for marker, body in ((0xED, b"Photoshop 3.0\0" + SECRET.encode()), (0xE5, SECRET.encode())):
            data = data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]
    return data + SECRET.encode()


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", SAVES)
def test_secrets_go_and_the_picture_stays(kind: str, turn: int) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = full_of_secrets(kind, turn, profile)
    bare = strip(data)
    assert SECRET.encode() not in bare
    assert np.array_equal(decode(bare), decode(data))
    assert strip(bare) == bare
    assert read_header(bare) == read_header(data)
    with Image.open(io.BytesIO(bare)) as image:
        assert image.info.get("icc_profile") == profile
        assert dict(image.getexif()) == ({} if turn == 1 else {0x0112: turn})


def test_cmyk_keeps_its_colours() -> None:
    stream = io.BytesIO()
    picture().convert("CMYK").save(stream, "JPEG")
    assert np.array_equal(decode(strip(stream.getvalue())), decode(stream.getvalue()))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_stays_one(kind: str) -> None:
    stream = io.BytesIO()
    picture().save(stream, kind, save_all=True, append_images=[picture().rotate(180)], duration=50)
    bare = strip(stream.getvalue())
    assert read_header(bare).frames == 2
    assert np.array_equal(decode(bare), decode(stream.getvalue()))


def test_tiff_and_gif_become_png_with_the_same_pixels() -> None:
    deep = (np.asarray(picture()).astype(np.uint16) * 257) ^ 0x55
    tiff = cv2.imencode(".tiff", deep)[1].tobytes()
    stream = io.BytesIO()
    picture().save(stream, "GIF", comment=SECRET.encode())
    for data in (tiff, stream.getvalue()):
        bare = strip(data)
        assert read_header(bare).format == "png"
        assert SECRET.encode() not in bare
        assert np.array_equal(decode(bare), decode(data))
    back = cv2.imdecode(np.frombuffer(strip(tiff), np.uint8), cv2.IMREAD_UNCHANGED)
    assert back is not None
    assert np.array_equal(back, deep)


def test_bmp_and_what_is_no_image_come_back_as_they_are() -> None:
    stream = io.BytesIO()
    picture().save(stream, "BMP")
    for data in (stream.getvalue(), b"", b"text"):
        assert strip(data) == data


def test_the_orientation_of_bad_exif_is_none() -> None:
    for exif in (
        b"",
        b"II*\0",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
    ):
        assert orientation(exif) == 1
    assert orientation(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0") == 6


@pytest.mark.parametrize("kind", SAVES)
def test_a_cut_file_is_damaged(kind: str) -> None:
    data = strip(full_of_secrets(kind, 1, b""))
    with pytest.raises(ImageDamaged):
        strip(data[: len(data) // 2])


@given(
    st.sampled_from(sorted(SAVES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_mutated_files_keep_their_picture_or_say_why(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(full_of_secrets(kind, 6, b""))
    for where, value in changes:
        data[int(where * where * len(data))] = value
    try:
        pixels = decode(bytes(data))
        bare = strip(bytes(data))
    except ImageError:
        return
    assert decode(bare).size == pixels.size


def test_real_photographs_keep_every_pixel(shared_data: Path) -> None:
    files = [
        *sorted((shared_data / "faces").iterdir()),
        *sorted((shared_data / "idrid_640" / "images").iterdir())[::40],
        *sorted((shared_data / "acne04_640" / "images").iterdir())[::20],
    ]
    for path in files:
        data = path.read_bytes()
        assert np.array_equal(decode(strip(data)), decode(data)), path.name
