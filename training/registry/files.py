"""The files of versions: read from MLflow's store, each verified against what was registered."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from data.errors import IntegrityError
from data.files import sha256_file
from data.paths import home
from serving.core.bundle import Bundle

from .connection import Connection
from .layout import BUNDLE, PREDICTIONS, place_of
from .store import copy_bundle, mlflow_errors
from .version import Version


class Files(Connection):
    """What versions are made of. Where MLflow's store is this machine's, bundles are read in place."""

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

    def artifact_uri(self, version: Version) -> str:
        """Where MLflow keeps a version's bundle: a path, ``s3://``, ``gs://``, ``mlflow-artifacts:/`` …"""
        with mlflow_errors(f"finding the files of {version.task} version {version.version}"):
            run = self.client.get_run(version.run_id)
        return f"{str(run.info.artifact_uri).rstrip('/')}/{place_of(version.digest, BUNDLE)}"

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
                fetched = self._fetch(version.run_id, place_of(version.digest, PREDICTIONS), temporary)
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
            return self._fetch(version.run_id, path, folder)

    def _fetch(self, run: str, path: str, folder: str | Path) -> Path:
        return Path(self.client.download_artifacts(run, path, str(folder)))

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
        with (
            mlflow_errors(f"downloading {version.task} version {version.version}"),
            tempfile.TemporaryDirectory() as temporary,
        ):
            fetched = self._fetch(version.run_id, place_of(version.digest, BUNDLE), temporary)
            copy_bundle(_same(Bundle.open(fetched), version), place)
        return Bundle.open(place, verify=False)


def _same(bundle: Bundle, version: Version) -> Bundle:
    if bundle.digest != version.digest:
        raise IntegrityError(
            f"The stored bundle of {version.task} version {version.version} is {bundle.digest[:19]}…, "
            f"the version was registered as {version.digest[:19]}….",
            hint="Someone replaced its files: restore them from a backup, or register the bundle anew.",
        )
    return bundle
