"""The answer to one image without a server: the same preparation, model and decisions, in this process."""

from __future__ import annotations

from pathlib import Path

from data.errors import ImageError, UsageError
from serving.answer import ImageAnswer
from serving.engine import load_engine
from serving.identity import ModelInfo
from serving.preparing import load_recipe
from serving.source import Served, champions, open_source


def find_served(root: Path | None, bundle: Path | None, task: str | None) -> Served:
    """What answers: one bundle, or a task of a serving root (which may be left out where it is the only one).

    A challenger answers where it is named: ``<task>-challenger``.

    Raises:
        UsageError: no such task is promoted, or there are several to choose from.
        BundleError: there is no bundle.
    """
    found = open_source(root, bundle).scan()
    if task is None and len(champions(found)) == 1:
        return next(iter(champions(found).values()))
    if task not in found:
        there = ", ".join(found) or "none"
        what = f"The task {task!r} isn't served." if task else "Say which model is asked."
        raise UsageError(f"{what} Served here: {there}.", hint="Choose with --task, or train: retiderm run.")
    return found[task]


def answer(served: Served, data: bytes, *, explain: bool = False, precision: str = "auto") -> ImageAnswer:
    """Answer an encoded image.

    Raises:
        ImageError: it can't be decoded.
        IntegrityError: the bundle was altered.
    """
    recipe = load_recipe(served)
    engine = load_engine(served, precision=precision)
    prepared = recipe.prepare(data)
    if isinstance(prepared, ImageError):
        raise prepared
    model = ModelInfo.of(served, engine.card, engine.precision)
    if not prepared.gradable:
        return ImageAnswer(model, verdict=prepared.verdict)
    (result,) = engine.answer(prepared.pixels[None], explain=explain).results()
    where = prepared.placement
    return ImageAnswer(
        model,
        verdict=prepared.verdict,
        result=result.placed(where) if where is not None else result,
        overlay=result.overlay(prepared.pixels),
        unexplained=recipe.explanation.unavailable if explain else None,
    )
