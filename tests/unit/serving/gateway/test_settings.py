"""What the environment says, in the old services' names and in ours."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from data.errors import UsageError
from data.paths import Home
from serving.gateway import settings as module
from serving.gateway.settings import Settings


def test_nothing_said_is_safe() -> None:
    found = Settings.from_env({})
    assert found == Settings()
    assert found.on_loopback
    assert found.api_key is None
    assert found.open_access == ()


def test_the_old_names() -> None:
    found = Settings.from_env(
        {
            "BACKSERVER_HOST": "0.0.0.0",
            "BACKSERVER_PORT": "9000",
            "MODEL_PATH": "models/x",
            "BLUR_THRESHOLD": "50.5",
            "CONF_THRESHOLD": "0.7",
            "STORAGE_DIR": "s3://b/p",
            "ALLOWED_ORIGINS": "https://a.org, https://b.org,",
            "API_KEY": "abc123",
            "CHECK_IMAGE_TASKS": "acne",
            "DATABASE_URL": "postgresql://u:hunter2@h/d",
            "S3_BUCKET_NAME": "not used: STORAGE_DIR is set",
            "AWS_REGION": "eu-central-1",
        }
    )
    assert (found.host, found.port, found.on_loopback) == ("0.0.0.0", 9000, False)
    assert (found.blur_threshold, found.conf_threshold) == (50.5, 0.7)
    assert found.allowed_origins == ("https://a.org", "https://b.org")
    assert (found.api_key, found.storage, found.check_image_tasks) == ("abc123", "s3://b/p", ("acne",))
    assert (found.model_path, found.aws_region) == (Path("models/x"), "eu-central-1")
    assert "hunter2" not in repr(found)
    assert "abc123" not in repr(found)
    assert Settings.from_env({"S3_BUCKET_NAME": "b"}).storage == "s3://b"


def test_every_field_has_a_name_of_ours() -> None:
    samples = {"systems": "s0,s2", "open_access": "s0", "signing_keys": "ab" * 32 + "," + "cd" * 32}
    samples |= {
        "open_access_anywhere": "yes",
        "debug": "on",
        "profile_mock": "on",
        "s3_encryption": "AES256",
        "conf_threshold": "1",
    }
    for item in fields(Settings):
        plain = "7" if module._KINDS.get(item.name) in (int, float) else "x"
        text = samples.get(item.name, plain)
        found = Settings.from_env({f"GATEWAY_{item.name.upper()}": text})
        assert getattr(found, item.name) != getattr(Settings(), item.name), item.name
    assert len(Settings.from_env({"GATEWAY_SIGNING_KEY": "ab" * 32}).signing_keys[0]) == 32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKSERVER_PORT", "x"),
        ("BACKSERVER_PORT", "70000"),
        ("CONF_THRESHOLD", "nan"),
        ("CONF_THRESHOLD", "1.5"),
        ("BLUR_THRESHOLD", "-1"),
        ("GATEWAY_SYSTEMS", "s9"),
        ("GATEWAY_OPEN_ACCESS", "everything"),
        ("GATEWAY_DEBUG", "maybe"),
        ("GATEWAY_REQUEST_S", "inf"),
        ("GATEWAY_MAX_BODY_BYTES", "0"),
        ("GATEWAY_RETENTION_DAYS", "-3"),
        ("GATEWAY_SIGNING_KEY", "not hex"),
        ("GATEWAY_S3_ENCRYPTION", "rot13"),
    ],
)
def test_what_can_not_be(name: str, value: str) -> None:
    with pytest.raises(UsageError):
        Settings.from_env({name: value})


def test_a_secret_that_can_not_be_read_is_not_told() -> None:
    with pytest.raises(UsageError) as error:
        Settings.from_env({"GATEWAY_SIGNING_KEY": "my-secret-phrase"})
    assert "phrase" not in str(error.value)


def test_opening_what_was_not_said(home: Home) -> None:
    store, blobs = Settings().open_store(), Settings().open_blobs()
    store.check()
    blobs.check()
    store.close()
    assert (home.root / "gateway" / "gateway.db").is_file()
    assert (home.root / "gateway" / "signing.key").stat().st_mode & 0o077 == 0
