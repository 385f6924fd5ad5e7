"""Recent answers as a window, judged against the reference of the model that gave them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np

from data.errors import NotFound, RetidermError
from data.paths import home
from serving.core.bundle import Bundle
from serving.core.drift import DriftReport, Reference, Window, WindowInfo, judge
from serving.core.pointer import list_pointers, read_pointer
from serving.gateway.loop.reading import verdict_of
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import features, labels
from serving.gateway.store.repositories.features import Seen
from serving.gateway.store.tables import Label

#: More are older than what is asked about, and a window's thresholds don't get finer.
SIZE = 1000


class Watch:
    """Judges windows. References of the bundles that served last stay open: their thresholds take time."""

    def __init__(self, store: Store, root: Path | None) -> None:
        self._store = store
        self._root = root
        self._known: dict[str, Reference] = {}

    def report(self, tenant: str, task: str) -> DriftReport:
        """The judgement on a task's newest answers. Takes seconds the first time: off the event loop.

        Raises:
            NotFound: the bundle that serves is not within reach, or has no reference.
        """
        reference, bundle = self._reference(task)
        window, _ = self.window(tenant, task, bundle)
        return judge(reference, window)

    def window(self, tenant: str, task: str, bundle: Bundle) -> tuple[Window, WindowInfo]:
        """The newest answers of exactly this bundle, oldest first."""
        with self._store.read(tenant, "drift") as scope:
            seen = features.recent(scope, task, bundle_digest=bundle.digest, limit=SIZE)[::-1]
            standing: dict[str, list[Label]] = {}
            for row in labels.listed(scope, task=task, limit=SIZE):
                standing.setdefault(row.image_id, []).append(row)
        info = WindowInfo(
            task,
            bundle.digest,
            _moment(seen[0].prediction.created_at) if seen else None,
            _moment(seen[-1].prediction.created_at) if seen else None,
            seen[-1].prediction.model_version if seen else None,
            "gateway",
        )
        return _window(seen, bundle, standing), info

    def tasks(self) -> dict[str, str]:
        """Every task that is promoted, with its version.

        Raises:
            IntegrityError: a pointer is damaged.
        """
        return {task: found.version for task, found in list_pointers(self._place).items()}

    def answered(self, tenant: str, task: str) -> bool:
        """Whether there is anything to judge: an answer of the version that is promoted."""
        pointer = read_pointer(self._place, task)
        with self._store.read(tenant, "drift") as scope:
            return pointer is not None and bool(
                features.recent(scope, task, bundle_digest=pointer.digest, limit=1)
            )

    @property
    def _place(self) -> Path:
        return self._root or home().serving

    def bundle(self, task: str) -> Bundle:
        """What is promoted for a task.

        Raises:
            NotFound: nothing, or it can't be read here.
        """
        root = self._place
        try:
            pointer = read_pointer(root, task)
            if pointer is None:
                raise NotFound(
                    f"The bundle of {task!r} is not within reach of this gateway.",
                    hint="Say where promoted bundles lie: GATEWAY_SERVING_ROOT.",
                )
            return Bundle.open(pointer.folder(root), verify=False)
        except NotFound:
            raise
        except RetidermError as error:
            raise NotFound(f"The bundle of {task!r} can't be read here: {error.code}.") from error

    def _reference(self, task: str) -> tuple[Reference, Bundle]:
        bundle = self.bundle(task)
        if bundle.digest not in self._known:
            try:
                found = Reference.of(bundle)
            except RetidermError as error:
                raise NotFound(
                    f"The model {task!r} keeps no reference to judge drift by.",
                    hint="Models that were imported have none; train the task again.",
                ) from error
            # Of each task the newest alone.
            self._known = {k: v for k, v in self._known.items() if v.task != task} | {bundle.digest: found}
        return self._known[bundle.digest], bundle


def _window(seen: list[Seen], bundle: Bundle, standing: dict[str, list[Label]]) -> Window:
    count = len(seen)
    nan = np.nan
    looks = [one.features for one in seen]
    width = next((len(one.embedding) for one in looks if one.embedding is not None), 0)
    probabilities, truth = {}, {}
    score = None
    if bundle.card.kind == "anomaly":
        told = [one.prediction.answer.get("anomaly", {}).get("score") for one in seen]
        score = np.array([nan if value is None else value for value in told], np.float64)
    for head in bundle.card.heads if score is None else ():
        values = np.full((count, len(head.classes)), nan)
        places = np.full(count, -1)
        for at, one in enumerate(seen):
            said = one.prediction.answer.get("heads", {}).get(head.name)
            if said is not None:
                values[at] = [said["probabilities"][name] for name in head.classes]
            # Only images that were drawn by chance tell how good the model is on all of them.
            said_by = {row.head: row.value for row in verdict_of(standing.get(one.prediction.image_id, []))}
            if said_by.get(head.name) in head.classes and one.audited:
                places[at] = head.classes.index(str(said_by[head.name]))
        probabilities[head.name] = values
        truth[head.name] = places
    return Window(
        images=count,
        gradable=np.array([one.prediction.verdict == "gradable" for one in seen], np.bool_),
        sharpness=np.array([nan if one.sharpness is None else one.sharpness for one in looks]),
        exposure=np.array([nan if one.exposure is None else one.exposure for one in looks]),
        colour=np.array([np.full(6, nan) if one.colour is None else one.colour for one in looks]).reshape(
            -1, 6
        ),
        embedding=np.array(
            [np.full(width, nan) if one.embedding is None else one.embedding for one in looks]
        ).reshape(count, width)
        if width
        else None,
        probabilities=probabilities,
        score=score,
        truth=truth,
    )


def _moment(moment: dt.datetime) -> str:
    return moment.isoformat()
