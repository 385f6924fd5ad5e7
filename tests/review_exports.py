"""Exports of labels as the gateway writes them, for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

MADE_AT = "2026-11-20T12:00:00+00:00"


def picture(seed: int, *, side: int = 40, level: int = 120) -> bytes:
    """A noisy PNG; another seed is another content."""
    pixels = np.random.default_rng(seed).normal(level, 25, (side, side, 3)).clip(0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


def _suffix(data: bytes) -> str:
    return "jpg" if data[:2] == bytes([255, 216]) else "png"


@dataclass
class Exported:
    """An export in the making: ``label`` adds lines and images, ``write`` makes the folder."""

    task: str = "tiny"
    lines: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)
    withdrawn: list[dict[str, str]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    def label(
        self, data: bytes, value: str | None, *, head: str = "grade", reader: str = "anna", **more: Any
    ) -> str:
        """One label of an image; gives the image's SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.images[sha256] = data
        number = len(self.lines) + 1
        self.lines.append(
            {
                "case_id": f"case-{sha256[:6]}",
                "image_id": f"image-{sha256[:6]}",
                "sha256": sha256,
                "file": f"images/{sha256}.{_suffix(data)}",
                "task": self.task,
                "head": head,
                "value": value,
                "cannot_grade": None if value is not None else "out of focus",
                "reader": reader,
                "at": f"2026-11-20T10:{number // 60:02}:{number % 60:02}+00:00",
                "adjudicated": False,
                "group": None,
                "source": "review",
                "prediction": None,
                **more,
            }
        )
        return sha256

    def take_back(self, sha256: str, *, head: str = "grade") -> None:
        """The label of an image for a head is one no more."""
        self.lines = [line for line in self.lines if (line["sha256"], line["head"]) != (sha256, head)]
        self.withdrawn.append({"sha256": sha256, "head": head, "at": "2026-11-20T11:00:00+00:00"})

    def write(self, folder: Path) -> Path:
        """The export as a folder."""
        (folder / "images").mkdir(parents=True, exist_ok=True)
        info = {"format": 1, "task": self.task, "made_at": MADE_AT, "tenant": "clinic"}
        info |= {"withdrawn": self.withdrawn, **self.info}
        (folder / "export.json").write_text(json.dumps(info))
        (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        (folder / "excluded.txt").write_text("".join(f"{sha256}\n" for sha256 in self.excluded))
        for sha256, data in self.images.items():
            (folder / "images" / f"{sha256}.{_suffix(data)}").write_bytes(data)
        return folder


def outcomes(review: Mapping[str, Any], head: str = "grade") -> dict[str, str]:
    """What became of a head's label, by the file's SHA-256, as ``dataset.json`` says it."""
    cases: Sequence[Mapping[str, Any]] = review["cases"]
    return {case["sha256"][0]: case["labels"][head]["outcome"] for case in cases if head in case["labels"]}
