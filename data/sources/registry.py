"""The kinds of source, and how a spec names one: ``KIND:PATH?option=value&option=value``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from data.dataset import Head
from data.errors import SourceError
from data.sources.acne04 import Acne04
from data.sources.aptos import Aptos
from data.sources.base import Options, Source, near
from data.sources.canonical import Canonical
from data.sources.eyepacs import EyePacs
from data.sources.folders import Folders
from data.sources.ham10000 import DIAGNOSES, Ham10000
from data.sources.idrid import Idrid
from data.sources.labels import Labels
from data.sources.medmnist import MedMnist
from data.sources.messidor2 import Messidor2
from data.sources.mvtec import MvTec
from data.sources.review import Review
from data.sources.synthetic import SyntheticFace, SyntheticFundus, SyntheticLesion, trait_of

KINDS: dict[str, type[Source]] = {
    source.kind: source
    for source in (
        Aptos,
        EyePacs,
        Messidor2,
        Idrid,
        Labels,
        Ham10000,
        Acne04,
        MedMnist,
        Folders,
        MvTec,
        Canonical,
        Review,
        SyntheticFundus,
        SyntheticLesion,
        SyntheticFace,
    )
}


@dataclass(frozen=True, slots=True)
class Spec:
    """A source's spec, taken apart."""

    kind: str
    path: Path
    options: dict[str, str]


def parse_spec(spec: str) -> Spec:
    """Take ``KIND:PATH?option=value`` apart. :class:`SourceError` for a spec of another form."""
    body, _, query = spec.partition("?") if spec.split("?")[0].count(":") or "?" in spec else (spec, "", "")
    kind, colon, path = body.partition(":")
    kind = kind.strip()
    known = [*KINDS, "synthetic"]
    if kind not in known:
        if not colon and spec and Path(spec).exists():
            raise SourceError(
                f"{spec!r} is a path without its kind.",
                hint=f"Write KIND:{spec} with KIND one of {', '.join(known)}.",
            )
        raise SourceError(
            f"Unknown kind of source {kind!r}{near(kind, known)}.", hint=f"Known kinds: {', '.join(known)}."
        )
    if not path and not kind.startswith("synthetic"):
        raise SourceError(f"The source {spec!r} names no path.", hint=f"Write {kind}:PATH.")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise SourceError(
            f"The options {query!r} can't be read.", hint="Write ?option=value&option=value."
        ) from None
    return Spec(kind, Path(path).expanduser(), options)


def open_source(spec: str, *, task: str | None = None, heads: Sequence[Head] = ()) -> Source:
    """Open a source and check that it is of the kind named. :class:`SourceError` says what is wrong.

    ``task`` and ``heads`` are needed for the kind ``synthetic`` only, which draws what the task looks at.
    """
    parsed = parse_spec(spec)
    source = KINDS[_synthetic_kind(task, heads) if parsed.kind == "synthetic" else parsed.kind]
    if strange := [name for name in parsed.options if name not in source.options]:
        known = ", ".join(source.options) or "none"
        raise SourceError(
            f"A source of kind {parsed.kind} has no option {', '.join(strange)}.", hint=f"It has: {known}."
        )
    return source(parsed.path, Options(parsed.options))


def _synthetic_kind(task: str | None, heads: Sequence[Head]) -> str:
    if heads and all(trait_of(head) for head in heads):
        return "synthetic-face"
    classes = {name.casefold() for head in heads for name in head.classes}
    words = (task or "").casefold()
    if classes & set(DIAGNOSES) or "lesion" in words or "skin" in words:
        return "synthetic-lesion"
    if len(classes) == 5 or "dr_" in words or "retin" in words or "fundus" in words:
        return "synthetic-fundus"
    raise SourceError(
        f"What to draw for the task {task!r} is unknown.",
        hint="Name synthetic-fundus, synthetic-lesion or synthetic-face.",
    )
