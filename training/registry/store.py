"""Around MLflow's client: whole lists, its errors as ours, files under the names that we mean, copies."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import IntegrityError, RegistryError
from data.files import atomic_dir, write_json
from serving.core.bundle import CARD, Bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient


def pages(search: Any, **arguments: Any) -> list[Any]:
    """Everything that one of MLflow's paged searches finds."""
    found: list[Any] = []
    token = None
    while True:
        page = search(max_results=500, page_token=token, **arguments)
        found += page
        token = page.token
        if not token:
            return found


@contextlib.contextmanager
def mlflow_errors(what: str) -> Iterator[None]:
    """MLflow's own errors as ours, with what we were doing."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        text = str(error).splitlines()[0][:500]
        raise RegistryError(f"MLflow failed while {what}: {text}", hint="See `mlflow doctor`.") from error
    except (requests.RequestException, OSError, json.JSONDecodeError) as error:
        if isinstance(error, IntegrityError):
            raise
        raise RegistryError(
            f"MLflow's store could not be reached while {what}: {error}",
            hint="Check MLFLOW_TRACKING_URI and that its server runs.",
        ) from error


def log_file(client: MlflowClient, run: str, path: Path, name: str) -> None:
    """Keep a file in a run as ``name``; MLflow by itself keeps a file's own last part."""
    folder, _, base = name.rpartition("/")
    if path.name == base:
        client.log_artifact(run, str(path), folder or None)
        return
    with tempfile.TemporaryDirectory() as temporary:
        renamed = Path(temporary) / base
        renamed.write_bytes(path.read_bytes())
        client.log_artifact(run, str(renamed), folder or None)


def log_json(client: MlflowClient, run: str, value: Mapping[str, Any], name: str) -> None:
    """Keep a document in a run."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name.rpartition("/")[2]
        write_json(path, dict(value))
        log_file(client, run, path, name)


def copy_bundle(bundle: Bundle, destination: Path) -> Bundle:
    """Copy a bundle whole or not at all; the copy is verified before it has its name.

    Raises:
        IntegrityError: the copy differs.
    """
    with atomic_dir(destination) as temporary:
        for name in (CARD, *bundle.card.files):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((bundle.root / name).read_bytes())
        copied = Bundle.open(temporary)
        if copied.digest != bundle.digest:
            raise IntegrityError(
                f"The copy of {bundle.card.task} differs from its source.", hint="Try again."
            )
    return Bundle.open(destination, verify=False)
