"""A KServe InferenceService on a cluster: a promotion patches which bundle it loads, and waits until it has.

Nothing is uploaded: the cluster reads the bundle from where MLflow keeps it, so that must be a place that it
can reach (``s3://``, ``gs://``, or a volume, ``pvc://``). There is no ``mlflow://`` storage in KServe.

Settings, by environment:

- ``RETIDERM_CLUSTER_NAMESPACE``: the namespace; promotions go to the cluster only where it is set.
- ``RETIDERM_ARTIFACT_ROOT``: where an MLflow server that proxies artifacts keeps them (``s3://bucket/prefix``).
- ``RETIDERM_ARTIFACT_PVC``: ``claim=/mount/path`` of a volume that holds a local artifact store.
- ``RETIDERM_CLUSTER_TIMEOUT``: seconds to wait for readiness, 600 when not set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from data.errors import RegistryError

if TYPE_CHECKING:
    from training.registry.client import Registry
    from training.registry.version import Version

GROUP, API_VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
VERSION_ANNOTATION = "retiderm.io/version"
DIGEST_ANNOTATION = "retiderm.io/digest"
MODE_ANNOTATION = "retiderm.io/mode"
SHARE_ANNOTATION = "retiderm.io/share"
#: KServe's own: a service that has it keeps its definition and has no pods.
STOP_ANNOTATION = "serving.kserve.io/stop"

_NOTHING: Mapping[str, Any] = {"uri": None, "version": None, "digest": None}

_READABLE = ("s3", "gs", "pvc")
# A controller that doesn't say which generation it has seen gets this long to notice the patch.
_SETTLE_S = 10.0


class ClusterTarget:
    """The InferenceServices of one namespace. A task's service is its name with ``-`` for ``_``.

    A challenger has a service of its own beside it, stopped while there is none.
    """

    name = "cluster"

    def __init__(
        self,
        registry: Registry,
        namespace: str,
        *,
        context: str | None = None,
        timeout: float | None = None,
        poll: float = 2.0,
        api: Any = None,
    ) -> None:
        """``api`` is a ``kubernetes.client.ApiClient``; without one the pod's account or the kubeconfig."""
        self._registry = registry
        self._namespace = namespace
        self._context = context
        self._timeout = timeout or float(os.environ.get("RETIDERM_CLUSTER_TIMEOUT", "600"))
        self._poll = poll
        self._api = api

    @classmethod
    def from_spec(cls, registry: Registry, spec: Mapping[str, Any]) -> ClusterTarget:
        """From the ledger."""
        return cls(registry, str(spec["namespace"]), context=spec.get("context"))

    def spec(self) -> dict[str, Any]:
        """For the ledger."""
        return {"kind": "cluster", "namespace": self._namespace, "context": self._context}

    def current(self, task: str) -> dict[str, Any] | None:
        """What the service is told to load: its URI and our two annotations."""
        service = self._get(service_name(task))
        uri = _uri(service)
        if not uri:
            return None
        notes = service.get("metadata", {}).get("annotations") or {}
        return {
            "uri": uri,
            "version": notes.get(VERSION_ANNOTATION),
            "digest": notes.get(DIGEST_ANNOTATION),
        }

    def serves(self, version: Version) -> bool:
        """Whether the service is told to load the version and says that it has."""
        service = self._get(service_name(version.task))
        return self.current(version.task) == self._state(version) and _waiting_for(service, True) is None

    def prepare(self, version: Version) -> None:
        """Check, before anything changes, that the cluster can read the bundle and the service is there."""
        self._prepare(version, service_name(version.task), "manifests/base/serving")

    def apply(self, version: Version) -> None:
        """Patch the service and wait until it serves the version.

        Raises:
            RegistryError: the cluster can't be reached, refused, or the model did not become ready in time.
        """
        if self.current(version.task) != self._state(version):
            self._patch(service_name(version.task), _patch_of(self._state(version)))
        self._wait(service_name(version.task))

    def restore(self, task: str, state: Mapping[str, Any] | None) -> None:
        """Patch back; doesn't wait, since what served before is being loaded where it was stopped at all."""
        if self.current(task) != (dict(state) if state else None):
            self._patch(service_name(task), _patch_of(state or _NOTHING))

    def tidy(self, task: str, keep: Sequence[Version]) -> None:
        """Nothing: the bundles are MLflow's."""

    def challenger(self, task: str) -> dict[str, Any] | None:
        """What the challenger's service is told to load; None where it is stopped, or there is none."""
        try:
            service = self._get(challenger_service(task))
        except _NoService:
            return None
        notes = service.get("metadata", {}).get("annotations") or {}
        if not _uri(service) or notes.get(STOP_ANNOTATION) == "true":
            return None
        return {
            "uri": _uri(service),
            "version": notes.get(VERSION_ANNOTATION),
            "digest": notes.get(DIGEST_ANNOTATION),
            "mode": notes.get(MODE_ANNOTATION),
            "share": notes.get(SHARE_ANNOTATION),
        }

    def challenges(self, version: Version, mode: str, share: float) -> bool:
        """Whether the challenger's service is told to load the version in this mode and says that it has."""
        if self.challenger(version.task) != self._challenging(version, mode, share):
            return False
        return _waiting_for(self._get(challenger_service(version.task)), True) is None

    def prepare_challenger(self, version: Version) -> None:
        """Check that the cluster can read the bundle and that there is a service for challengers."""
        self._prepare(version, challenger_service(version.task), "manifests/components/challenger")

    def challenge(self, version: Version, mode: str, share: float) -> None:
        """Wake the challenger's service with the version and wait until it serves it.

        Raises:
            RegistryError: as for :meth:`apply`.
        """
        name, state = challenger_service(version.task), self._challenging(version, mode, share)
        if self.challenger(version.task) != state:
            self._patch(name, _patch_of(state))
        self._wait(name)

    def withdraw(self, task: str) -> None:
        """Let the challenger's service stop: KServe takes its pods away and keeps its definition."""
        if self.challenger(task) is not None:
            self._patch(challenger_service(task), _patch_of({**_NOTHING, "mode": None, "share": None}))

    def _prepare(self, version: Version, name: str, where: str) -> None:
        storage_uri(self._registry, version)
        service = self._get(name, where)
        if "model" not in service.get("spec", {}).get("predictor", {}):
            raise RegistryError(
                f"The InferenceService {name} has no spec.predictor.model to patch.",
                hint=f"Use the one under {where}.",
            )

    def _challenging(self, version: Version, mode: str, share: float) -> dict[str, Any]:
        # An annotation is a text.
        return {**self._state(version), "mode": mode, "share": f"{share:g}"}

    def _state(self, version: Version) -> dict[str, Any]:
        uri = storage_uri(self._registry, version)
        return {"uri": uri, "version": version.version, "digest": version.digest}

    def _objects(self) -> Any:
        from kubernetes import client, config

        if self._api is None:
            try:
                config.load_incluster_config()
            except config.ConfigException:
                try:
                    config.load_kube_config(context=self._context)
                except config.ConfigException as error:
                    raise RegistryError(
                        f"There is no cluster to promote to: {error}",
                        hint="Set KUBECONFIG, or leave "
                        "RETIDERM_CLUSTER_NAMESPACE unset to promote on this machine only.",
                    ) from None
            self._api = client.ApiClient()
        return client.CustomObjectsApi(self._api)

    def _get(self, name: str, where: str = "manifests/base/serving") -> dict[str, Any]:
        return self._call(name, "get_namespaced_custom_object", where=where)

    def _patch(self, name: str, body: Mapping[str, Any]) -> None:
        self._call(name, "patch_namespaced_custom_object", dict(body))

    def _call(
        self, name: str, method: str, *body: Any, where: str = "manifests/base/serving"
    ) -> dict[str, Any]:
        import urllib3
        from kubernetes.client import ApiException

        try:
            found: dict[str, Any] = getattr(self._objects(), method)(
                GROUP, API_VERSION, self._namespace, PLURAL, name, *body, _request_timeout=30
            )
        except ApiException as error:
            hints = {
                404: f"Apply {where} first, or check the namespace {self._namespace}.",
                401: "Log in to the cluster again.",
                403: "Its account needs `get` and `patch` on this service: see manifests/base/access.",
            }
            kind = _NoService if error.status == 404 else RegistryError
            raise kind(
                f"The cluster refused ({error.status} {error.reason}) on InferenceService {name}.",
                hint=hints.get(error.status),
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise RegistryError(
                f"The cluster can't be reached for InferenceService {name}: {error}",
                hint="Check the kubeconfig's context and the network.",
            ) from error
        return found

    def _wait(self, name: str) -> None:
        started = time.monotonic()
        reason: str | None = "it has not been looked at"
        while time.monotonic() - started < self._timeout:
            settled = time.monotonic() - started >= min(_SETTLE_S, self._timeout / 2)
            service = self._get(name)
            failure = _failure(service)
            if failure:
                raise RegistryError(
                    f"The cluster could not load the model of {name}: {failure}",
                    hint=f"kubectl -n {self._namespace} describe inferenceservice {name}",
                )
            reason = _waiting_for(service, settled)
            if reason is None:
                return
            time.sleep(self._poll)
        raise RegistryError(
            f"{name} was not ready within {self._timeout:g} s: {reason}.",
            hint=f"kubectl -n {self._namespace} describe inferenceservice {name}",
        )


class _NoService(RegistryError):
    """There is no InferenceService of that name."""


def service_name(task: str) -> str:
    """The InferenceService of a task: Kubernetes names know no underscore."""
    return task.replace("_", "-").lower()


def challenger_service(task: str) -> str:
    """The InferenceService of a task's challenger."""
    return f"{service_name(task)}-challenger"


def storage_uri(registry: Registry, version: Version) -> str:
    """Where a cluster can read a version's bundle.

    Raises:
        RegistryError: nowhere; says what to set.
    """
    where = registry.artifact_uri(version)
    parsed = urlparse(where)
    if parsed.scheme in _READABLE:
        return where
    root = os.environ.get("RETIDERM_ARTIFACT_ROOT", "").rstrip("/")
    if parsed.scheme == "mlflow-artifacts" and root:
        if urlparse(root).scheme not in _READABLE:
            raise RegistryError(
                f"RETIDERM_ARTIFACT_ROOT is {root!r}; a cluster reads s3://, gs:// or pvc://."
            )
        return f"{root}/{parsed.path.lstrip('/')}"
    claim, _, mount = os.environ.get("RETIDERM_ARTIFACT_PVC", "").partition("=")
    if parsed.scheme in ("", "file") and claim and mount:
        path = PurePosixPath(unquote(parsed.path))
        if path.is_relative_to(mount):
            return f"pvc://{claim}/{path.relative_to(mount)}"
    hint = (
        "Set RETIDERM_ARTIFACT_ROOT to the bucket behind the MLflow server."
        if parsed.scheme == "mlflow-artifacts"
        else "Keep MLflow's artifacts in s3:// or gs://, or set RETIDERM_ARTIFACT_PVC=claim=/mount/path."
    )
    raise RegistryError(
        f"A cluster can't read {version.task} version {version.version} from {where}.", hint=hint
    )


def _uri(service: Mapping[str, Any]) -> str | None:
    found: str | None = service.get("spec", {}).get("predictor", {}).get("model", {}).get("storageUri")
    return found


def _patch_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a service load a state's bundle, or none. A challenger's (with a mode) wakes or stops."""
    notes: dict[str, Any] = {VERSION_ANNOTATION: state["version"], DIGEST_ANNOTATION: state["digest"]}
    if "mode" in state:
        notes |= {
            MODE_ANNOTATION: state["mode"],
            SHARE_ANNOTATION: state["share"],
            STOP_ANNOTATION: "true" if state["uri"] is None else "false",
        }
    return {
        "metadata": {"annotations": notes},
        "spec": {"predictor": {"model": {"storageUri": state["uri"]}}},
    }


def _failure(service: Mapping[str, Any]) -> str | None:
    status = service.get("status", {})
    model = status.get("modelStatus", {})
    if _seen(service) is False or model.get("transitionStatus") not in ("BlockedByFailedLoad", "InvalidSpec"):
        return None
    info = model.get("lastFailureInfo", {})
    return f"{info.get('reason', model['transitionStatus'])}: {info.get('message', 'no message')}"


def _waiting_for(service: Mapping[str, Any], settled: bool) -> str | None:
    """Why the service is not ready with what it was last told, or None when it is."""
    status = service.get("status", {})
    seen = _seen(service)
    if seen is False or (seen is None and not settled):
        return "the controller has not seen the change"
    transition = status.get("modelStatus", {}).get("transitionStatus", "UpToDate")
    if transition not in ("", "UpToDate"):
        return f"the model is {transition}"
    for condition in status.get("conditions", ()):
        if condition.get("type") == "Ready":
            if condition.get("status") == "True":
                return None
            return str(condition.get("message") or condition.get("reason") or "not ready")
    return "it has no Ready condition yet"


def _seen(service: Mapping[str, Any]) -> bool | None:
    """Whether the controller has seen the latest change; None where it doesn't say."""
    observed = service.get("status", {}).get("observedGeneration")
    if observed is None:
        return None
    return bool(observed >= service.get("metadata", {}).get("generation", 0))
