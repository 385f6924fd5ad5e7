"""From the store's rows to windows, as ``docs/drift.md`` describes them. Pure but for one count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle import Bundle
from serving.core.drift import Window, WindowInfo
from serving.gateway.loop.reading import verdict_of
from serving.gateway.store.repositories import windows
from serving.gateway.store.repositories.windows import Read, Sight
from serving.gateway.store.scope import Scope

Floats = NDArray[np.float64]


def of_images(seen: Sequence[Sight], bundle: Bundle) -> tuple[Window, WindowInfo]:
    """Images in the order in which they came, refused ones included. Readers' labels are left out."""
    score = None
    probabilities: dict[str, Floats] = {}
    if bundle.card.kind == "anomaly":
        told = [one.answer.get("anomaly", {}).get("score") for one in seen]
        score = np.array([np.nan if value is None else value for value in told], np.float64)
    else:
        probabilities = _probabilities(seen, bundle)
    width = next((len(one.looks.embedding) for one in seen if one.looks.embedding is not None), 0)
    window = Window(
        images=len(seen),
        gradable=np.array([one.gradable for one in seen], np.bool_),
        sharpness=_column([one.looks.sharpness for one in seen]),
        exposure=_column([one.looks.exposure for one in seen]),
        colour=_rows([one.looks.colour for one in seen], 6),
        embedding=_rows([one.looks.embedding for one in seen], width) if width else None,
        probabilities=probabilities,
        score=score,
    )
    return window, _info(seen, bundle, "gateway")


def of_labels(read: Sequence[Read], bundle: Bundle) -> tuple[Window, WindowInfo]:
    """Answers with what readers say, in the order in which they were done with them: a window of labels."""
    truth = {head.name: np.full(len(read), -1) for head in bundle.card.heads}
    for at, one in enumerate(read):
        for label in verdict_of(one.labels):
            head = next((head for head in bundle.card.heads if head.name == label.head), None)
            if head is not None and label.value in head.classes:
                truth[head.name][at] = head.classes.index(label.value)
    window = Window(images=len(read), probabilities=_probabilities(read, bundle), truth=truth)
    return window, _info(read, bundle, "gateway, labels")


def unread_share(scope: Scope, task: str, digest: str, read: Sequence[Read]) -> float:
    """Of the images that chance drew while these were drawn, the share that readers have not done with."""
    if not read:
        return 0.0
    places = [one.entry_number for one in read]
    left = windows.unread(scope, task, digest, min(places), max(places))
    return left / (left + len(read))


def _probabilities(given: Sequence[Sight | Read], bundle: Bundle) -> dict[str, Floats]:
    """Of each head [n, C], NaN where there is no answer; an anomaly model has none that could be told."""
    found: dict[str, Floats] = {}
    for head in bundle.card.heads:
        values = np.full((len(given), len(head.classes)), np.nan)
        for at, one in enumerate(given):
            said: dict[str, Any] | None = one.answer.get("heads", {}).get(head.name)
            if said is not None:
                values[at] = [said["probabilities"][name] for name in head.classes]
        found[head.name] = values
    return found


def _info(given: Sequence[Sight | Read], bundle: Bundle, source: str) -> WindowInfo:
    return WindowInfo(
        bundle.card.task,
        bundle.digest,
        given[0].at.isoformat() if given else None,
        given[-1].at.isoformat() if given else None,
        given[-1].version if given else None,
        source,
    )


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _rows(values: Sequence[NDArray[np.float32] | None], width: int) -> Floats:
    nothing = np.full(width, np.nan)
    return np.array([nothing if value is None else value for value in values], np.float64).reshape(-1, width)
