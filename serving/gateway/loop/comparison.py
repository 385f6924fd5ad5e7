"""Champion and challenger on the images that both have answered, and on those that readers have labelled."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from serving.gateway.loop import answers
from serving.gateway.loop.reading import state_of, verdict_of
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import labels, predictions
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Label, Prediction

_MOST = 1000
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts of images. ``labelled`` have a reader's label of every head; right is every head equal to it.

    ``champion`` and ``challenger`` are the versions that answered them, None where no image has both.
    """

    champion: str | None = None
    challenger: str | None = None
    images: int = 0
    agree: int = 0
    labelled: int = 0
    champion_right: int = 0
    challenger_right: int = 0

    def to_dict(self) -> dict[str, int | str | None]:
        """Plain values."""
        return asdict(self)


def compare_answers(store: Store, tenant: str, task: str) -> Comparison:
    """The newest challenger's answers (a thousand at most) against the champion's on the same images.

    Of several champions that it stood beside, the newest alone: their answers are not one model's.
    """
    with store.read(tenant) as scope:
        both = predictions.side_by_side(scope, task, limit=_MOST)
        both = [pair for pair in both if pair[0].bundle_digest == both[0][0].bundle_digest]
        read = _read(scope, task, {one.image_id for one, _ in both}) if both else {}
    same = [(said_of(one), said_of(other)) for one, other in both]
    labelled = [
        (read[one.image_id], said_of(one), said_of(other)) for one, other in both if one.image_id in read
    ]
    return Comparison(
        champion=both[0][0].model_version if both else None,
        challenger=both[0][1].model_version if both else None,
        images=len(both),
        agree=sum(one == other for one, other in same),
        labelled=len(labelled),
        champion_right=sum(truth == one for truth, one, _ in labelled),
        challenger_right=sum(truth == other for truth, _, other in labelled),
    )


def said_of(row: Prediction) -> dict[str, str]:
    """Each head's label."""
    return answers.labels_of(row.answer)


def _read(scope: Scope, task: str, wanted: Collection[str]) -> dict[str, dict[str, str]]:
    by_image: dict[str, list[Label]] = {}
    after = 0
    while rows := labels.listed(scope, task=task, after=after, limit=_PAGE):
        for row in rows:
            if row.image_id in wanted:
                by_image.setdefault(row.image_id, []).append(row)
        after = rows[-1].number
    found = {}
    for image_id, standing in by_image.items():
        # Where readers disagree and nobody has decided, nobody knows who is right.
        if state_of(standing, 1) == "adjudicate":
            continue
        values = {row.head: row.value for row in verdict_of(standing)}
        if all(value is not None for value in values.values()):
            found[image_id] = {head: str(value) for head, value in values.items()}
    return found
