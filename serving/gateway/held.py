"""How many bytes requests may hold at once: bodies that came, and images that were fetched.

What a request will need is asked for before the first byte of it is read, so that who waits holds nothing
that another could be waiting for. Whoever does hold something and needs more gets it at once or not at all.
So there is always somebody who goes on, and nobody waits in a circle.

All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType

from data.errors import Overloaded

#: As much everybody may hold, uncounted: what isn't a file.
FREE = 64 * 2**10
_WAIT_S = 5.0
_AGAIN_S = 2


class Full(Overloaded):
    """The bytes that may be held at once are: again in ``retry_after`` seconds (503)."""

    def __init__(self) -> None:
        super().__init__("The gateway holds as much as it can now.", hint="Send it again later.")
        self.retry_after = _AGAIN_S


class Held:
    """The bytes of one gateway: ``most`` in all, ``share`` of them one client's. Waiting takes ``wait_s``."""

    def __init__(self, most: int, share: int, wait_s: float = _WAIT_S) -> None:
        self._most, self._share, self._wait_s = most, share, wait_s
        self._held = 0
        self._clients: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    @property
    def held(self) -> int:
        """How many bytes are held now."""
        return self._held

    def claim(self, client: str) -> Claim:
        """Nothing yet, for a request of this client."""
        return Claim(self, client)

    async def _wait(self, claim: Claim, size: int) -> None:
        waiting = _Waiting(claim, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(self._wait_s):
                await waiting.turn
        except TimeoutError:
            if not waiting.given:
                raise Full from None
        finally:
            if not waiting.given:
                self._waiting.remove(waiting)
                # It may have been in the way of a smaller one.
                self._go_on()

    def _try(self, claim: Claim, size: int) -> bool:
        if any(self._fits_share(other) for other in self._waiting):
            return False  # they came before
        if self._held + size > self._most or self._clients[claim.client] + size > self._share:
            return False
        self._give(claim, size)
        return True

    def _give(self, claim: Claim, size: int) -> None:
        self._held += size
        self._clients[claim.client] += size
        claim.size += size

    def _release(self, claim: Claim) -> None:
        self._held -= claim.size
        self._clients[claim.client] -= claim.size
        if not self._clients[claim.client]:
            del self._clients[claim.client]
        claim.size = 0
        self._go_on()

    def _go_on(self) -> None:
        """Those that wait, in the order in which they came; one with its share is in nobody's way."""
        for waiting in list(self._waiting):
            if not self._fits_share(waiting):
                continue
            if self._held + waiting.size > self._most:
                break
            self._waiting.remove(waiting)
            self._give(waiting.claim, waiting.size)
            waiting.given = True
            if not waiting.turn.done():
                waiting.turn.set_result(None)

    def _fits_share(self, waiting: _Waiting) -> bool:
        return self._clients[waiting.claim.client] + waiting.size <= self._share


class Claim:
    """What one request holds, until :meth:`release`, which is also the end of a ``with`` block."""

    def __init__(self, held: Held, client: str) -> None:
        self._all, self.client = held, client
        self.size = 0

    async def take(self, size: int) -> None:
        """Hold ``size`` bytes more. Who holds nothing yet waits a while for them.

        Raises:
            Full: they aren't free.
        """
        if size <= FREE or self._all._try(self, size):
            return
        if self.size:
            raise Full
        await self._all._wait(self, size)

    def take_now(self, size: int) -> bool:
        """Hold ``size`` bytes more without waiting for them; False where they aren't free."""
        return size <= FREE or self._all._try(self, size)

    def release(self) -> None:
        """Hold nothing any more. Again is no error."""
        if self.size:
            self._all._release(self)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Waiting:
    """Who waits, for how much, and whether it was given."""

    __slots__ = ("claim", "given", "size", "turn")

    def __init__(self, claim: Claim, size: int, turn: asyncio.Future[None]) -> None:
        self.claim, self.size, self.turn = claim, size, turn
        self.given = False
