"""What of S0 a reader should look at: answers below the threshold, and those that a user rejected."""

from __future__ import annotations

from serving.gateway.gateway import Gateway
from serving.gateway.loop.keep import keep_answer
from serving.gateway.loop.policy import priority
from serving.gateway.loop.reading import doubt
from serving.gateway.models import Answer
from serving.gateway.store.repositories import cases, images, predictions, queue
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Case, Image, Prediction
from serving.gateway.systems.s0.conclude import task_of, top_of
from serving.replies import ModelReply

# A case has one image or a few; of more, the last ones.
_IMAGES = 5


def record(
    scope: Scope, gateway: Gateway, answer: Answer, image: Image, sure: float, *, returned: bool
) -> Prediction:
    """Keep an answer. One below the threshold is uncertain here whatever its model says of itself.

    ``returned`` says whether the app was given it; nobody reads an image for one that it was not.
    """
    case = cases.find(scope, image.case_key) if image.case_key is not None else None
    case_id = case.id if case is not None else None
    row = keep_answer(scope, gateway.policy, answer, image_id=image.id, case_id=case_id, returned=returned)
    top = top_of(answer.document)
    if returned and top is not None and top < sure and not row.uncertain:
        row.uncertain = True
        _enter(scope, gateway, row, "uncertain", case_id)
    return row


def follow(scope: Scope, gateway: Gateway, case: Case, *, rejected: bool) -> None:
    """Note which task a case is about, as far as it and its images tell, and ask for a reader if rejected."""
    shown = [image.id for image in images.of_case(scope, case.key) if image.id != case.image_id][-_IMAGES:]
    if case.image_id is not None:
        shown.append(case.image_id)
    # The last image counts, and of it the newest answer, which is listed first.
    rows = [row for image in shown for row in reversed(predictions.listed(scope, image_id=image))]
    found = {row.task: row for row in rows if row.returned}
    case.task = task_of(case.payload, {task: row.answer for task, row in found.items()}) or case.task
    doubted = found.get(case.task or "")
    if doubted is None or doubted.verdict != "gradable":
        return
    if rejected:
        _enter(scope, gateway, doubted, "rejected", case.id)
    else:
        entry = queue.of_image(scope, doubted.task, doubted.image_id)
        if entry is not None and entry.case_id is None:
            entry.case_id = case.id


def _enter(scope: Scope, gateway: Gateway, row: Prediction, reason: str, case_id: str | None) -> None:
    entry = queue.enter(
        scope,
        task=row.task,
        image_id=row.image_id,
        prediction_id=row.id,
        reasons=[reason],
        priority=priority([reason], ModelReply.read(row.answer)),
        case_id=case_id,
        readers_needed=gateway.policy.readers,
    )
    if entry is not None and reason == "rejected":
        doubt(scope, entry)
