"""MLflow's client, made when it is first needed."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Connection:
    """A way to one MLflow. ``uri`` is its own; without it the project's tracking store."""

    def __init__(self, uri: str | None = None) -> None:
        self._uri = uri
        self._made: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, made on first use: its import takes seconds."""
        if self._made is None:
            # Its progress bars would break into tables and JSON.
            os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
            with _no_collection():
                if self._uri is None:
                    from training.tracking import client

                    self._made = client()
                else:
                    from mlflow import MlflowClient

                    self._made = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._made


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Let Python look for garbage later: among what an import makes there is hardly any, and it looks often.

    A quarter of the time that MLflow's takes.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
