"""MedMNIST: arrays of small images with official splits in one ``.npz`` (Yang et al., 2023)."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from data.dataset import SPLITS, Head
from data.errors import SourceError
from data.sources.base import Licence, Sample, Source, fail

_CC_BY = Licence("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")
_CC_BY_NC = Licence("CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/", ("commercial",))


class MedMnist(Source):
    """Splits as published; labels are class indices. DermaMNIST is made of HAM10000 and so non-commercial."""

    kind = "medmnist"
    title = "MedMNIST .npz of one 2-D set, its official splits kept"
    layout = "one .npz file with train_images, train_labels, val_…, test_…"
    profile = "thumbnail"
    licence = _CC_BY

    def prepare(self) -> None:
        """The path must be an ``.npz`` with the six arrays."""
        if not self.path.is_file():
            raise SourceError(f"There is no file {self.path}.", hint=f"Kind {self.kind} is {self.layout}.")
        self.licence = _CC_BY_NC if "derma" in self.path.stem.lower() else _CC_BY
        with self._open() as arrays:
            wanted = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
            if lacking := [name for name in wanted if name not in arrays.files]:
                raise SourceError(
                    f"{self.path} lacks the array(s) {', '.join(lacking)}.",
                    hint=f"Kind {self.kind} is {self.layout}.",
                )
            side = arrays["val_images"].shape[1] if arrays["val_images"].ndim > 1 else 28
        if side > 64:  # the larger editions (128, 224) are no thumbnails
            self.profile = "fundus" if "retina" in self.path.stem.lower() else "photo"

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Every image as a PNG, made when it is read."""
        if len(heads) != 1:
            raise SourceError(f"A MedMNIST set labels one head; the task has {len(heads)}.")
        head = heads[0]
        with self._open() as arrays:
            loaded = {
                name: arrays[name] for split in SPLITS for name in (f"{split}_images", f"{split}_labels")
            }
        unknown = []
        for split in SPLITS:
            images, labels = loaded[f"{split}_images"], loaded[f"{split}_labels"]
            if (
                images.dtype != np.uint8
                or images.ndim not in (3, 4)
                or (images.ndim == 4 and images.shape[3] != 3)
            ):
                raise SourceError(
                    f"{split}_images is {images.dtype} {images.shape}, not uint8 [N, H, W] or [N, H, W, 3].",
                    hint="3-D MedMNIST sets are not supported.",
                )
            if len(labels) != len(images) or labels.size != len(images) or labels.dtype.kind not in "iu":
                raise SourceError(
                    f"{split}_labels is {labels.dtype} {labels.shape} for {len(images)} images, "
                    "not one whole number each."
                )
            unknown += [
                f"{split} {row}: {int(label)}"
                for row, label in enumerate(labels.ravel())
                if not 0 <= int(label) < len(head.classes)
            ]
        if unknown:
            raise fail(
                f"{self.path.name} has an unknown class in {len(unknown)} row(s)",
                unknown,
                hint=f"The head {head.name} has {len(head.classes)} classes: {', '.join(head.classes)}.",
            )
        for split in SPLITS:
            images, labels = loaded[f"{split}_images"], loaded[f"{split}_labels"].ravel()
            for row in range(len(images)):
                yield Sample(
                    f"{split}_{row:05d}", _png(images, row), {head.name: int(labels[row])}, split=split
                )

    @property
    def name(self) -> str:
        """Kind and set, such as ``medmnist/retinamnist``."""
        return f"{self.kind}/{self.path.stem}"

    def _open(self) -> np.lib.npyio.NpzFile:
        try:
            arrays = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(
                f"{self.path} is not a readable .npz: {error}.", hint="Download it again."
            ) from error
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise SourceError(
                f"{self.path} is not an .npz archive.", hint=f"Kind {self.kind} is {self.layout}."
            )
        return arrays


def _png(images: NDArray[np.uint8], row: int) -> Callable[[], bytes]:
    def read() -> bytes:
        image = images[row]
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        done, encoded = cv2.imencode(".png", pixels)
        if not done:
            raise SourceError(f"Image {row} could not be encoded as PNG.")
        return encoded.tobytes()

    return read
