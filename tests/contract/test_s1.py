"""Contract S1 over HTTP: one photograph's profile, on the chain of runtimes, against real processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.core.bundle import Bundle, PrecisionCard
from serving.gateway.access import Role
from serving.gateway.store.repositories import predictions
from serving.gateway.store.tables import Image
from serving.profile import HEADS, Profiler
from tests.faces import portrait
from tests.gateway_live import Live, form_of, live_gateway, photograph
from tests.integration.serving.harness import Servers, promote
from tests.profiles import jpeg, profile_bundle

IMAGE = "/api/v1/analyze/image"
FILE = "/api/v1/analyze/file"
HEALTH = "/api/v1/analyze/health"
DOCUMENT = [
    "skin_type",
    "hair_type",
    "conditions_detected",
    "confidence_scores",
    "model_version",
    "model_type",
]
PHOTO = jpeg(portrait(320))
S1 = {"GATEWAY_SYSTEMS": "s1"}
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A profile with both links of the chain, whose answers differ."""
    return profile_bundle(tmp_path_factory.mktemp("lite") / "b", tflite=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``/analyze/file`` may read, and what lies around it."""
    root = tmp_path_factory.mktemp("files")
    inside = root / "inside"
    (inside / "deeper").mkdir(parents=True)
    (inside / "selfie.jpg").write_bytes(PHOTO)
    (inside / "deeper" / "selfie.png").write_bytes(photograph(1, kind=".png"))
    (inside / "empty.jpg").write_bytes(b"")
    (inside / "blurred.jpg").write_bytes(photograph(1, blurred=True))
    (root / "secret.jpg").write_bytes(PHOTO)
    (inside / "link.jpg").symlink_to(inside / "selfie.jpg")
    (inside / "out.jpg").symlink_to(root / "secret.jpg")
    (inside / "up").symlink_to(root)
    (inside / "round").symlink_to(inside / "round")
    os.mkfifo(inside / "pipe.jpg")
    return inside


@pytest.fixture(scope="module")
def live(lite: Bundle, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """S1 on TFLite, files switched on."""
    root = tmp_path_factory.mktemp("s1")
    with models(root, lite) as servers, gateway(root / "gateway", servers.url, folder) as found:
        yield found


@contextlib.contextmanager
def models(root: Path, bundle: Bundle) -> Iterator[Servers]:
    promote(root / "serving", bundle, "7")
    with Servers(root / "serving", root / "servers").running() as servers:
        yield servers


@contextlib.contextmanager
def gateway(root: Path, url: str, folder: Path | None = None, **environment: str) -> Iterator[Live]:
    files = {} if folder is None else {"GATEWAY_ANALYZE_FOLDER": str(folder)}
    with live_gateway(root, url, **S1, **files, **environment) as found:
        yield found


@pytest.fixture
def app(live: Live) -> Iterator[httpx.Client]:
    with live.client(live.token()) as client:
        yield client


def profile(answer: httpx.Response, *, model_type: str, version: str = "7") -> dict[str, Any]:
    """The document, held to the contract key by key."""
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    assert list(document) == DOCUMENT
    assert document["skin_type"] in HEADS["skin_type"]
    assert document["hair_type"] in HEADS["hair_type"]
    conditions = document["conditions_detected"]
    assert len(conditions) <= 1
    assert set(conditions) <= {*HEADS["condition"]} - {"healthy"}
    scores = document["confidence_scores"]
    assert list(scores) == list(HEADS)
    assert all(isinstance(value, float) and 0 < value <= 1 for value in scores.values())
    assert (document["model_version"], document["model_type"]) == (version, model_type)
    return document


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    return str(answer.json()["detail"])


def test_the_story(app: httpx.Client, live: Live, lite: Bundle) -> None:
    """Is it up? A selfie, its profile, the same as the Python call gives, traced to the bundle."""
    assert app.get(HEALTH).json() == {
        "status": "healthy",
        "models_available": True,
        "message": "Version 7 answers on tflite.",
        "tflite_available": True,
        "onnx_available": True,
    }
    document = profile(app.post(IMAGE, files=form_of(PHOTO, "selfie.jpg")), model_type="tflite")
    called = Profiler.open(lite.root, threads=1).analyze(PHOTO)
    assert {**called, "model_version": "7"} == document
    with live.scope() as scope:
        from sqlalchemy import select

        (image,) = scope.session.scalars(
            select(Image).where(Image.system == "s1").order_by(Image.created_at.desc()).limit(1)
        )
        (row,) = predictions.listed(scope, image_id=image.id)
        assert predictions.trace(scope, row.id)["model"] == {
            "task": "skin_profile",
            "name": "skin_profile",
            "version": "7",
            "precision": "tflite",
            "bundle_digest": lite.digest,
        }


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp"])
def test_each_format_as_a_form_and_as_itself(app: httpx.Client, kind: str) -> None:
    data = photograph(3, kind=kind)
    name = {".jpg": "jpeg"}.get(kind, kind[1:])
    by_form = profile(app.post(IMAGE, files=form_of(data, f"x{kind}", f"image/{name}")), model_type="tflite")
    raw = app.post(IMAGE, content=data, headers={"content-type": f"image/{name}"})
    assert profile(raw, model_type="tflite") == by_form
    # What counts is what the file is, not what it is called.
    assert (
        profile(app.post(IMAGE, files=form_of(data, "x.txt", "text/plain")), model_type="tflite") == by_form
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"not an image at all", "not a JPEG"),
        (photograph(1, kind=".webp"), "JPEG, PNG and BMP"),
        (photograph(1, kind=".tiff"), "JPEG, PNG and BMP"),
        (PHOTO[: len(PHOTO) // 2], "damaged"),
    ],
    ids=["empty", "text", "webp", "tiff", "cut"],
)
def test_400_for_what_is_no_such_image(app: httpx.Client, data: bytes, says: str) -> None:
    assert says in refused(app.post(IMAGE, files=form_of(data)), 400)


def test_400_without_a_file(app: httpx.Client) -> None:
    assert "'file'" in refused(app.post(IMAGE, files={"picture": ("a.jpg", PHOTO, "image/jpeg")}), 400)
    refused(app.post(IMAGE), 400)
    refused(app.post(IMAGE, content=b"{}", headers={"content-type": "application/json"}), 400)
    refused(app.post(IMAGE, content=b"", headers={"content-type": "image/jpeg"}), 400)


def test_a_photograph_too_poor_for_an_answer_gets_the_reason_and_no_profile(app: httpx.Client) -> None:
    assert "blurred" in refused(app.post(IMAGE, files=form_of(photograph(1, blurred=True))), 422)


def test_the_same_key_is_answered_once(app: httpx.Client) -> None:
    headers = {"idempotency-key": f"k{time.monotonic_ns()}"}
    first = app.post(IMAGE, files=form_of(photograph(5)), headers=headers)
    again = app.post(IMAGE, files=form_of(photograph(5)), headers=headers)
    assert profile(first, model_type="tflite") == again.json()
    assert refused(app.post(IMAGE, files=form_of(photograph(6)), headers=headers), 409)


def test_who_may_ask(live: Live) -> None:
    with live.client() as nobody, live.client(live.token(Role.REVIEWER)) as reviewer:
        for client, status in ((nobody, 401), (reviewer, 403)):
            refused(client.post(IMAGE, files=form_of(PHOTO)), status)
            refused(client.post(FILE, params={"file_path": "selfie.jpg"}), status)
        assert nobody.get(HEALTH).status_code == 200
    with live.client(live.token(kind="bearer"), bearer=True) as client:
        profile(client.post(IMAGE, files=form_of(PHOTO)), model_type="tflite")


def test_a_file_in_the_folder(app: httpx.Client, folder: Path) -> None:
    by_image = profile(app.post(IMAGE, files=form_of(PHOTO)), model_type="tflite")
    for name in ("selfie.jpg", "./selfie.jpg", f"{folder}/selfie.jpg"):
        answer = app.post(FILE, params={"file_path": name})
        assert profile(answer, model_type="tflite") == by_image
    profile(app.post(FILE, params={"file_path": "deeper/selfie.png"}), model_type="tflite")
    assert "empty" in refused(app.post(FILE, params={"file_path": "empty.jpg"}), 400)
    assert "blurred" in refused(app.post(FILE, params={"file_path": "blurred.jpg"}), 422)


@pytest.mark.parametrize("name", ["missing.jpg", "deeper/missing.jpg", "no/such/folder.jpg", "selfie.jpg/x"])
def test_404_for_a_file_that_is_not_there(app: httpx.Client, name: str) -> None:
    assert refused(app.post(FILE, params={"file_path": name}), 404) == "There is no such file."


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "deeper/../../secret.jpg",
        "deeper/../selfie.jpg",
        "/etc/passwd",
        "/etc/no-such-file",
        "//etc/passwd",
        "link.jpg",
        "out.jpg",
        "up/secret.jpg",
        "up/inside/selfie.jpg",
        "round/selfie.jpg",
    ],
)
def test_nothing_outside_and_no_link_whatever_the_name(app: httpx.Client, name: str) -> None:
    said = refused(app.post(FILE, params={"file_path": name}), 403)
    assert "etc" not in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("", 422),
        ("a\0b", 400),
        (".", 400),
        ("deeper", 400),
        ("pipe.jpg", 400),
        ("x" * 5000, 422),
        ("y" * 300, 404),
    ],
)
def test_names_that_are_no_file(app: httpx.Client, name: str, status: int) -> None:
    assert app.post(FILE, params={"file_path": name}).status_code == status


def test_a_file_name_is_needed(app: httpx.Client) -> None:
    assert app.post(FILE).status_code == 422


def test_files_are_off_unless_switched_on(gateway_models: Servers, tmp_path: Path) -> None:
    with gateway(tmp_path, gateway_models.url) as live, live.client(live.token()) as client:
        assert "switched off" in refused(client.post(FILE, params={"file_path": "/etc/passwd"}), 403)
        profile(client.post(IMAGE, files=form_of(PHOTO)), model_type="onnx", version="1")


@pytest.mark.slow
def test_the_chain(lite: Bundle, tmp_path: Path) -> None:
    """TFLite; a version that has none; one whose TFLite gives other answers than it should."""
    plain = profile_bundle(tmp_path / "plain")
    wrong = {"fp32": PrecisionCard("model.onnx", tolerance=1.0)}
    wrong["tflite"] = PrecisionCard("model.tflite", format="tflite", tolerance=1e-9)
    broken = profile_bundle(tmp_path / "broken", tflite=True, precisions=wrong, run_id="another")
    with (
        models(tmp_path, lite) as servers,
        gateway(tmp_path / "gateway", servers.url) as live,
        live.client(live.token()) as client,
    ):
        profile(client.post(IMAGE, files=form_of(PHOTO)), model_type="tflite")
        for version, bundle in (("8", plain), ("9", broken)):
            promote(tmp_path / "serving", bundle, version)
            document = until(client, version)
            assert document["model_type"] == "onnx"
            said = until_healthy(client, version)
            assert (said["tflite_available"], said["onnx_available"]) == (False, True)
            assert said["message"] == f"Version {version} answers on onnx."


def until(client: httpx.Client, version: str) -> dict[str, Any]:
    """The profile, once that version answers."""
    for _ in range(1200):
        answer = client.post(IMAGE, files=form_of(PHOTO))
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        if document["model_version"] == version:
            return document
        time.sleep(0.05)
    raise AssertionError(f"version {version} never answered")


def until_healthy(client: httpx.Client, version: str) -> dict[str, Any]:
    """What the route of health says, once it is of that version.

    The transformer says it, and looks in its own time: an answer is the predictor's already.
    """
    for _ in range(1200):
        said: dict[str, Any] = client.get(HEALTH).json()
        if said["message"].startswith(f"Version {version} "):
            return said
        time.sleep(0.05)
    raise AssertionError(f"version {version} was never said to answer")


def test_without_a_model_there_is_no_answer(tmp_path: Path) -> None:
    with gateway(tmp_path, NOWHERE) as live, live.client(live.token()) as client:
        answer = client.post(IMAGE, files=form_of(PHOTO))
        refused(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/readyz/s1").status_code == 503
        said = client.get(HEALTH).json()
        assert said.pop("message")
        assert said == {
            "status": "degraded",
            "models_available": False,
            "tflite_available": False,
            "onnx_available": False,
        }


def test_the_mock_answers_where_it_is_switched_on_and_says_so(tmp_path: Path) -> None:
    with gateway(tmp_path, NOWHERE, RETIDERM_PROFILE_MOCK="1") as live:
        with live.client(live.token()) as client:
            document = profile(client.post(IMAGE, files=form_of(PHOTO)), model_type="mock", version="mock")
            even = {"skin_type": 0.2, "hair_type": 0.25, "condition": 0.2}
            assert document["confidence_scores"] == pytest.approx(even)
            refused(client.post(IMAGE, files=form_of(b"no image")), 400)
            refused(client.post(IMAGE, files=form_of(photograph(1, kind=".webp"))), 400)
            said = client.get(HEALTH).json()
            assert (said["status"], said["models_available"]) == ("degraded", False)
            assert "mock" in said["message"]
        assert "its answers mean nothing" in (live.folder / "gateway.log").read_text()


@pytest.mark.slow
def test_the_mock_never_stands_in_for_a_model_that_goes_away(lite: Bundle, tmp_path: Path) -> None:
    with (
        models(tmp_path, lite) as servers,
        gateway(tmp_path / "gateway", servers.url, RETIDERM_PROFILE_MOCK="1") as live,
        live.client(live.token()) as client,
    ):
        profile(client.post(IMAGE, files=form_of(PHOTO)), model_type="tflite")
        servers.predictor.kill()
        refused(client.post(IMAGE, files=form_of(PHOTO)), 503)
        assert client.get(HEALTH).json()["models_available"] is False
