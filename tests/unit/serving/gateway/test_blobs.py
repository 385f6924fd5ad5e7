"""Images in a folder, in a real S3 server, and in the same by the way that Cloud Storage is spoken to."""

from __future__ import annotations

import datetime as dt
import errno
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import IntegrityError, NotAllowed, NotFound, StoreError, StoreFull, UsageError
from data.files import sha256_bytes
from serving.gateway.blobs import BlobStore, keep, open_blobs
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.blobs.s3 import S3Blobs, S3Place
from serving.gateway.blobs.signing import Grant, Signer, local_key
from serving.gateway.store.types import new_id
from tests.gateway_rows import folder_blobs
from tests.gateway_servers import BUCKET, KEY, SECRET, s3

TENANT, OTHER = new_id(), new_id()
DATA = b"\xff\xd8 an image"
SHA = sha256_bytes(DATA)


def bucket(google: bool = False) -> S3Place:
    server = s3()
    return S3Place(
        BUCKET,
        prefix=server.new_prefix(),
        endpoint=server.endpoint,
        region="us-east-1",
        access_key=KEY,
        secret_key=SECRET,
        google=google,
    )


@pytest.fixture(params=["folder", "s3", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BlobStore, Callable[[bytes], None]]:
    """A store, and how to damage what it holds of DATA."""
    if request.param == "folder":
        folder = folder_blobs(tmp_path / "images")
        return folder, (tmp_path / "images" / TENANT / SHA[:2] / SHA).write_bytes  # type: ignore[return-value]
    at = bucket(google=request.param == "gs")

    def damage(data: bytes) -> None:
        key = f"{at.prefix}/{TENANT}/{SHA[:2]}/{SHA}"
        s3().client().put_object(Bucket=at.bucket, Key=key, Body=data)

    return S3Blobs(at), damage


def test_bytes_go_in_and_come_out(place: tuple[BlobStore, Callable[[bytes], None]]) -> None:
    blobs, _ = place
    blobs.check()
    assert blobs.size(TENANT, SHA) is None
    with pytest.raises(NotFound):
        blobs.get(TENANT, SHA)
    for _ in range(2):
        assert blobs.put(TENANT, DATA, "image/jpeg") == SHA
    assert blobs.get(TENANT, SHA) == DATA
    assert blobs.size(TENANT, SHA) == len(DATA)
    assert blobs.size(OTHER, SHA) is None
    blobs.put(TENANT, b"second", "image/png")
    listed = list(blobs.listed(TENANT))
    assert [item.sha256 for item in listed] == sorted([SHA, sha256_bytes(b"second")])
    assert {item.bytes for item in listed} == {len(DATA), 6}
    assert all(abs(dt.datetime.now(dt.UTC) - item.modified) < dt.timedelta(hours=1) for item in listed)
    assert list(blobs.listed(OTHER)) == []
    for _ in range(2):
        blobs.delete(TENANT, SHA)
    assert blobs.size(TENANT, SHA) is None


def test_damage_is_found_on_reading_and_mended_by_sending_again(
    place: tuple[BlobStore, Callable[[bytes], None]],
) -> None:
    blobs, damage = place
    blobs.put(TENANT, DATA, "image/jpeg")
    for bad in (DATA[:-1] + b"X", DATA[:-1], b""):
        damage(bad)
        with pytest.raises(IntegrityError):
            blobs.get(TENANT, SHA)
    blobs.put(TENANT, DATA, "image/jpeg")
    assert blobs.get(TENANT, SHA) == DATA


def test_kept_bytes_are_kept_again_where_they_went(place: tuple[BlobStore, Callable[[bytes], None]]) -> None:
    blobs, _ = place
    kept = keep(blobs, TENANT, DATA, "image/jpeg")
    assert (kept.sha256, kept.bytes) == (SHA, len(DATA))
    blobs.delete(TENANT, SHA)
    kept.ensure()
    assert blobs.get(TENANT, SHA) == DATA


@pytest.mark.parametrize("name", ["..", "a/b", "", "../../etc/passwd", "A" * 36, "\0"])
def test_no_address_leads_elsewhere(tmp_path: Path, name: str) -> None:
    blobs = folder_blobs(tmp_path)
    for call in (
        lambda: blobs.put(name, DATA, "image/png"),
        lambda: blobs.get(name, SHA),
        lambda: blobs.get(TENANT, name),
        lambda: blobs.delete(TENANT, name),
        lambda: blobs.url(TENANT, name, media_type="image/png", expires_s=1),
    ):
        with pytest.raises(StoreError):
            call()


@pytest.mark.parametrize("google", [False, True])
def test_a_presigned_address_works_until_it_expires(google: bool) -> None:
    blobs = S3Blobs(bucket(google))
    blobs.put(TENANT, DATA, "image/jpeg")
    url = blobs.url(TENANT, SHA, media_type="image/jpeg", expires_s=60, filename='a "b"\r\n.jpg')
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == DATA
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Content-Disposition"] == 'inline; filename="a _b___.jpg"'
    parts = urllib.parse.urlsplit(url)
    query = dict(urllib.parse.parse_qsl(parts.query))
    # Without a signature, for another image, and after its time (an old date, signed by the same key).
    other = blobs.put(TENANT, b"another", "image/png")
    unsigned = {name: value for name, value in query.items() if name != "X-Amz-Signature"}
    refused = [
        parts._replace(query="").geturl(),
        parts._replace(query=urllib.parse.urlencode(unsigned)).geturl(),
        url.replace(SHA, other).replace(f"/{SHA[:2]}/", f"/{other[:2]}/"),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
    ]
    for address in refused:
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(address)
        error.value.close()
        assert error.value.code in (400, 403)


def test_an_expired_presigned_address_is_refused() -> None:
    import time

    blobs = S3Blobs(bucket())
    blobs.put(TENANT, DATA, "image/jpeg")
    url = blobs.url(TENANT, SHA, media_type="image/jpeg", expires_s=1)
    time.sleep(2.5)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url)
    error.value.close()
    assert error.value.code == 403


