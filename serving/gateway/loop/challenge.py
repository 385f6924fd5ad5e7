"""A challenger beside the champion: for a share of the questions, or in the shadow, where nobody sees it.

What a server says of the challenger (``docs/serving.md``) holds for a few seconds. A challenger that is away
or slow never costs anybody an answer: the champion's is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter

from data.errors import Conflict, ImageError, NotFound, RetidermError, ServingError
from serving.core.challenger import SHADOW, SHARE, challenger_name
from serving.gateway.held import Held
from serving.gateway.loop.answers import labels_of
from serving.gateway.loop.keep import keep_answer
from serving.gateway.loop.policy import QueuePolicy, disagree, priority
from serving.gateway.models import Answer, Models
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import queue

_LOG = logging.getLogger("retiderm.gateway")
_FRESH_S = 5.0
_AT_ONCE = 4
_MOST_WAITING = 64
_GRACE_S = 2.0
#: Clients may name tasks that there aren't.
_MOST_KNOWN = 200
_ACTOR = "shadow"

CHALLENGES = Counter("retiderm_gateway_challenges", "Questions to challengers", ["task", "mode", "outcome"])


@dataclass(frozen=True, slots=True)
class Kept:
    """The champion's answer as it was kept: what a shadow is compared with."""

    tenant: str
    task: str
    image_id: str
    prediction_id: str
    answer: Answer


class Challengers:
    """Asks models, and challengers where there are some. Of one event loop."""

    def __init__(self, models: Callable[[], Models], store: Store, policy: QueuePolicy, held: Held) -> None:
        self._models, self._store, self._policy, self._held = models, store, policy, held
        self._known: dict[str, tuple[float, str, float]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        task: str,
        image: bytes,
        *,
        key: str,
        explain: str = "",
        usable: Callable[[Answer], object] | None = None,
    ) -> Answer:
        """The answer that a client gets: the champion's, or for a share of the keys the challenger's.

        ``key`` names the patient or the image: one patient is always answered by the same of the two.
        ``usable`` raises a ``ServingError`` where a client could not be given an answer; of a challenger's
        the champion is asked then.
        """
        mode, share = await self._mode(task)
        if mode == SHARE and _place(task, key) < share:
            try:
                answer = await self._models().ask(challenger_name(task), image, explain=explain)
                if usable is not None:
                    usable(answer)
            except ImageError:
                raise
            except ServingError as error:
                # There is a champion for all of them: its answer is no worse for the other's absence.
                CHALLENGES.labels(task, mode, error.code).inc()
            else:
                CHALLENGES.labels(task, mode, "answered").inc()
                return answer
        return await self._models().ask(task, image, explain=explain)

    def shadow(self, kept: Kept, image: bytes) -> None:
        """Ask the challenger about what the champion has answered, later, if one is in the shadow."""
        known = self._known.get(kept.task)
        if known is None or known[1] != SHADOW or is_challenger(kept.answer):
            return
        # The image is held for longer than its request.
        claim = self._held.claim(_ACTOR)
        if len(self._running) >= _MOST_WAITING or not claim.take_now(len(image)):
            CHALLENGES.labels(kept.task, SHADOW, "left_out").inc()
            return
        running = asyncio.create_task(self._shadow(kept, image))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        running.add_done_callback(lambda _: claim.release())

    async def stop(self) -> None:
        """Let those that run end, for a moment: what is cut off is one comparison less."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=_GRACE_S)
            for running in late:
                running.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _mode(self, task: str) -> tuple[str, float]:
        now = time.monotonic()
        known = self._known.get(task)
        if known is not None and now - known[0] < _FRESH_S:
            return known[1], known[2]
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        # Before the answer, so that of many questions at once only the first asks.
        self._known[task] = (now, *(known[1:] if known else ("", 0.0)))
        said = await self._models().describe(challenger_name(task)) or {}
        mode, share = str(said.get("mode", "")), said.get("share", 0.0)
        self._known[task] = (now, mode, float(share) if isinstance(share, int | float) else 0.0)
        return self._known[task][1:]

    async def _shadow(self, kept: Kept, image: bytes) -> None:
        async with self._room:
            try:
                answer = await self._models().ask(challenger_name(kept.task), image)
                await asyncio.to_thread(self._keep, kept, answer)
            except (NotFound, Conflict):
                outcome = "erased"  # the image went while the challenger thought
            except RetidermError as error:
                outcome = error.code
            except Exception:
                _LOG.exception("a shadow of %s failed", kept.task)
                outcome = "internal"
            else:
                outcome = "answered"
        CHALLENGES.labels(kept.task, SHADOW, outcome).inc()

    def _keep(self, kept: Kept, answer: Answer) -> None:
        with self._store.write(kept.tenant, _ACTOR) as scope:
            keep_answer(
                scope, self._policy, answer, image_id=kept.image_id, role="challenger", returned=False
            )
            if disagree(labels_of(kept.answer.document), labels_of(answer.document)):
                queue.enter(
                    scope,
                    task=kept.task,
                    image_id=kept.image_id,
                    prediction_id=kept.prediction_id,
                    reasons=["disagreement"],
                    priority=priority(["disagreement"], kept.answer.reply),
                    readers_needed=self._policy.readers,
                )


def is_challenger(answer: Answer) -> bool:
    """Whether a challenger gave it."""
    return answer.origin.model_name == challenger_name(answer.origin.task)


def _place(task: str, key: str) -> float:
    """Where a key lies between 0 and 1, the same for ever."""
    return int.from_bytes(hashlib.sha256(f"share:{task}:{key}".encode()).digest()[:8], "big") / 2**64
