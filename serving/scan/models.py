"""How a scan reaches its models: a small protocol, and bundles in this process as one way to meet it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError
from data.paths import home
from data.quality import QualityVerdict, assess
from serving.answer import ImageAnswer
from serving.core.bundle import Card
from serving.engine import Engine, load_engine
from serving.identity import ModelInfo
from serving.preparing import Recipe, load_recipe
from serving.replies import ModelReply
from serving.scan.answer import ACNE, CONDITION
from serving.source import Served, open_source

_ASKED = {asked.task: asked for asked in (ACNE, CONDITION)}
_UNCHECKED = QualityVerdict("gradable", ("not_checked",), {})


class FaceModels(Protocol):
    """The models of faces, by task. Over KServe, the face goes as ``encode_face`` writes it."""

    def ask(self, task: str, face: NDArray[np.uint8]) -> ModelReply | None:
        """What a task's model says about a face ``uint8 [S, S, 3]``; None where none is served.

        Raises:
            ServingError: it is served, but away or too busy.
        """


class BundleModels:
    """Promoted models, or single bundles, in this process. ``ask`` may be called from several threads."""

    def __init__(
        self, served: Iterable[Served], *, precision: str = "auto", threads: int | None = None
    ) -> None:
        """Open each, verify it and hold its golden answers.

        Raises:
            IntegrityError: one was altered, or is no model of S3.
        """
        self._models: dict[str, tuple[Recipe, Engine]] = {}
        for item in served:
            recipe = load_recipe(item)
            check_head(recipe.card)
            self._models[item.task] = (recipe, load_engine(item, precision=precision, threads=threads))

    @classmethod
    def open(
        cls,
        *bundles: Path,
        root: Path | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> BundleModels:
        """These bundles' folders; without any, what a serving root has of the two (the home's by default).

        A task that nothing is promoted for is left out: its part of a result is null.
        """
        if bundles:
            found: dict[str, Served] = {}
            for folder in bundles:
                found |= open_source(None, folder).scan()
        else:
            found = open_source(root if root is not None else home().serving, None).scan()
            found = {task: item for task, item in found.items() if task in _ASKED}
        return cls(found.values(), precision=precision, threads=threads)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that there is a model for."""
        return tuple(self._models)

    def ask(self, task: str, face: NDArray[np.uint8]) -> ModelReply | None:
        """See ``FaceModels.ask``: judged, prepared and answered as a server does it."""
        if task not in self._models:
            return None
        recipe, engine = self._models[task]
        model = ModelInfo.of(engine.served, engine.card, engine.precision)
        verdict = assess(face, recipe.profile) if recipe.profile is not None else _UNCHECKED
        result = None
        if verdict.verdict == "gradable":
            (result,) = engine.answer(recipe.preprocessing(face)[None]).results()
        return ModelReply.read(ImageAnswer(model, verdict=verdict, result=result).to_dict())


def check_head(card: Card) -> None:
    """Refuse a bundle that isn't one of S3's two models.

    Raises:
        BundleError: it is of another task, or has other classes.
    """
    asked = _ASKED.get(card.task)
    if (
        asked is None
        or asked.head not in card.slices
        or set(card.head(asked.head).classes) != set(asked.classes)
    ):
        raise BundleError(
            f"The model {card.task!r} is none that a face scan asks, or has other classes than it should.",
            hint=f"A scan asks the tasks {' and '.join(_ASKED)}: train them with their own task files.",
        )
