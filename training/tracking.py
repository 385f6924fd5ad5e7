"""MLflow, as this project uses it: one place for the address, one run for what belongs together.

Without ``MLFLOW_TRACKING_URI`` everything goes to a SQLite file and a folder under ``RETIDERM_HOME/mlflow``.
With ``MLFLOW_RUN_ID`` (a Kubeflow step that MLflow's plugin gave a run) that run is joined, and left open for
its owner to close.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from data.errors import RegistryError
from data.paths import home

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite file under home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{home().mlflow / 'mlflow.db'}"


def artifact_root() -> Path:
    """Where the artifacts of a local store go; a server has its own."""
    return home().mlflow / "artifacts"


def client() -> MlflowClient:
    """MLflow's client on a store that is ready for use by several processes at once.

    Raises :class:`RegistryError` when the store can't be reached.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = tracking_uri()
    path = Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if path is not None:
        _prepare(path, uri)
    made = MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
    try:
        made.search_experiments(max_results=1)
    except MlflowException as error:
        raise RegistryError(
            f"MLflow at {uri} can't be used: {str(error).splitlines()[0]}",
            hint="Check MLFLOW_TRACKING_URI, or unset it to keep runs in a local file.",
        ) from error
    return made


def _prepare(path: Path, uri: str) -> None:
    """Bring a SQLite file to this MLflow's schema, once, under a lock.

    Two processes that begin on one fresh file at once would otherwise trip over each other's tables.
    """
    import mlflow

    marker = path.with_name(f".{path.name}.{mlflow.__version__}")
    if marker.exists() and path.exists():
        return
    with path.with_name(f".{path.name}.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if marker.exists() and path.exists():
            return
        from mlflow.store.db import utils

        quiet = [logging.getLogger(name) for name in ("alembic", "mlflow.store.db.utils")]
        levels = [logger.level for logger in quiet]
        for logger in quiet:
            logger.setLevel(logging.WARNING)
        tools: Any = utils
        engine = tools.create_sqlalchemy_engine_with_retry(uri)
        try:
            # As MLflow does with a new file (or a half-made one), and `mlflow db upgrade` with an old one.
            new = not tools._all_tables_exist(engine)
            (tools._initialize_tables if new else tools._upgrade_db)(engine)
        finally:
            engine.dispose()
            for logger, level in zip(quiet, levels, strict=True):
                logger.setLevel(level)
        marker.touch()


def experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment of that name, made when it isn't there."""
    from mlflow.exceptions import MlflowException

    found: Any = client.get_experiment_by_name(name)
    if found is None:
        # A local store would otherwise put artifacts under the current folder; a server decides for itself.
        place = None if tracking_uri().startswith("http") else (artifact_root() / name).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was quicker
    return str(found.experiment_id)


class Tracker:
    """One run. A store that stops answering holds nothing up: what it missed is sent with the next report."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.run_id = run_id
        self._waiting: list[Any] = []
        self._told = False

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, nested ones under dotted names; what the run already has stays."""
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params
        new = [Param(key, str(value)[:500]) for key, value in flatten(params).items() if key not in known]
        for begin in range(0, len(new), 100):  # MLflow takes a hundred at once
            self._client.log_batch(self.run_id, params=new[begin : begin + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(key, float(value), now, step or 0) for key, value in metrics.items()]
        self.flush()

    def log_metric(self, key: str, value: float, step: int | None = None) -> None:
        """Record one number."""
        self.log_metrics({key: value}, step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, value)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a folder with all in it."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def flush(self) -> bool:
        """Send what waits; False, and one note, when the store doesn't answer."""
        from mlflow.exceptions import MlflowException

        while self._waiting:
            part = self._waiting[:1000]
            try:
                self._client.log_batch(self.run_id, metrics=part)
            except (MlflowException, OSError) as error:
                if not self._told:
                    reason = str(error).splitlines()[0][:200]
                    print(f"Note: MLflow didn't take a report, which is kept: {reason}", file=sys.stderr)
                    self._told = True
                return False
            del self._waiting[: len(part)]
        return True


@contextlib.contextmanager
def run(
    experiment: str,
    name: str,
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> Iterator[Tracker]:
    """A run in ``experiment``, with this machine's load recorded beside it.

    ``MLFLOW_RUN_ID`` is joined when it is set; otherwise ``run_id`` is taken up again when it still exists;
    otherwise a run is made. The run ends as finished, failed, or (asked to stop) killed.

    Raises :class:`RegistryError` when the store can't be reached at the beginning.
    """
    store = client()
    given = os.environ.get("MLFLOW_RUN_ID")
    if given and _exists(store, given):
        identity, ours = given, False
    elif run_id and _exists(store, run_id):
        identity, ours = run_id, True
        store.update_run(identity, status="RUNNING")
    else:
        if given:
            print(f"Note: MLFLOW_RUN_ID {given} is not in this store; a new run is made.", file=sys.stderr)
        made = store.create_run(experiment_id(store, experiment), run_name=name)
        identity, ours = str(made.info.run_id), True
    tracker = Tracker(store, identity)
    status = "FAILED"
    try:
        tracker.set_tags(tags or {})
        tracker.log_params(params or {})
        with _machine(identity):
            yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        tracker.flush()
        if ours:
            with contextlib.suppress(Exception):  # must not hide what went wrong
                store.set_terminated(identity, status=status)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _exists(store: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(store.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


@contextlib.contextmanager
def _machine(run_id: str) -> Iterator[None]:
    """CPU, memory, disk, network and GPU use, every ten seconds and at least once."""
    from mlflow.system_metrics import system_metrics_monitor as module

    module._logger.setLevel(logging.WARNING)  # it announces itself otherwise
    monitor: Any = cast(Any, module).SystemMetricsMonitor(
        run_id, resume_logging=True, tracking_uri=tracking_uri()
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
        with contextlib.suppress(Exception):  # a run shorter than the interval still gets its sample
            monitor.collect_metrics()
            monitor.publish_metrics(monitor.aggregate_metrics())
            monitor.mlflow_logger.flush()
