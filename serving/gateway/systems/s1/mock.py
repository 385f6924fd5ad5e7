"""The chain's last link: an answer without a model, for developing a client, where it was switched on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from serving.profile import TASK, Profiler

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_LOG = logging.getLogger("retiderm.gateway")


class Mock:
    """Decided once, when the gateway starts: it stands in where no model is served then, and stays.

    Otherwise it never does: a model that goes away later is away, and nobody gets the mock's answer for its.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._profiler: Profiler | None = None

    @property
    def on(self) -> bool:
        """Whether it answers."""
        return self._profiler is not None

    async def start(self) -> None:
        """Decide."""
        gateway = self._gateway
        if not gateway.settings.profile_mock or await gateway.models.ready(TASK):
            return
        _LOG.warning("no model of %s is served: the mock answers, and its answers mean nothing", TASK)
        self._profiler = Profiler(None, mock=True, limits=gateway.image_limits)

    async def stop(self) -> None:
        """Nothing to close."""

    def answer(self, data: bytes) -> dict[str, Any]:
        """S1's document, which says that it is the mock's."""
        assert self._profiler is not None, "ask whether it is on"
        return self._profiler.analyze(data)
