"""MedMNIST: arrays of small images with official splits in one ``.npz`` (Yang et al., 2023)."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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
        derma = "derma" in self.path.stem.lower()
        self.licence = _CC_BY_NC if derma else _CC_BY
        self.skin = "around" if derma else "none"
        with self._open() as arrays:
            wanted = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
            if lacking := [name for name in wanted if name not in arrays.files]:
                raise SourceError(
                    f"{self.path} lacks the array(s) {', '.join(lacking)}.",
                    hint=f"Kind {self.kind} is {self.layout}.",
                )
            shape = self._array(arrays, "val_images").shape
            side = shape[1] if len(shape) > 1 else 28
        if side > 64:  # the larger editions (128, 224) are no thumbnails
            self.profile = "fundus" if "retina" in self.path.stem.lower() else "photo"

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """Every image as a PNG, made when it is read."""
        if len(heads) != 1:
            raise SourceError(f"A MedMNIST set labels one head; the task has {len(heads)}.")
        head = heads[0]
        with self._open() as arrays:
            names = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
            loaded = {name: self._array(arrays, name) for name in names}
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

    def _array(self, arrays: np.lib.npyio.NpzFile, name: str) -> NDArray[Any]:
        try:
            return np.asarray(arrays[name])
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise SourceError(f"{self.path}, {name}: {error}.", hint="Download it again.") from error
            raise SourceError(
                f"{self.path}, {name} holds Python objects, which could run code and are never loaded.",
                hint="Save the array with a plain number type.",
            ) from None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise SourceError(
                f"{self.path}, {name} is damaged: {error}.", hint="Download it again."
            ) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[np.lib.npyio.NpzFile]:
        # Our own handle: NumPy leaves its open when the archive turns out to be broken.
        with self.path.open("rb") as stream:
            try:
                arrays = np.load(stream, allow_pickle=False)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise SourceError(
                    f"{self.path} is not a readable .npz: {error}.", hint="Download it again."
                ) from error
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise SourceError(
                    f"{self.path} is not an .npz archive.", hint=f"Kind {self.kind} is {self.layout}."
                )
            with arrays:
                yield arrays


def _png(images: NDArray[np.uint8], row: int) -> Callable[[], bytes]:
    def read() -> bytes:
        image = images[row]
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        done, encoded = cv2.imencode(".png", pixels)
        if not done:
            raise SourceError(f"Image {row} could not be encoded as PNG.")
        return encoded.tobytes()

    return read
