"""Champion and challenger on the images that both have answered, and on those that readers have labelled."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from serving.gateway.loop import answers
from serving.gateway.loop.reading import state_of, verdict_of
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import images, labels, predictions
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Label, Prediction

_MOST = 1000


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
    """What readers say of these images, whichever copy of the photograph they said it of."""
    contents = {row.id: row.sha256 for row in images.by_id(scope, wanted).values()}
    told = labels.of_contents(scope, task, sorted(set(contents.values())))
    known = {sha256: _truth(standing) for sha256, standing in told.items()}
    return {key: said for key, sha256 in contents.items() if (said := known.get(sha256))}


def _truth(standing: Sequence[Label]) -> dict[str, str]:
    """Each head's class; none where nobody knows it."""
    # Where readers disagree and nobody has decided, nobody knows who is right.
    if state_of(standing, 1) == "adjudicate":
        return {}
    values = {row.head: row.value for row in verdict_of(standing)}
    if any(value is None for value in values.values()):
        return {}
    return {head: str(value) for head, value in values.items()}
