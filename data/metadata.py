"""Take out of an image file what says where, when, with what and by whom it was made; leave the picture.

EXIF, XMP, IPTC, comments, PNG text, previews and whatever follows the image's end go. Orientation and colour
profile stay, since without them the picture would be another one. JPEG, PNG and WebP lose nothing else: their
compressed data is copied as it is. TIFF and GIF, where such facts sit between the picture's own parts, become
a PNG of the first page with the same pixels. BMP has no place for metadata and is left alone.
"""

from __future__ import annotations

import struct
import zlib

from data.errors import ImageDamaged
from data.image_header import DecodeLimits, damaged, jpeg_segments, read_header, sniff

_JPEG_ICC = b"ICC_PROFILE\0"
# The picture, its transparency, colour and pixel shape, its animation.
_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS bKGD cHRM gAMA iCCP sBIT sRGB cICP pHYs acTL fcTL fdAT".split(b" ")
)
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_WEBP_EXIF_FLAG, _WEBP_XMP_FLAG = 0x08, 0x04


def strip(data: bytes, limits: DecodeLimits | None = None) -> bytes:
    """The same picture without its metadata. Bytes that are no image of ours come back as they are.

    ``limits`` hold for a TIFF and a GIF, which have to be decoded. Raises ``ImageDamaged`` where the file's
    structure can't be followed to its end, and for those two what ``read_header`` raises.
    """
    kind = sniff(data)
    try:
        if kind == "jpeg":
            return _jpeg(data)
        if kind == "png":
            return _png(data)
        if kind == "webp":
            return _webp(data)
    except (struct.error, IndexError, ValueError):
        raise damaged(str(kind), "its structure can't be followed") from None
    return _as_png(data, kind, limits) if kind in ("tiff", "gif") else data


def orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block, from its TIFF header on; 1 where it says nothing usable."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for index in range(count):
            tag, kind, number, value = struct.unpack_from(order + "HHIH", exif, at + 2 + 12 * index)
            if tag == 0x0112:
                return int(value) if kind == 3 and number == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _exif(value: int) -> bytes:
    """An EXIF block that holds an orientation and nothing else."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


def _jpeg(data: bytes) -> bytes:
    kept = [b"\xff\xd8"]
    turned = 1
    segments = jpeg_segments(data)
    for marker, start, end in segments:
        if end > len(data):
            raise IndexError("a segment reaches over the end")
        body = data[start + 2 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and turned == 1:
            turned = orientation(body[6:])
        kept.append(_jpeg_segment(marker, body))
    if turned != 1:
        # After JFIF's own segment, which must come first where there is one.
        exif = b"Exif\0\0" + _exif(turned)
        kept.insert(2 if segments[0][0] == 0xE0 else 1, _framed(0xE1, exif))
    at = segments[-1][2]
    while True:
        end = _end_of_scan(data, at)
        kept.append(data[at:end])
        marker = data[end + 1]
        if marker == 0xD9:
            # Nothing after the end: phones put further pictures, video and notes there.
            return b"".join([*kept, b"\xff\xd9"])
        (length,) = struct.unpack_from(">H", data, end + 2)
        at = end + 2 + length
        if length < 2 or at > len(data):
            raise IndexError("a segment reaches over the end")
        kept.append(_jpeg_segment(marker, data[end + 4 : at]))


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    """The segment as it is to be kept; empty where it goes."""
    if marker == 0xE0:
        # JFIF's fixed part: its thumbnail, and JFXX, show the picture as it was before somebody edited it.
        return _framed(marker, body[:12] + b"\0\0") if body.startswith(b"JFIF\0") else b""
    if marker == 0xE2:
        return _framed(marker, body) if body.startswith(_JPEG_ICC) else b""
    if marker == 0xEE:
        return _framed(marker, body[:12]) if body.startswith(b"Adobe") else b""
    if marker == 0xFE or 0xE0 <= marker <= 0xEF:
        return b""
    return _framed(marker, body)


def _framed(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the next marker that ends a scan's data stands; stuffed bytes and restarts belong to the scan."""
    while True:
        at = data.index(b"\xff", at)
        following = data[at + 1]
        if following == 0 or 0xD0 <= following <= 0xD7:
            at += 2
        elif following == 0xFF:
            at += 1
        else:
            return at


def _png(data: bytes) -> bytes:
    kept = [data[:8]]
    turned, at = 1, 8
    while True:
        (length,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise IndexError("a chunk reaches over the end")
        if name in _PNG_KEPT:
            kept.append(data[at:end])
        elif name == b"eXIf":
            turned = orientation(data[at + 8 : end - 4])
        at = end
        if name == b"IEND":
            break
    if turned != 1:
        body = b"eXIf" + _exif(turned)
        kept.insert(2, struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    return b"".join(kept)


def _webp(data: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", data, 4)
    stop = 8 + size
    if stop > len(data):
        raise IndexError("the file is shorter than it says")
    kept: list[bytes] = []
    extended = b""
    turned, at = 1, 12
    while at + 8 <= stop:
        name = data[at : at + 4]
        (length,) = struct.unpack_from("<I", data, at + 4)
        body = data[at + 8 : at + 8 + length]
        if len(body) != length:
            raise IndexError("a chunk reaches over the end")
        if name == b"VP8X":
            extended = body
        elif name == b"EXIF":
            turned = orientation(body.removeprefix(b"Exif\0\0"))
        elif name in _WEBP_KEPT:
            kept.append(_chunk(name, body))
        at += 8 + length + (length & 1)
    if at < stop:
        # Decoders read on to here whatever the last chunk's length says; a copy by its length would be cut
        # short.
        raise IndexError("bytes after the last chunk")
    if extended:
        flags = extended[0] & ~(_WEBP_EXIF_FLAG | _WEBP_XMP_FLAG)
        if turned != 1:
            flags |= _WEBP_EXIF_FLAG
            kept.append(_chunk(b"EXIF", _exif(turned)))
        kept.insert(0, _chunk(b"VP8X", bytes((flags,)) + extended[1:]))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def _as_png(data: bytes, kind: str, limits: DecodeLimits | None) -> bytes:
    # Deferred: the other formats need no decoder.
    import cv2
    import numpy as np

    read_header(data, limits)
    flags = cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        ok, encoded = cv2.imencode(".png", pixels) if pixels is not None else (False, np.empty(0, np.uint8))
    except cv2.error:
        ok = False
    if not ok:
        raise ImageDamaged(
            f"The {kind.upper()} image can't be decoded whole.", hint="Export it again, as PNG or JPEG."
        )
    return encoded.tobytes()
