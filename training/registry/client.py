"""The registry: bundles as MLflow model versions, by task. The only file that talks to MLflow's registry.

A version is a folder of its run's artifacts, ``versions/<digest[:12]>/``: ``bundle/`` (what serves),
``predictions/test.npz`` (what it said about the test images: the gate compares with it later),
``evaluation.json``, ``gate.json`` and pictures under ``report/``. The digest in the path keeps a run's second
bundle from overwriting its first. Works on SQLite and through a server; every read of a bundle verifies its
digest against the version's tag.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from data.errors import IntegrityError, ParityError, RegistryError
from data.files import sha256_file
from data.paths import home
from serving.core.bundle import Bundle
from serving.core.pointer import check_name

from .page import task_page, version_page
from .proofs import unproved
from .store import copy_bundle, log_file, log_json, mlflow_errors, pages
from .version import CHAMPION, Version, tags_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from .gate import GateDecision

BUNDLE = "bundle"
PREDICTIONS = "predictions/test.npz"
EVALUATION = "evaluation.json"
HEAD_TAG = "ledger.head"
OURS_TAG = "retiderm"

__all__ = ["CHAMPION", "Registry", "Version"]


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


class Registry:
    """Versions, aliases and their files. ``uri`` is MLflow's; without it the project's tracking store."""

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

    # writing

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
        known = self._by_digest(task, bundle.digest)
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
            place = _place(bundle.digest)
            self.client.log_artifacts(run, str(bundle.root), f"{place}/{BUNDLE}")
            every = tags_of(bundle) | dict(tags or {})
            if predictions is not None:
                every["predictions_sha256"] = sha256_file(predictions)
                log_file(self.client, run, predictions, f"{place}/{PREDICTIONS}")
            if evaluation is not None:
                log_json(self.client, run, evaluation, f"{place}/{EVALUATION}")
            for path in files:
                self.client.log_artifact(run, str(path), f"{place}/report")
            self._read_back(run, bundle, every.get("predictions_sha256"))
            self._ensure_task(bundle)
            made = self.client.create_model_version(
                task,
                f"runs:/{run}/{place}/{BUNDLE}",
                run,
                tags=every,
                description=version_page(bundle.card, bundle.digest),
            )
            if run_id is None:
                self.client.set_terminated(run)
        return self.get(task, str(made.version))

    def set_alias(self, task: str, alias: str, version: str | None) -> None:
        """Let an alias name a version, or none. The same again changes nothing."""
        with mlflow_errors(f"setting {alias} of {task}"):
            now = self._model(task).aliases.get(alias)
            if version is None and now is not None:
                self.client.delete_registered_model_alias(task, alias)
            elif version is not None and str(now) != version:
                self.client.set_registered_model_alias(task, alias, version)

    def set_tag(self, version: Version, key: str, value: str) -> Version:
        """Tag a version; gives it as it is now."""
        with mlflow_errors(f"tagging {version.task} version {version.version}"):
            self.client.set_model_version_tag(version.task, version.version, key, value)
        return self.get(version.task, version.version)

    def record_decision(self, version: Version, decision: GateDecision) -> Version:
        """Keep a gate's decision with its version: whole in the run, its word in tags and page."""
        bundle = self.bundle(version)
        with mlflow_errors(f"recording the gate's decision on {version.task} version {version.version}"):
            log_json(self.client, version.run_id, decision.to_dict(), f"{_place(version.digest)}/gate.json")
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

    # reading

    def tasks(self) -> list[str]:
        """Every task with a version, sorted. Another project's models in the same MLflow are left out."""
        with mlflow_errors("listing the tasks"):
            models = pages(self.client.search_registered_models)
            return sorted(model.name for model in models if OURS_TAG in model.tags)

    def versions(self, task: str) -> list[Version]:
        """Every version of a task, newest first; none for an unknown task. Another project's are left out."""
        check_name(task, "task")
        with mlflow_errors(f"listing the versions of {task}"):
            aliases = self._aliases(task)
            found = pages(self.client.search_model_versions, filter_string=f"name = '{task}'")
            versions = [Version.of(item, aliases) for item in found if "digest" in item.tags]
        return sorted(versions, key=lambda v: int(v.version), reverse=True)

    def get(self, task: str, ref: str) -> Version:
        """A version by number, alias (``champion``, ``@champion``) or bundle digest (at least 8 hex digits).

        Raises:
            RegistryError: there is none; says what there is.
        """
        name = ref.removeprefix("@")
        versions = self.versions(task)
        wanted = name.removeprefix("sha256:")
        for version in versions:
            if name == version.version or name in version.aliases:
                return version
        for version in versions:
            if len(wanted) >= 8 and version.digest.removeprefix("sha256:").startswith(wanted):
                return version
        if not versions:
            tasks = ", ".join(self.tasks())
            raise RegistryError(
                f"The registry has no model of {task!r}.",
                hint=f"It has: {tasks}." if tasks else f"Train one: retiderm run {task} --data SOURCE.",
            )
        have = ", ".join(v.version + "".join(f" ({a})" for a in v.aliases) for v in versions[:10])
        raise RegistryError(f"{task} has no version {ref!r}.", hint=f"It has: {have}.")

    def champion(self, task: str) -> Version | None:
        """The version that the alias ``champion`` names, or None."""
        return self.by_alias(task, CHAMPION)

    def by_alias(self, task: str, alias: str) -> Version | None:
        """The version that an alias names, or None."""
        return next((v for v in self.versions(task) if alias in v.aliases), None)

    def bundle(self, version: Version) -> Bundle:
        """The verified bundle of a version. Where MLflow's store is this machine's, nothing is copied.

        Raises:
            IntegrityError: it is damaged or is not the bundle that was registered.
        """
        found = self._local(version)
        if found is None:
            return self._cached(version)
        return _same(Bundle.open(found), version)

    def bundle_path(self, version: Version) -> Path:
        """Where the verified bundle of a version lies on this machine."""
        return self.bundle(version).root

    def page(self, version: Version) -> str:
        """The Markdown that MLflow shows for a version."""
        with mlflow_errors(f"reading the page of {version.task} version {version.version}"):
            found = self.client.get_model_version(version.task, version.version)
        return str(found.description or "")

    def artifact_uri(self, version: Version) -> str:
        """Where MLflow keeps a version's bundle: a path, ``s3://``, ``gs://``, ``mlflow-artifacts:/`` …"""
        with mlflow_errors(f"finding the files of {version.task} version {version.version}"):
            run = self.client.get_run(version.run_id)
        return f"{str(run.info.artifact_uri).rstrip('/')}/{_place(version.digest)}/{BUNDLE}"

    def predictions(self, version: Version) -> Path | None:
        """What a version said about its test images, verified; None where that was not kept.

        Raises:
            IntegrityError: the file is not the one that was registered.
        """
        expected = version.tags.get("predictions_sha256")
        if not expected:
            return None
        folder = home().root / "cache" / "predictions"
        path = folder / f"{expected}.npz"
        if not path.is_file() or sha256_file(path) != expected:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{version.task} version {version.version}"
            with (
                mlflow_errors(f"reading the predictions of {name}"),
                tempfile.TemporaryDirectory(dir=folder) as temporary,
            ):
                source = f"{_place(version.digest)}/{PREDICTIONS}"
                fetched = Path(self.client.download_artifacts(version.run_id, source, temporary))
                if sha256_file(fetched) != expected:
                    raise IntegrityError(
                        f"The stored predictions of {name} were altered.",
                        hint="Give the gate the data set: it then asks the bundle again.",
                    )
                fetched.replace(path)
        return path

    def download(self, version: Version, path: str, folder: Path) -> Path | None:
        """A file that a version's run keeps beside the version's own, in ``folder``; None where it hasn't."""
        with mlflow_errors(f"reading {path} of {version.task} version {version.version}"):
            parent = path.rpartition("/")[0]
            kept = {item.path for item in self.client.list_artifacts(version.run_id, parent or None)}
            if path not in kept:
                return None
            return Path(self.client.download_artifacts(version.run_id, path, str(folder)))

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

    # the ledger's head, kept here as well

    def ledger_heads(self) -> dict[str, str]:
        """The ledger's heads that promotions left here, by task."""
        with mlflow_errors("reading the ledger's heads"):
            models = pages(self.client.search_registered_models)
            return {model.name: model.tags[HEAD_TAG] for model in models if HEAD_TAG in model.tags}

    def keep_ledger_head(self, task: str, head: str) -> None:
        """Keep the ledger's head with a task."""
        with mlflow_errors("keeping the ledger's head"):
            self.client.set_registered_model_tag(task, HEAD_TAG, head)

    # parts

    def _model(self, task: str) -> Any:
        return self.client.get_registered_model(task)

    def _aliases(self, task: str) -> dict[str, str]:
        found = self.client.search_registered_models(filter_string=f"name = '{task}'", max_results=1)
        return {alias: str(version) for alias, version in found[0].aliases.items()} if found else {}

    def _by_digest(self, task: str, digest: str) -> Version | None:
        return next((v for v in self.versions(task) if v.digest == digest), None)

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
        place = _place(bundle.digest)
        with tempfile.TemporaryDirectory() as temporary:
            fetched = Bundle.open(Path(self.client.download_artifacts(run, f"{place}/{BUNDLE}", temporary)))
            same = fetched.digest == bundle.digest
            if predictions is not None:
                path = Path(self.client.download_artifacts(run, f"{place}/{PREDICTIONS}", temporary))
                same = same and sha256_file(path) == predictions
        if not same:
            raise IntegrityError(
                f"MLflow's store gave back other files than were sent for {bundle.card.task}.",
                hint="Check the artifact store's disk or bucket, then register again.",
            )

    def _local(self, version: Version) -> Path | None:
        uri = urlparse(self.artifact_uri(version))
        if uri.scheme not in ("", "file"):
            return None
        path = Path(unquote(uri.path))
        return path if path.is_dir() else None

    def _cached(self, version: Version) -> Bundle:
        """A verified copy under the home; one that was damaged there is fetched again."""
        place = home().root / "cache" / "bundles" / version.digest.removeprefix("sha256:")
        if place.is_dir():
            try:
                return _same(Bundle.open(place), version)
            except IntegrityError:
                shutil.rmtree(place)
        self._download(version, place)
        return Bundle.open(place, verify=False)

    def _download(self, version: Version, destination: Path) -> None:
        with (
            mlflow_errors(f"downloading {version.task} version {version.version}"),
            tempfile.TemporaryDirectory() as temporary,
        ):
            place = f"{_place(version.digest)}/{BUNDLE}"
            fetched = Path(self.client.download_artifacts(version.run_id, place, temporary))
            _same(Bundle.open(fetched), version)
            copy_bundle(Bundle.open(fetched, verify=False), destination)


def _same(bundle: Bundle, version: Version) -> Bundle:
    if bundle.digest != version.digest:
        raise IntegrityError(
            f"The stored bundle of {version.task} version {version.version} is {bundle.digest[:19]}…, "
            f"the version was registered as {version.digest[:19]}….",
            hint="Someone replaced its files: restore them from a backup, or register the bundle anew.",
        )
    return bundle


def _place(digest: str) -> str:
    return f"versions/{digest.removeprefix('sha256:')[:12]}"
