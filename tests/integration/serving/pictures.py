"""Image files of every kind that a client may send, made here."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def sharp(side: int = 320, seed: int = 0) -> NDArray[np.uint8]:
    """A busy picture that passes the photo profile."""
    rng = np.random.default_rng(seed)
    blocks = cv2.resize(
        rng.integers(30, 220, (side // 8, side // 8, 3), dtype=np.uint8),
        (side, side),
        interpolation=cv2.INTER_NEAREST,
    )
    return np.asarray(cv2.add(blocks, rng.integers(0, 30, blocks.shape, dtype=np.uint8)))


def blurred(side: int = 320, seed: int = 0) -> NDArray[np.uint8]:
    """The same, out of focus."""
    return np.asarray(cv2.GaussianBlur(sharp(side, seed), (0, 0), 12))


def file(pixels: NDArray[np.uint8], kind: str = "jpeg", **options: object) -> bytes:
    """Encode RGB pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def as_mode(mode: str, kind: str) -> bytes:
    """The sharp picture in another of Pillow's modes."""
    stream = io.BytesIO()
    Image.fromarray(sharp()).convert(mode).save(stream, kind)
    return stream.getvalue()


def sixteen_bit() -> bytes:
    """A 16-bit PNG."""
    wide = sharp().astype(np.uint16) * 257
    return bytes(cv2.imencode(".png", wide)[1])


def animated(kind: str = "gif") -> bytes:
    """Three frames."""
    frames = [Image.fromarray(sharp(seed=seed)) for seed in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:], duration=50)
    return stream.getvalue()


def bomb(side: int = 20_000) -> bytes:
    """A PNG of a few hundred kilobytes that would be 400 megapixels."""
    row = zlib.compress(b"\0" * (side + 1))  # one grey row; never decoded
    return png(side, side, row, depth=8, colour=0)


def png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG from its parts, right or wrong."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
