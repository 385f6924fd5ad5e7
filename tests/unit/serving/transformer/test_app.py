"""The transformer's readiness."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.transformer.app import any_healthy


class Health:
    """A model whose health the test says."""

    def __init__(self, healthy: bool, challenges: bool = False) -> None:
        self._healthy, self.challenges = healthy, challenges

    async def healthy(self) -> bool:
        return self._healthy


@pytest.mark.parametrize(
    ("health", "ready"), [([], False), ([False], False), ([True], True), ([False, True], True)]
)
def test_one_model_that_answers_is_enough_to_be_ready(health: list[bool], ready: bool) -> None:
    models: list[Any] = [Health(each) for each in health]
    assert asyncio.run(any_healthy(models)) is ready


@pytest.mark.parametrize(("champion", "ready"), [(True, True), (False, False), (None, True)])
def test_a_challenger_makes_nobody_ready_but_itself(champion: bool | None, ready: bool) -> None:
    models: list[Any] = [Health(True, challenges=True)]
    if champion is not None:
        models.append(Health(champion))
    assert asyncio.run(any_healthy(models)) is ready
