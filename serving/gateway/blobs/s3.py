"""Images in S3, in anything that speaks S3, and in Google's Cloud Storage, which does with HMAC keys."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data.errors import NotFound, StoreError, StoreFull
from data.files import sha256_bytes

from .base import Stored, key_of, verified

_GONE = ("404", "NoSuchKey", "NotFound")
_FULL = ("QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull", "507")
_TRY_AGAIN = "Nothing was kept; ask again later."


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where a bucket is and how it is spoken to.

    - ``public_endpoint``: the address that clients reach it by, where that is another than ours.
    - ``access_key``, ``secret_key``: None takes what boto3 finds (environment, profile, the machine's role).
    - ``google``: Cloud Storage: it checks an MD5 instead of a SHA-256, and is asked without newer headers.
    - ``encryption``: ``AES256`` or ``aws:kms`` asks the bucket to encrypt; None leaves it to its default.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    google: bool = False
    encryption: str | None = None

    def __repr__(self) -> str:
        return f"S3Place({'gs' if self.google else 's3'}://{self.bucket}/{self.prefix})"


class S3Blobs:
    """Images in a bucket. A put that was answered is safe: the service has checked the bytes' digest."""

    def __init__(self, place: S3Place) -> None:
        self._at = place
        self._prefix = f"{place.prefix.strip('/')}/" if place.prefix.strip("/") else ""
        self._client = _client(place, place.endpoint)
        public = place.public_endpoint
        self._signer = _client(place, public) if public and public != place.endpoint else self._client

    @property
    def place(self) -> str:
        """As :class:`~.base.BlobStore`."""
        return f"{'gs' if self._at.google else 's3'}://{self._at.bucket}/{self._prefix}"

    def put(self, tenant: str, data: bytes, media_type: str) -> str:
        """As :class:`~.base.BlobStore`. Always sent: what is there might be damaged."""
        sha256 = sha256_bytes(data)
        digest: dict[str, Any]
        if self._at.google:
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
            digest = {"ContentMD5": base64.b64encode(md5).decode()}
        else:
            digest = {"ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode()}
            if self._at.encryption is not None:
                digest["ServerSideEncryption"] = self._at.encryption
        with _translated():
            self._client.put_object(
                Bucket=self._at.bucket,
                Key=self._key(tenant, sha256),
                Body=data,
                ContentType=media_type,
                **digest,
            )
        return sha256

    def get(self, tenant: str, sha256: str) -> bytes:
        """As :class:`~.base.BlobStore`."""
        with _translated():
            answer = self._client.get_object(Bucket=self._at.bucket, Key=self._key(tenant, sha256))
            data: bytes = answer["Body"].read()
        return verified(data, sha256)

    def size(self, tenant: str, sha256: str) -> int | None:
        """As :class:`~.base.BlobStore`."""
        try:
            with _translated():
                answer = self._client.head_object(Bucket=self._at.bucket, Key=self._key(tenant, sha256))
        except NotFound:
            return None
        return int(answer["ContentLength"])

    def delete(self, tenant: str, sha256: str) -> None:
        """As :class:`~.base.BlobStore`. In a bucket with versions, every version goes."""
        key = self._key(tenant, sha256)
        try:
            with _translated():
                answer = self._client.delete_object(Bucket=self._at.bucket, Key=key)
                if answer.get("VersionId") or answer.get("DeleteMarker"):
                    self._delete_versions(key)
        except NotFound:
            return

    def url(
        self, tenant: str, sha256: str, *, media_type: str, expires_s: int, filename: str | None = None
    ) -> str:
        """As :class:`~.base.BlobStore`: presigned, the bucket answers it. At most seven days."""
        asked = {
            "Bucket": self._at.bucket,
            "Key": self._key(tenant, sha256),
            "ResponseContentType": media_type,
        }
        if filename is not None:
            asked["ResponseContentDisposition"] = f'inline; filename="{_plain(filename)}"'
        with _translated():
            found: str = self._signer.generate_presigned_url(
                "get_object", Params=asked, ExpiresIn=min(expires_s, 7 * 24 * 3600)
            )
        return found

    def listed(self, tenant: str) -> Iterator[Stored]:
        """As :class:`~.base.BlobStore`."""
        folder = self._prefix + key_of(tenant, "0" * 64).split("/")[0] + "/"
        with _translated():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._at.bucket, Prefix=folder):
                for item in page.get("Contents", []):
                    yield Stored(item["Key"].rpartition("/")[2], int(item["Size"]), item["LastModified"])

    def check(self) -> None:
        """As :class:`~.base.BlobStore`: the bucket is asked for."""
        try:
            with _translated():
                self._client.head_bucket(Bucket=self._at.bucket)
        except NotFound:
            raise StoreError(
                "The image store's bucket isn't there.", hint="Make it, or name another."
            ) from None

    def _key(self, tenant: str, sha256: str) -> str:
        return self._prefix + key_of(tenant, sha256)

    def _delete_versions(self, key: str) -> None:
        pages = self._client.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self._at.bucket, Prefix=key):
            for item in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                if item["Key"] == key:
                    self._client.delete_object(Bucket=self._at.bucket, Key=key, VersionId=item["VersionId"])


def _client(place: S3Place, endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    needed = "when_required" if place.google else "when_supported"
    settings = Config(
        signature_version="s3v4",
        connect_timeout=3,
        read_timeout=20,
        # Somebody waits for the answer: once more, then 503.
        retries={"max_attempts": 2, "mode": "standard"},
        # A bucket in the path works with every server; one in the host name needs its DNS.
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation=needed,
        response_checksum_validation=needed,
        max_pool_connections=32,
    )
    try:
        # A session of our own: boto3's shared one is not safe between threads.
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=place.region or ("auto" if place.google else None),
            aws_access_key_id=place.access_key,
            aws_secret_access_key=place.secret_key,
            config=settings,
        )
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"The image store can't be opened: {error}.") from error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _GONE:
            raise NotFound("Image not found") from None
        if code in _FULL:
            raise StoreFull("No room is left for images.", hint=_TRY_AGAIN) from error
        raise StoreError(f"The image store refused: {code or 'no reason given'}.", hint=_TRY_AGAIN) from error
    except (BotoCoreError, HTTPClientError, OSError) as error:
        raise StoreError("The image store can't be reached.", hint=_TRY_AGAIN) from error


def _plain(name: str) -> str:
    """A file name that can stand in a header."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name)[:100]
