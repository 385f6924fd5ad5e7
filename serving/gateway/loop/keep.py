"""One way to keep an answer: the prediction, what its image looked like, a place in the queue if doubtful."""

from __future__ import annotations

import logging

from data.errors import RetidermError
from serving.core.challenger import challenger_name
from serving.gateway.loop.policy import QueuePolicy, priority
from serving.gateway.models import Answer
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import features, images, predictions, queue, windows
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Prediction

_LOG = logging.getLogger("retiderm.gateway")


def keep_answer(
    scope: Scope,
    policy: QueuePolicy,
    answer: Answer,
    *,
    image_id: str,
    scan_id: str | None = None,
    case_id: str | None = None,
    role: str | None = None,
    returned: bool = True,
) -> Prediction:
    """Keep what a model said of an image, in the transaction of whatever it was said for.

    ``case_id`` is our row's id. ``role`` is by who answered, where not said. An answer that nobody was given
    asks for no reader.

    Raises:
        NotFound: no such image, scan or case.
        StoreError: the answer can't be traced to its files.
    """
    reply = answer.reply
    if role is None:
        challenger = answer.origin.model_name == challenger_name(answer.origin.task)
        role = "challenger" if challenger else "champion"
    row = predictions.add(
        scope,
        answer.origin,
        image_id=image_id,
        scan_id=scan_id,
        verdict=reply.verdict,
        reasons=reply.reasons,
        answer=answer.document,
        uncertain=any(head.uncertain for head in reply.heads.values()),
        role=role,
        returned=returned,
    )
    looks = answer.features
    if looks is not None:
        features.add(scope, row.id, looks)
    if returned:
        sha256 = images.get(scope, image_id).sha256
        reasons = policy.doubts(reply, unusual=looks.unusual if looks else None, key=sha256)
        if reasons:
            queue.enter(
                scope,
                task=answer.origin.task,
                image_id=image_id,
                prediction_id=row.id,
                case_id=case_id,
                reasons=reasons,
                priority=priority(reasons, reply),
                readers_needed=policy.readers,
            )
    return row


def glance(scope: Scope, answer: Answer) -> None:
    """Note how sharp and how bright a photograph was whose answer is not kept, for drift: nothing else of it.

    A window without those that the quality gate refused would hold the good ones alone. A challenger's count
    for no window.
    """
    if answer.features is not None and answer.origin.model_name == answer.origin.task:
        windows.glance(scope, answer.origin, answer.reply.verdict, answer.features)


def glance_at(store: Store, tenant: str, actor: str, answer: Answer) -> None:
    """The same in a transaction of its own, for a route that refuses. Its refusal stays what it is."""
    try:
        with store.write(tenant, actor) as scope:
            glance(scope, answer)
    except RetidermError as error:
        _LOG.warning("a refused photograph is not counted for drift: %s", error.code)