def test_wrong_keys_and_a_server_that_is_not_there() -> None:
    from dataclasses import replace

    at = bucket()
    wrong = S3Blobs(replace(at, secret_key="wrong"))
    for call in (lambda: wrong.put(TENANT, DATA, "image/jpeg"), wrong.check):
        with pytest.raises(StoreError, match="refused"):
            call()
    # The test server makes a bucket at the first put, so this one is only asked for.
    with pytest.raises(StoreError, match="bucket isn't there"):
        S3Blobs(replace(at, bucket="no-such-bucket")).check()
    assert SECRET not in repr(at)
    away = S3Blobs(replace(at, endpoint="http://127.0.0.1:1"))
    for call in (
        lambda: away.put(TENANT, DATA, "image/jpeg"),
        lambda: away.get(TENANT, SHA),
        lambda: away.size(TENANT, SHA),
        lambda: list(away.listed(TENANT)),
        away.check,
    ):
        with pytest.raises(StoreError, match="reached"):
            call()


def test_addresses_of_a_folders_images(tmp_path: Path) -> None:
    now = [1_000_000.0]
    blobs = FolderBlobs(
        tmp_path, Signer([b"n" * 32, b"o" * 32]), "https://example.org/", clock=lambda: now[0]
    )
    blobs.put(TENANT, DATA, "image/jpeg")
    url = blobs.url(TENANT, SHA, media_type="image/jpeg", expires_s=60, filename="é.jpg")
    parts = urllib.parse.urlsplit(url)
    assert url.startswith(f"https://example.org/files/{TENANT}/{SHA}?")
    query = dict(urllib.parse.parse_qsl(parts.query))
    data, grant = blobs.opened(TENANT, SHA, query)
    assert (data, grant.media_type, grant.filename) == (DATA, "image/jpeg", "é.jpg")
    # An older key's address is still good; a stranger's never was.
    for key, good in ((b"o" * 32, True), (b"x" * 32, False)):
        made = Signer([key]).path(Grant(TENANT, SHA, "image/jpeg", None, 1_000_060))
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(made).query))
        if good:
            assert blobs.opened(TENANT, SHA, asked)[0] == DATA
        else:
            with pytest.raises(NotAllowed, match="not given by us"):
                blobs.opened(TENANT, SHA, asked)
    changes = [
        {"expires": "1000061"},
        {"expires": "٣"},
        {"expires": "1" * 5000},
        {"type": "text/html"},
        {"name": "x"},
        {"signature": ""},
        {"signature": "é\ud800"},
        {"signature": query["signature"].upper()},
    ]
    for change in changes:
        with pytest.raises(NotAllowed, match="not given by us"):
            blobs.opened(TENANT, SHA, query | change)
    for tenant, sha256 in ((OTHER, SHA), (TENANT, "0" * 64), ("..", SHA)):
        with pytest.raises(NotAllowed):
            blobs.opened(tenant, sha256, query)
    with pytest.raises(NotAllowed):
        blobs.opened(TENANT, SHA, {})
    now[0] += 60
    with pytest.raises(NotAllowed, match="expired"):
        blobs.opened(TENANT, SHA, query)
    now[0] -= 61
    blobs.delete(TENANT, SHA)
    with pytest.raises(NotFound):
        blobs.opened(TENANT, SHA, query)


