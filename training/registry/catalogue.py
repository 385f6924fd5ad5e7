"""Which versions there are, under which aliases and tags."""

from __future__ import annotations

from data.errors import RegistryError
from serving.core.pointer import check_name

from .connection import Connection
from .store import mlflow_errors, pages
from .version import CHAMPION, Version

HEAD_TAG = "ledger.head"
OURS_TAG = "retiderm"


class Catalogue(Connection):
    """The tasks and their versions, without their files."""

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

    def by_digest(self, task: str, digest: str) -> Version | None:
        """The version that a bundle is, by its whole digest, or None."""
        return next((v for v in self.versions(task) if v.digest == digest), None)

    def page(self, version: Version) -> str:
        """The Markdown that MLflow shows for a version."""
        with mlflow_errors(f"reading the page of {version.task} version {version.version}"):
            found = self.client.get_model_version(version.task, version.version)
        return str(found.description or "")

    def set_alias(self, task: str, alias: str, version: str | None) -> None:
        """Let an alias name a version, or none. The same again changes nothing."""
        with mlflow_errors(f"setting {alias} of {task}"):
            now = self.client.get_registered_model(task).aliases.get(alias)
            if version is None and now is not None:
                self.client.delete_registered_model_alias(task, alias)
            elif version is not None and str(now) != version:
                self.client.set_registered_model_alias(task, alias, version)

    def set_tag(self, version: Version, key: str, value: str) -> Version:
        """Tag a version; gives it as it is now."""
        with mlflow_errors(f"tagging {version.task} version {version.version}"):
            self.client.set_model_version_tag(version.task, version.version, key, value)
        return self.get(version.task, version.version)

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

    def _aliases(self, task: str) -> dict[str, str]:
        found = self.client.search_registered_models(filter_string=f"name = '{task}'", max_results=1)
        return {alias: str(version) for alias, version in found[0].aliases.items()} if found else {}
