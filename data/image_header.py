"""What an image file says of itself in its first bytes, read without decoding any of it.

Written here rather than asked of Pillow because Pillow answers some hostile headers with warnings, and
Python's warning filters can't be changed safely in a server with threads. Nothing here allocates more than a
few bytes or loops longer than the file is, whatever the bytes say.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from data.errors import ImageDamaged, ImageTooLarge, NotAnImage

# A walk over frames or directories ends here: a file can't make us loop for seconds. The count is then a
# lower bound.
_MAX_STEPS = 20_000
_JPEG_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
#: What ends a stretch of picture data: neither a 0xFF of the data itself, nor padding, nor a restart.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What we are willing to decode. The pixels are those of one frame, as the header states them."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


#: For files on disk, which are trusted further than requests: a whole-slide scan is refused, a 100 MP
#: photograph isn't. One constant, so that what ingest takes, training and its exports can read.
STORED_LIMITS = DecodeLimits(max_bytes=128 * 2**20, max_pixels=120_000_000)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """``format`` is one of ``jpeg png bmp webp tiff gif``; sizes are as stored, before orientation."""

    format: str
    width: int
    height: int
    frames: int


def read_header(data: bytes, limits: DecodeLimits | None = None) -> ImageHeader:
    """Read format, size and frames, and hold them against ``limits``.

    Raises ``ImageTooLarge``, ``NotAnImage`` (empty bytes too) or ``ImageDamaged``. A header that passes
    doesn't promise that the rest decodes.
    """
    limits = limits or DecodeLimits()
    if not data:
        raise NotAnImage("The image is empty (0 bytes).", hint="Send the bytes of an image file.")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The image has {len(data):,} bytes; the limit is {limits.max_bytes:,}.",
            hint="Send a smaller or more strongly compressed image.",
        )
    kind = sniff(data)
    if kind is None:
        raise NotAnImage(
            "The bytes are not a JPEG, PNG, BMP, WebP, TIFF or GIF image.",
            hint="Convert the image to JPEG or PNG; a file's name does not make it an image.",
        )
    try:
        width, height, frames = _READERS[kind](data)
    except (struct.error, IndexError):
        raise damaged(kind, "its header is cut short or contradicts itself") from None
    if width < 1 or height < 1:
        raise damaged(kind, f"its header says {width}×{height} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"The image has {width}×{height} pixels; the limit is {limits.max_pixels:,} in all.",
            hint="Send a smaller image.",
        )
    return ImageHeader(kind, width, height, frames)


def sniff(data: bytes) -> str | None:
    """The image type that the first bytes say, or None. BigTIFF and every other type are None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    # "BM" alone also begins plain text: the size of the next header must be one that exists.
    if data[:2] == b"BM" and data[15:18] == b"\0\0\0" and data[14] in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    return None


def damaged(kind: str, why: str) -> ImageDamaged:
    """The error for a file of a known type that can't be used."""
    return ImageDamaged(
        f"The {kind.upper()} image is damaged: {why}.",
        hint="Transfer or export the image again; it may have been cut off on the way.",
    )


def jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
    """``(marker, start, end)`` of a JPEG's segments, from after its first two bytes to the first scan's
    header.

    ``start`` is where the segment's length stands, two bytes after the marker's 0xFF, as the decoder finds
    it. Raises ``IndexError`` or ``struct.error`` where the bytes end too soon.
    """
    found = []
    at = 2
    while True:
        # Like decoders, pass over stray bytes before a marker and over the 0xFF bytes that pad one.
        at = data.find(b"\xff", at)
        if at < 0:
            raise IndexError("no marker")
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker == 0 or marker in _MARKERS_WITHOUT_LENGTH:
            continue
        if marker == 0xD9:
            raise IndexError("the end comes before a scan")
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise IndexError("a segment without a length")
        found.append((marker, at, at + length))
        if marker == 0xDA:
            return found
        at += length


def jpeg_scans(data: bytes, most: int) -> int:
    """How many scans a JPEG has up to its end, or ``most + 1`` where there are more.

    What follows the end is no part of it: phones put a film there, in which a scan's marker comes by chance.
    So are the thumbnails inside of segments. Where bytes contradict themselves they are counted as scans
    rather than passed over.
    """
    # Few enough wherever they stand: no need to look closer.
    if (scans := data.count(b"\xff\xda")) <= most:
        return scans
    scans, at = 0, 2
    for _ in range(_MAX_STEPS):
        found = _JPEG_MARKER.search(data, at)
        if found is None or (marker := found[0][-1]) == 0xD9:
            return scans
        at = found.end()
        if marker == 0xDA:
            scans += 1
            if scans > most:
                return scans
        # Decoders look for no length after the others.
        if marker >= 0xC0 and marker != 0xD8:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return most + 1


