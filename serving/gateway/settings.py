"""What the gateway is told by its environment: the old services' names first, then our own.

| name | from | |
|---|---|---|
| ``BACKSERVER_HOST``, ``BACKSERVER_PORT`` | S0 | where to listen |
| ``API_KEY`` | S0 | one key, of the tenant ``GATEWAY_TENANT``; empty for none |
| ``STORAGE_DIR`` | S0 | images: a folder, ``s3://bucket/prefix`` or ``gs://bucket/prefix`` |
| ``ALLOWED_ORIGINS`` | S0 | CORS: origins with commas between |
| ``BLUR_THRESHOLD``, ``CONF_THRESHOLD`` | S0 | below them: ``fail``, ``uncertain`` |
| ``MODEL_PATH`` | S0, S2 | a bundle's folder to serve, where nothing is promoted |
| ``CHECK_IMAGE_TASKS`` | S0 | the models behind ``/check-image``, with commas between |
| ``DATABASE_URL`` | S2 | ``sqlite:///PATH`` or ``postgresql://…`` |
| ``S3_BUCKET_NAME`` | S2 | images in that bucket, where ``STORAGE_DIR`` isn't set |
| ``RETIDERM_PROFILE_MOCK`` | S1 | ``1``: answer without a model, and say so; for developing a client |
| ``AWS_REGION`` | S2 | and boto3's own: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, profiles, roles |

Ours begin with ``GATEWAY_``: the rest of :class:`Settings`, by its fields' names. Cloud Storage's HMAC key is
``GCS_ACCESS_KEY_ID`` and ``GCS_SECRET_ACCESS_KEY``.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from data.errors import UsageError
from data.paths import home
from serving.gateway.blobs import BlobStore, open_blobs
from serving.gateway.store.engine import Store, open_store

_TASK = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Settings:
    """The gateway's settings. Seconds, bytes, pixels, days, counts.

    - ``database``, ``storage``: None takes ``RETIDERM_HOME/gateway``.
    - ``models_url``: the transformer's REST, over which models are asked; with ``{task}`` in it each model
      has an address of its own, and ``model_tasks`` says which there are. ``anomaly_url``: S4's service.
    - ``signing_keys``: hex; the first signs addresses of images in a folder, the others are still good.
    - ``public_url``: the gateway's address as clients see it.
    - ``open_access``: the systems (``s0``, …) that may be asked without a token, and only on loopback unless
      ``open_access_anywhere``.
    - ``analyze_folder``: S1's ``/analyze/file`` is on, and reads images in this folder; for development.
    - ``scan_wait_s``: how long a face scan waits for a model that is away before it fails.
    - ``job_lease_s``: a job whose process gave no sign for so long is begun again by another.
    - ``queue_unusual``, ``queue_audit``, ``queue_near``, ``queue_readers``: when an image enters the queue
      for readers, and how many each needs; see ``loop/policy.py``.
    - ``serving_root``: where promoted bundles lie, whose references drift is judged against; None takes
      ``RETIDERM_HOME/serving``. ``drift_minutes``: how often; 0 for never.
    - ``registry_command``: how the ``retiderm`` command is run, for the page of models; ``-`` for none.
    - ``max_held_bytes``: what bodies, and images that are fetched for an answer, may come to at once; never
      less than one of them. In memory each takes about twice its size for a while.
    - ``metrics_port``: ``/metrics`` has a port of its own on the same host. None: where only this machine
      reaches the gateway it is on the gateway's, elsewhere nowhere.
    - ``retention_days``: images, cases and scans older than that are erased; None keeps them.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    tenant: str = "default"
    database: str | None = field(default=None, repr=False)
    storage: str | None = None
    s3_endpoint: str | None = None
    s3_public_endpoint: str | None = None
    s3_encryption: str | None = None
    aws_region: str | None = None
    gcs_access_key: str | None = field(default=None, repr=False)
    gcs_secret_key: str | None = field(default=None, repr=False)
    signing_keys: tuple[bytes, ...] = field(default=(), repr=False)
    public_url: str = ""
    url_expires_s: int = 3600
    allowed_origins: tuple[str, ...] = ()
    blur_threshold: float = 100.0
    conf_threshold: float = 0.5
    check_image_tasks: tuple[str, ...] = ("skin_lesion", "acne")
    model_path: Path | None = None
    models_url: str = "http://127.0.0.1:8080"
    model_tasks: tuple[str, ...] = ("acne", "dr_grading", "skin_condition", "skin_lesion", "skin_profile")
    anomaly_url: str | None = None
    systems: tuple[str, ...] = ("s0", "s1", "s2", "s3", "s4", "v1", "review")
    open_access: tuple[str, ...] = ()
    open_access_anywhere: bool = False
    queue_unusual: float = 0.99
    queue_audit: float = 0.02
    queue_readers: int = 1
    queue_near: float = 0.1
    serving_root: Path | None = None
    drift_minutes: float = 10.0
    registry_command: tuple[str, ...] = (sys.executable, "-m", "pipelines.cli")
    retention_days: int | None = None
    idempotency_hours: int = 24
    max_body_bytes: int = 25 * 2**20
    max_held_bytes: int = 256 * 2**20
    metrics_port: int | None = None
    max_image_bytes: int = 20 * 2**20
    max_image_pixels: int = 50_000_000
    requests_per_minute: int = 600
    request_s: float = 60.0
    model_s: float = 30.0
    profile_mock: bool = False
    analyze_folder: Path | None = None
    scan_wait_s: float = 120.0
    job_lease_s: float = 15.0
    database_pool: int = 20
    threads: int = 40
    debug: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"The port {self.port} is not from 0 to 65535.")
        if self.metrics_port is not None and not 0 <= self.metrics_port <= 65535:
            raise UsageError(f"The port {self.metrics_port} is not from 0 to 65535.")
        if self.metrics_port and self.metrics_port == self.port:
            raise UsageError(f"The gateway has the port {self.port}.", hint="Give /metrics another one.")
        for name in ("blur_threshold", "conf_threshold"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise UsageError(f"{name} is a number of at least 0.")
        if self.conf_threshold > 1:
            raise UsageError("conf_threshold is at most 1.")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value!r}.", hint="It is a number above 0; leave it out.")
        if not (math.isfinite(self.drift_minutes) and self.drift_minutes >= 0):
            raise UsageError("drift_minutes is a number of at least 0; 0 for never.")
        if not all(map(_TASK.fullmatch, self.model_tasks)):
            raise UsageError(
                "model_tasks are names of tasks with commas between.",
                hint="A name has small letters, digits and '_', and begins with a letter.",
            )
        if set("{}") & set(self.models_url.replace("{task}", "")):
            raise UsageError("GATEWAY_MODELS_URL can't be read.", hint="In braces it may hold {task} alone.")
        unknown = {*self.systems, *self.open_access} - set(SYSTEMS)
        if unknown:
            raise UsageError(
                f"Unknown systems: {', '.join(sorted(unknown))}.", hint=f"Known: {', '.join(SYSTEMS)}."
            )
        if self.s3_encryption not in (None, "AES256", "aws:kms"):
            raise UsageError("GATEWAY_S3_ENCRYPTION is AES256 or aws:kms.")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        return self.host in _LOOPBACK

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment names; what it leaves out, or leaves empty, has its default.

        Raises:
            UsageError: a value can't be read, or is out of its range. The value itself is not told, since it
                may be a secret.
        """
        given = {k: v.strip() for k, v in (os.environ if environment is None else environment).items()}
        taken: dict[str, Any] = {}
        if given.get("S3_BUCKET_NAME"):
            taken["storage"] = f"s3://{given['S3_BUCKET_NAME']}"
        names = {f"GATEWAY_{item.name.upper()}": item.name for item in fields(cls)} | _OLD
        for name, key in names.items():
            if given.get(name):
                taken[key] = _read(name, given[name], _KINDS.get(key, str))
        return cls(**taken)

    def open_store(self) -> Store:
        """The database, brought up to date."""
        return open_store(self.database or f"sqlite:///{_folder() / 'gateway.db'}", pool=self.database_pool)

    def open_blobs(self) -> BlobStore:
        """The image store."""
        storage = self.storage or str(_folder() / "images")
        google = storage.startswith("gs://")
        return open_blobs(
            storage,
            signing_keys=self.signing_keys,
            key_file=_folder() / "signing.key",
            base_url=self.public_url,
            endpoint=self.s3_endpoint,
            public_endpoint=self.s3_public_endpoint,
            region=self.aws_region,
            access_key=self.gcs_access_key if google else None,
            secret_key=self.gcs_secret_key if google else None,
            encryption=self.s3_encryption,
        )


def _folder() -> Path:
    return home().root / "gateway"


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _words(text: str) -> tuple[str, ...]:
    # "-" for none: what is empty in the environment has its default.
    return () if text == "-" else tuple(shlex.split(text))


def _keys(text: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(item) for item in _list(text))


def _read(name: str, text: str, kind: Any) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{name} can't be read.", hint="docs/gateway.md says what it is.") from None


SYSTEMS = ("s0", "s1", "s2", "s3", "s4", "v1", "review")
# The old services' names. Where one and ours are both set, the old one holds: it comes last.
_OLD = {
    "BACKSERVER_HOST": "host",
    "BACKSERVER_PORT": "port",
    "API_KEY": "api_key",
    "STORAGE_DIR": "storage",
    "ALLOWED_ORIGINS": "allowed_origins",
    "BLUR_THRESHOLD": "blur_threshold",
    "CONF_THRESHOLD": "conf_threshold",
    "CHECK_IMAGE_TASKS": "check_image_tasks",
    "MODEL_PATH": "model_path",
    "DATABASE_URL": "database",
    "RETIDERM_PROFILE_MOCK": "profile_mock",
    "AWS_REGION": "aws_region",
    "GCS_ACCESS_KEY_ID": "gcs_access_key",
    "GCS_SECRET_ACCESS_KEY": "gcs_secret_key",
    "GATEWAY_SIGNING_KEY": "signing_keys",
}
_KINDS: dict[str, Any] = {
    "port": int,
    "signing_keys": _keys,
    "url_expires_s": int,
    "allowed_origins": _list,
    "blur_threshold": float,
    "conf_threshold": float,
    "check_image_tasks": _list,
    "model_path": Path,
    "model_tasks": _list,
    "systems": _list,
    "open_access": _list,
    "open_access_anywhere": _switch,
    "queue_unusual": float,
    "queue_audit": float,
    "queue_readers": int,
    "queue_near": float,
    "serving_root": Path,
    "drift_minutes": float,
    "registry_command": _words,
    "retention_days": int,
    "idempotency_hours": int,
    "max_body_bytes": int,
    "max_held_bytes": int,
    "metrics_port": int,
    "max_image_bytes": int,
    "max_image_pixels": int,
    "requests_per_minute": int,
    "request_s": float,
    "model_s": float,
    "profile_mock": _switch,
    "analyze_folder": Path,
    "scan_wait_s": float,
    "job_lease_s": float,
    "database_pool": int,
    "threads": int,
    "debug": _switch,
}
_POSITIVE = (
    "url_expires_s",
    "retention_days",
    "idempotency_hours",
    "max_body_bytes",
    "max_held_bytes",
    "max_image_bytes",
    "max_image_pixels",
    "requests_per_minute",
    "request_s",
    "model_s",
    "scan_wait_s",
    "job_lease_s",
    "database_pool",
    "threads",
)
