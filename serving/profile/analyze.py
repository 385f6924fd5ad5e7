"""``analyze_image``: from a photograph to S1's document, on the runtime that the chain chose at the start."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ImageError, ImageTooLarge, NotGradable, UsageError
from data.image import DecodeLimits, decode
from data.paths import home
from data.preprocess import Preprocessing
from serving.core.decisions import decide
from serving.core.runtimes.chain import ModelType, open_chain
from serving.preparing import Recipe, load_recipe
from serving.profile.document import TASK, check_heads, plain_heads, profile_document
from serving.source import Served, open_source

#: The environment's switch for the mock: ``1`` while a client is developed, never where people are answered.
MOCK = "RETIDERM_PROFILE_MOCK"

_MOCK_VERSION = "mock"

Image = str | os.PathLike[str] | bytes | bytearray | memoryview


class Profiler:
    """A skin and hair profile that answers. ``analyze`` may be called from several threads at once.

    ``model_type`` is what the chain came to, once and for all, in ``precision``: a version promoted later
    needs a new ``Profiler``. ``passed_over`` says of each link before it why it wasn't that.
    """

    def __init__(
        self,
        served: Served | None,
        *,
        mock: bool = False,
        threads: int | None = None,
        limits: DecodeLimits | None = None,
    ) -> None:
        """Open the bundle and hold its golden answers; ``served`` None is no model, for the mock alone.

        Raises:
            ServingError: no link of the chain can be had, and the mock isn't switched on.
            IntegrityError: the bundle was altered, or is another model. The mock doesn't hide that.
        """
        bundle = served.open(verify=True) if served is not None else None
        if bundle is not None:
            check_heads(bundle.card)
        plain = plain_heads()
        chain = open_chain(bundle, heads=plain, mock=mock, threads=threads)
        self.model_type: ModelType = chain.model_type
        self.precision = chain.runtime.precision
        self.passed_over = dict(chain.passed_over)
        self.version = _MOCK_VERSION
        self.served: Served | None = None
        self._runtime = chain.runtime
        self._limits = limits
        self._heads = plain
        self._recipe: Recipe | None = None
        if served is not None and bundle is not None and chain.model_type != "mock":
            # The mock answers in no model's name, a model's that can't be run here least of all.
            self.version, self.served = served.version, served
            self._heads, self._recipe = bundle.card.heads, load_recipe(served)

    @classmethod
    def open(
        cls,
        bundle: Path | None = None,
        *,
        root: Path | None = None,
        mock: bool = False,
        threads: int | None = None,
    ) -> Profiler:
        """With one bundle's folder, or what is promoted in a serving root (the home's where not said).

        Raises:
            UsageError: no ``skin_profile`` is promoted, and the mock isn't switched on.
            ServingError, IntegrityError: as for the constructor.
        """
        if bundle is not None:
            (served,) = open_source(None, bundle).scan().values()
            return cls(served, mock=mock, threads=threads)
        folder = root if root is not None else home().serving
        found = open_source(folder, None).scan().get(TASK)
        if found is None and not mock:
            raise UsageError(
                f"No {TASK!r} is promoted in {folder}.",
                hint=f"Train and promote one: retiderm run {TASK}; or switch the mock on while developing.",
            )
        return cls(found, mock=mock, threads=threads)

    def analyze(self, image: Image) -> dict[str, Any]:
        """S1's document of one photograph: a file's path, or its bytes.

        Raises:
            FileNotFoundError: nothing lies at the path.
            ImageError: it can't be decoded, or (``NotGradable``) isn't good enough for an answer.
        """
        pixels = self._prepare(read_image(image, self._limits))
        logits = self._runtime.run(pixels[None])["logits"]
        answers, start = {}, 0
        for head in self._heads:
            decision = decide(logits[:, start : start + len(head.classes)], head)
            start += len(head.classes)
            answers[head.name] = (head.classes[int(decision.label[0])], float(decision.confidence[0]))
        return profile_document(answers, version=self.version, model_type=self.model_type)

    def close(self) -> None:
        """Free the model."""
        self._runtime.close()

    def _prepare(self, data: bytes) -> NDArray[np.uint8]:
        if self._recipe is None:
            # A picture that is none is refused by the mock too.
            return Preprocessing()(decode(data, self._limits))
        ready = self._recipe.prepare(data, self._limits)
        if isinstance(ready, ImageError):
            raise ready
        if not ready.gradable:
            raise NotGradable(ready.verdict.verdict, ready.verdict.reasons)
        return ready.pixels


def analyze_image(image: Image, *, profiler: Profiler | None = None) -> dict[str, Any]:
    """S1's document of one photograph, given as a path (``str`` or ``Path``) or as the file's bytes.

    Without ``profiler`` this process's own answers, opened by the first call with what is promoted then. The
    mock answers only where the environment says ``RETIDERM_PROFILE_MOCK=1``.

    Raises:
        FileNotFoundError: nothing lies at the path.
        ImageError: it can't be decoded, or (``NotGradable``) isn't good enough for an answer.
        UsageError, ServingError, IntegrityError: no model can answer.
    """
    if profiler is None:
        with _ONE:
            profiler = _own()
    return profiler.analyze(image)


def read_image(image: Image, limits: DecodeLimits | None = None) -> bytes:
    """An image file's bytes, whichever way it is given.

    Raises:
        FileNotFoundError: nothing lies at the path.
        ImageTooLarge: the file has more bytes than the limits allow.
        UsageError: what lies there is no file, or ``image`` is neither a path nor bytes.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if not isinstance(image, str | os.PathLike):
        raise UsageError(
            f"An image is a path or a file's bytes, not {type(image).__name__}.",
            hint="Give the file as it is; an array of pixels has no place here.",
        )
    path = Path(image)
    if not path.exists():
        raise FileNotFoundError(f"There is no image at {str(path)!r}.")
    if not path.is_file():
        raise UsageError(f"{str(path)!r} is no image file.", hint="Name one file.")
    most = (limits or DecodeLimits()).max_bytes
    size = path.stat().st_size
    if size > most:
        raise ImageTooLarge(
            f"The image has {size:,} bytes; the limit is {most:,}.",
            hint="Send a smaller or more strongly compressed image.",
        )
    return path.read_bytes()


_ONE = threading.Lock()


@cache
def _own() -> Profiler:
    return Profiler.open(mock=os.environ.get(MOCK) == "1")