def test_no_two_grants_are_signed_alike() -> None:
    signer = Signer([b"k" * 32])
    grants = [
        Grant("ab", "c", "d", None, 1),
        Grant("a", "bc", "d", None, 1),
        Grant("a", "b", "cd", None, 1),
        Grant("a", "b", "c", "d", 1),
        Grant("a", "b", "c", "d1", 1),
        Grant("a", "b", "c", "d", 11),
    ]
    signatures = {signer.path(grant).rpartition("signature=")[2] for grant in grants}
    assert len(signatures) == len(grants)


def test_a_short_key_is_refused_and_a_machines_key_is_made_once(tmp_path: Path) -> None:
    for keys in ([], [b"short"]):
        with pytest.raises(UsageError):
            Signer(keys)
    assert "kkkk" not in repr(Signer([b"k" * 32]))
    path = tmp_path / "a" / "signing.key"
    key = local_key(path)
    assert len(key) == 32
    assert local_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["signing.key"]
    path.write_text("not hex")
    with pytest.raises(StoreError):
        local_key(path)


def test_the_folder_is_its_owners(tmp_path: Path) -> None:
    folder_blobs(tmp_path / "images")
    assert (tmp_path / "images").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, where: str
) -> None:
    blobs = folder_blobs(tmp_path / "images")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if where == "fsync":
            patch.setattr("os.fsync", fail)
        else:
            patch.setattr(Path, "replace", fail)
        with pytest.raises(StoreError) as error:
            blobs.put(TENANT, DATA, "image/jpeg")
    assert isinstance(error.value, StoreFull) == (code != errno.EIO)
    assert str(tmp_path) not in str(error.value)
    assert blobs.size(TENANT, SHA) is None
    assert [path for path in (tmp_path / "images").rglob("*") if path.is_file()] == []


def test_new_folders_are_flushed_into_their_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr("serving.gateway.blobs.folder.fsync_dir", lambda path: flushed.append(path.name))
    blobs = folder_blobs(tmp_path / "images")
    blobs.put(TENANT, DATA, "image/jpeg")
    assert flushed == ["images", TENANT]
    flushed.clear()
    blobs.put(TENANT, DATA, "image/jpeg")
    assert flushed == [SHA[:2]]


def test_what_killed_writers_left_is_cleared(tmp_path: Path) -> None:
    blobs = folder_blobs(tmp_path)
    blobs.put(TENANT, DATA, "image/jpeg")
    left = tmp_path / TENANT / SHA[:2] / f".{SHA}.abc.part"
    for age, stays in ((0, True), (7200, False)):
        left.write_bytes(b"half")
        os.utime(left, (left.stat().st_mtime - age,) * 2)
        assert [item.sha256 for item in blobs.listed(TENANT)] == [SHA]
        assert left.exists() == stays


def test_opening_by_a_settings_text(tmp_path: Path) -> None:
    assert open_blobs(str(tmp_path / "x")).place == f"folder {tmp_path / 'x'}"
    assert open_blobs(f"file://{tmp_path}/y").place == f"folder {tmp_path / 'y'}"
    keys = {"access_key": "a", "secret_key": "b", "region": "eu-central-1"}
    assert open_blobs("s3://bucket/a/b/", **keys).place == "s3://bucket/a/b/"
    assert open_blobs("gs://bucket", **keys).place == "gs://bucket/"
    url = open_blobs("gs://bucket", **keys).url(TENANT, SHA, media_type="image/png", expires_s=60)
    assert url.startswith(f"https://storage.googleapis.com/bucket/{TENANT}/")
    for wrong in ("ftp://x", "s3://", "http://x/y"):
        with pytest.raises(UsageError):
            open_blobs(wrong)