def _jpeg(data: bytes) -> tuple[int, int, int]:
    for marker, start, _ in jpeg_segments(data):
        if marker in _JPEG_SOF:
            height, width = struct.unpack_from(">HH", data, start + 3)
            return width, height, 1
    raise IndexError("no frame header")


def _png(data: bytes) -> tuple[int, int, int]:
    if data[12:16] != b"IHDR":
        raise IndexError("no IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    frames, at = 1, 33
    # OpenCV sets aside what a chunk says that it holds, two gigabytes if need be, before it looks whether the
    # file holds so much. So every chunk is followed here to the last.
    for _ in range(_MAX_STEPS):
        (length,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            raise IndexError("a chunk reaches over the end")
        if name == b"IEND":
            return width, height, frames
        if name == b"acTL":
            frames = max(1, struct.unpack_from(">I", data, at + 8)[0])
        at += 12 + length
    raise IndexError("more chunks than a picture has")


def _bmp(data: bytes) -> tuple[int, int, int]:
    if data[14] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height, 1
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height), 1  # a negative height means: stored from the top


def _webp(data: bytes) -> tuple[int, int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        flags = data[20]
        width = 1 + int.from_bytes(_exactly(data, 24, 3), "little")
        height = 1 + int.from_bytes(_exactly(data, 27, 3), "little")
        return width, height, _webp_frames(data) if flags & 2 else 1
    if kind == b"VP8L":
        if data[20] != 0x2F:
            raise IndexError("no lossless signature")
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1, 1
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise IndexError("no start code")
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, 1
    raise IndexError("no image chunk")


def _webp_frames(data: bytes) -> int:
    frames, at = 0, 12
    for _ in range(_MAX_STEPS):
        if at + 8 > len(data):
            break
        frames += data[at : at + 4] == b"ANMF"
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + (length & 1)
    return max(1, frames)


def _gif(data: bytes) -> tuple[int, int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    frames, at = 0, 13 + _gif_palette(data[10])
    for _ in range(_MAX_STEPS):
        if at >= len(data) or data[at] not in (0x21, 0x2C):
            break
        if data[at] == 0x21:
            at += 2
        else:
            if at + 10 > len(data):
                break
            frames += 1
            at += 11 + _gif_palette(data[at + 9])
        for _ in range(_MAX_STEPS):
            if at >= len(data) or data[at] == 0:
                break
            at += 1 + data[at]
        at += 1
    return width, height, max(1, frames)


def _gif_palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _tiff(data: bytes) -> tuple[int, int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", data, 4)
    tags = _tiff_tags(data, order, first)
    width, height = tags.get(256, 0), tags.get(257, 0)
    # A tile is a buffer of its own, which may claim to be far larger than the picture.
    if tags.get(322, 0) * tags.get(323, 0) > max(width * height, 1 << 20):
        raise IndexError("tiles larger than the picture")
    seen: set[int] = set()
    frames, at = 0, first
    while at and at not in seen and len(seen) < _MAX_STEPS and at + 2 <= len(data):
        seen.add(at)
        frames += 1
        (count,) = struct.unpack_from(order + "H", data, at)
        end = at + 2 + 12 * count
        at = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return width, height, max(1, frames)


def _tiff_tags(data: bytes, order: str, at: int) -> dict[int, int]:
    """The whole-number tags of one directory that hold one value."""
    (count,) = struct.unpack_from(order + "H", data, at)
    tags = {}
    for index in range(count):
        tag, kind, number, value = struct.unpack_from(order + "HHI4s", data, at + 2 + 12 * index)
        if number == 1 and kind in (3, 4):
            tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
    return tags


def _exactly(data: bytes, at: int, count: int) -> bytes:
    found = data[at : at + count]
    if len(found) != count:
        raise IndexError("cut short")
    return found


_READERS: dict[str, Callable[[bytes], tuple[int, int, int]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "bmp": _bmp,
    "webp": _webp,
    "tiff": _tiff,
    "gif": _gif,
}
