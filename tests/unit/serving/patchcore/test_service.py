"""The service in this process: what a real server can't be made to do at will."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import onnxruntime
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from data.errors import BundleError, ServingError
from serving.listening import listen
from serving.patchcore import server as servers
from serving.patchcore.answers import CatchAll
from serving.patchcore.app import create_app
from serving.patchcore.asked import FitAsked, Named
from serving.patchcore.desk import Deadline
from serving.patchcore.errors import Reporter, TooSlow
from serving.patchcore.form import Form, Part
from serving.patchcore.router import build_router
from serving.patchcore.service import Service
from serving.patchcore.settings import Settings
from serving.patchcore.timing import Stopwatch
from tests.extractors import tiny_extractor

FIELDS = {"role_id": "Role", "roi_id": "Roi", "mm_per_px": "0.2"}


def image(seed: int, width: int = 40, height: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(80, 120, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tiny_extractor(tmp_path / "extractor")
    return Settings(models_dir=tmp_path / "models", extractor=tmp_path / "extractor", device="cpu", threads=1)


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    made = Service.open(settings)
    yield made
    made.close()


def fit(client: TestClient, count: int = 3) -> httpx.Response:
    files = [("images", (f"{n}.png", image(n), "image/png")) for n in range(count)]
    return client.post("/fit_ok", data=FIELDS, files=files)


class _EndsAt(Deadline):
    """A deadline that passes at its ``turn``-th look."""

    def __init__(self, turn: int) -> None:
        super().__init__(60)
        self.turn = turn

    def check(self) -> None:
        self.turn -= 1
        if self.turn <= 0:
            raise TooSlow("ended")


def test_a_fit_that_ends_anywhere_publishes_nothing(service: Service) -> None:
    form = Form()
    parts = []
    for n in range(20):
        data = image(n)
        parts.append(Part("image/png", form.spool.tell(), len(data)))
        form.spool.write(data)
    asked = FitAsked(Named("Role", "Roi"), 0.2, tuple(parts))
    with form:
        turn = 0
        while True:
            turn += 1
            deadline = _EndsAt(turn)
            try:
                service.fit(deadline, asked, form, Stopwatch())
            except TooSlow:
                assert not (service.settings.models_dir / "Role").exists()
            else:
                break
    assert turn > 5, "looked at in every part of the work"
    assert (service.settings.models_dir / "Role" / "Roi" / "memory.npz").is_file()


def test_the_router_brings_its_error_shape_into_another_application(service: Service) -> None:
    gateway = FastAPI()
    gateway.include_router(build_router(service), prefix="/s4")
    gateway.mount("/other", create_app(service=service))
    with TestClient(gateway, raise_server_exceptions=False) as client:
        assert client.get("/s4/health").json() == client.get("/other/health").json() == service.health()
        for prefix in ("/s4", "/other"):
            answer = client.post(f"{prefix}/infer", json={})
            assert answer.status_code == 400
            assert set(answer.json()) == {"error", "trace"}
        assert set(client.get("/other/nothing").json()) == {"error", "trace"}
        assert client.get("/s4/nothing").json() == {"detail": "Not Found"}, "the gateway's own"
    assert service.health()["status"] == "ok", "a service that was given stays the giver's"


def test_a_failure_that_nobody_foresaw_says_nothing_of_the_inside(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("the secret of /data/secret/place")

    with TestClient(create_app(service=service)) as client:
        assert fit(client).status_code == 200
        monkeypatch.setattr(service.extractor, "embed", broken)
        answer = client.post("/infer", data=FIELDS, files={"image": ("a.png", image(1), "image/png")})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["trace"] in caplog.text
    assert "RuntimeError: the secret of <path>" in caplog.text


def test_nothing_reaches_the_server_not_even_from_a_middleware() -> None:
    async def broken(*_: Any) -> None:
        raise ValueError("x")

    answer = TestClient(CatchAll(broken, Reporter())).get("/")
    assert answer.status_code == 500
    assert set(answer.json()) == {"error", "trace"}


def test_an_extractor_that_was_tuned_with_a_crop_still_sees_the_whole_region(tmp_path: Path) -> None:
    answers = []
    for n, preprocessing in enumerate(
        [{}, {"crop": "fundus", "fit": "letterbox", "clahe": {"clip_limit": 2}}]
    ):
        tiny_extractor(tmp_path / str(n), preprocessing=preprocessing)
        settings = Settings(models_dir=tmp_path / f"models{n}", extractor=tmp_path / str(n), threads=1)
        with TestClient(create_app(settings)) as client:
            assert fit(client).status_code == 200
            answer = client.post("/infer", data=FIELDS, files={"image": ("a.png", image(9), "image/png")})
            answers.append(json.loads(answer.text))
    assert answers[0] == answers[1]


def test_the_same_answers_without_faiss(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for faiss in (True, False):
        monkeypatch.setattr("serving.core.patchcore.search.has_faiss", lambda there=faiss: there)
        with TestClient(create_app(settings)) as client:
            assert fit(client, 6).status_code == 200
            answers.append(
                client.post("/infer", data=FIELDS, files={"image": ("a.png", image(9), "image/png")}).json()
            )
    assert answers[0] == answers[1]


def test_without_an_extractor_the_server_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="retiderm anomaly extractor"):
        create_app(Settings(extractor=tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_name": "vit_small_patch14_dinov2.lvd142m"}, "MODEL_NAME"),
        ({"input_size": 448}, "INPUT_SIZE"),
        ({"device": "cuda"}, "CUDA"),
    ],
)
def test_another_extractor_than_the_settings_name_is_refused(
    settings: Settings, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ServingError, match=words):
        Service.open(replace(settings, **change))


def test_an_altered_extractor_is_refused(settings: Settings) -> None:
    assert settings.extractor is not None
    with (settings.extractor / "extractor.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match="not the file"):
        Service.open(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_it_listens_beyond_this_machine_only_by_name(settings: Settings, host: str) -> None:
    with pytest.raises(ServingError, match="open-access"):
        servers.serve(replace(settings, host=host), lambda _: pytest.fail("not asked"))


def test_a_port_that_is_taken_says_so(settings: Settings) -> None:
    taken = listen("127.0.0.1", 0)
    taken.listen()
    with taken, pytest.raises(ServingError, match="Can't listen"):
        servers.serve(replace(settings, port=taken.getsockname()[1]), lambda _: pytest.fail("not asked"))


def test_a_gpu_that_can_not_be_used_is_not_claimed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: real(path, options, providers=providers[-1:]),
    )
    made = Service.open(replace(settings, device="auto"))
    assert made.health()["device"] == "cpu"
    made.close()
    with pytest.raises(ServingError, match="CUDA"):
        Service.open(replace(settings, device="cuda"))
