"""The registry: bundles as MLflow model versions, by task.

Works on SQLite and through a server. Only this file and its three parts talk to MLflow's registry: the
connection, the catalogue of versions, and their files, of which every read of a bundle verifies its digest
against the version's tag. What is written here comes last and whole, so that a crash leaves no version.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import IntegrityError, ParityError
from data.files import sha256_file
from data.paths import home
from serving.core.bundle import Bundle

from .catalogue import OURS_TAG, Catalogue
from .files import Files
from .layout import BUNDLE, EVALUATION, GATE, PREDICTIONS, REPORT, place_of
from .page import task_page, version_page
from .proofs import unproved
from .store import log_file, log_json, mlflow_errors
from .version import Version, tags_of

if TYPE_CHECKING:
    from .gate import GateDecision


class Registry(Catalogue, Files):
    """Versions, aliases and their files. ``uri`` is MLflow's; without it the project's tracking store."""

    def register(
        self,
        bundle: Bundle,
        run_id: str | None = None,
        predictions: Path | None = None,
        *,
        evaluation: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Make a version of a bundle; the same bundle again gives the version that it already is.

        Args:
            bundle: what will serve.
            run_id: the MLflow run that made it; without one a run is opened in the task's experiment.
            predictions: what it said about the test images, as ``training.predict`` saves them.
            evaluation: the evaluation's document, kept as ``evaluation.json``.
            files: pictures and reports to keep beside it.
            tags: more tags.

        The version appears last, after its files were read back and compared: a crash leaves no version.

        Raises:
            ParityError: the bundle lacks a proof that what serves is what was trained.
            IntegrityError: what came back from the store is not what was sent.
            RegistryError: MLflow refused.
        """
        task = bundle.card.task
        known = self.by_digest(task, bundle.digest)
        if known is not None:
            return known
        missing = unproved(bundle.card)
        if missing:
            raise ParityError(
                f"The bundle of {task} can't be registered: {' '.join(missing)}",
                hint="Export it again with all its proofs.",
            )
        bundle.verify()
        with mlflow_errors(f"registering a version of {task}"):
            run = run_id or self._new_run(task)
            place = place_of(bundle.digest, BUNDLE)
            self.client.log_artifacts(run, str(bundle.root), place)
            every = tags_of(bundle) | dict(tags or {})
            if predictions is not None:
                every["predictions_sha256"] = sha256_file(predictions)
                log_file(self.client, run, predictions, place_of(bundle.digest, PREDICTIONS))
            if evaluation is not None:
                log_json(self.client, run, evaluation, place_of(bundle.digest, EVALUATION))
            for path in files:
                self.client.log_artifact(run, str(path), place_of(bundle.digest, REPORT))
            self._read_back(run, bundle, every.get("predictions_sha256"))
            self._ensure_task(bundle)
            made = self.client.create_model_version(
                task,
                f"runs:/{run}/{place}",
                run,
                tags=every,
                description=version_page(bundle.card, bundle.digest),
            )
            if run_id is None:
                self.client.set_terminated(run)
        return self.get(task, str(made.version))

    def record_decision(self, version: Version, decision: GateDecision) -> Version:
        """Keep a gate's decision with its version: whole in the run, its word in tags and page."""
        bundle = self.bundle(version)
        with mlflow_errors(f"recording the gate's decision on {version.task} version {version.version}"):
            log_json(self.client, version.run_id, decision.to_dict(), place_of(version.digest, GATE))
            for key, value in (
                ("gate.reasons", " ".join(decision.reasons)[:4000]),
                ("gate.pending_approval", "true" if decision.pending_approval else "false"),
                ("gate.champion", decision.champion or ""),
                ("gate.decision", decision.decision),
            ):
                self.client.set_model_version_tag(version.task, version.version, key, value)
            self.client.update_model_version(
                version.task, version.version, version_page(bundle.card, bundle.digest, decision)
            )
        return self.get(version.task, version.version)

    def has_run(self, run_id: str) -> bool:
        """Whether MLflow has a run and it is not deleted."""
        from mlflow.exceptions import MlflowException

        if not run_id:
            return False
        with mlflow_errors("looking for a run"):
            try:
                run = self.client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return False
        return str(run.info.lifecycle_stage) == "active"

    def _new_run(self, task: str) -> str:
        experiment = self.client.get_experiment_by_name(task)
        if experiment is not None:
            identity = experiment.experiment_id
        else:
            # A server has an artifact root of its own; a database has none, and MLflow would take ./mlruns.
            server = str(self.client.tracking_uri).startswith("http")
            place = None if server else str(home().mlflow / "artifacts" / task)
            identity = self.client.create_experiment(task, artifact_location=place)
        return str(self.client.create_run(identity, run_name=f"register {task}").info.run_id)

    def _ensure_task(self, bundle: Bundle) -> None:
        from mlflow.exceptions import MlflowException

        task = bundle.card.task
        try:
            self.client.create_registered_model(
                task, tags={OURS_TAG: bundle.card.kind}, description=task_page(bundle.card)
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            self.client.set_registered_model_tag(task, OURS_TAG, bundle.card.kind)

    def _read_back(self, run: str, bundle: Bundle, predictions: str | None) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            fetched = Bundle.open(self._fetch(run, place_of(bundle.digest, BUNDLE), temporary))
            same = fetched.digest == bundle.digest
            if predictions is not None:
                path = self._fetch(run, place_of(bundle.digest, PREDICTIONS), temporary)
                same = same and sha256_file(path) == predictions
        if not same:
            raise IntegrityError(
                f"MLflow's store gave back other files than were sent for {bundle.card.task}.",
                hint="Check the artifact store's disk or bucket, then register again.",
            )
