"""Drawn images as a folder that the source ``labels`` reads, with what is drawn in its table."""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.files import write_text
from data.progress import track
from data.provenance import cpu_quota
from data.synthetic.drawing import draw, plan

#: A folder with this file holds drawn images, whatever kind of source it is read as.
MARKER = "SYNTHETIC.txt"
NOTICE = "These images are synthetic: drawn by a program, of no patient. Not for any medical use.\n"


def write_folder(subject: str, n: int, out: Path, *, size: int = 256, seed: int = 0) -> Path:
    """Write ``images/``, a notice and ``labels.csv`` (image_name,label,group,camera); gives the table.

    A face's table has the columns skin_type and hair_type too, empty where the view doesn't show them.
    """
    drawings = plan(subject, n, seed=seed, size=size)
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cpu_quota()) as pool:
        drawn = track(pool.map(draw, drawings), f"Drawing {subject}", n)
        for drawing, data in zip(drawings, drawn, strict=True):
            (images / f"{drawing.name}.jpg").write_bytes(data)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    seen = ("skin_type", "hair_type") if subject == "face" else ()
    writer.writerow(["image_name", "label", "group", "camera", *seen])
    for each in drawings:
        shown = [each.shows(trait) or "" for trait in seen]
        writer.writerow([f"{each.name}.jpg", each.label, each.group, each.camera, *shown])
    write_text(out / MARKER, NOTICE)
    write_text(out / "labels.csv", stream.getvalue())
    return out / "labels.csv"
