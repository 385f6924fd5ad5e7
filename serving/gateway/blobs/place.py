"""From a setting to an image store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from data.errors import UsageError

from .base import BlobStore
from .folder import FolderBlobs
from .s3 import S3Blobs, S3Place
from .signing import Signer, local_key

GOOGLE = "https://storage.googleapis.com"


def open_blobs(
    storage: str,
    *,
    signing_keys: tuple[bytes, ...] = (),
    key_file: Path | None = None,
    base_url: str = "",
    endpoint: str | None = None,
    public_endpoint: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    encryption: str | None = None,
) -> BlobStore:
    """The image store that ``storage`` names: a folder, ``s3://bucket/prefix`` or ``gs://bucket/prefix``.

    A folder's addresses are signed with ``signing_keys``, or with a key of this machine in ``key_file``,
    ``signing.key`` in the folder where not said.

    Raises:
        UsageError: it is none of these.
    """
    if "://" not in storage:
        root = Path(storage).expanduser()
        keys = signing_keys or (local_key(key_file or root / "signing.key"),)
        return FolderBlobs(root, Signer(keys), base_url)
    parts = urlsplit(storage)
    if parts.scheme == "file":
        return open_blobs(parts.path, signing_keys=signing_keys, key_file=key_file, base_url=base_url)
    if parts.scheme not in ("s3", "gs") or not parts.netloc:
        raise UsageError(
            f"The image store {parts.scheme}:// is not known.",
            hint="It is a folder, s3://BUCKET or gs://BUCKET.",
        )
    google = parts.scheme == "gs"
    return S3Blobs(
        S3Place(
            bucket=parts.netloc,
            prefix=parts.path.strip("/"),
            endpoint=endpoint or (GOOGLE if google else None),
            public_endpoint=public_endpoint,
            region=region,
            access_key=access_key,
            secret_key=secret_key,
            google=google,
            encryption=encryption,
        )
    )
