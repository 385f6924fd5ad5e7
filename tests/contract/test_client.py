"""The Python client against a real gateway with real predictors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from data.errors import Conflict, NotAllowed, NotAnImage, NotFound, Overloaded, ServingError, TokenRefused
from serving.gateway.access import Role
from serving.gateway.client import Client, Retries
from tests.gateway_live import Live, live_gateway, photograph
from tests.integration.serving.harness import Servers, get, until

QUICK = Retries(times=2, first_s=0.01, most_s=0.05)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, gateway_models: Servers) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("client")
    with live_gateway(folder, gateway_models.url, GATEWAY_SYSTEMS="v1") as found:
        yield found


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(live.url, live.token(), retries=QUICK) as found:
        yield found


def test_from_photograph_to_trace(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photograph(1))
    patient = client.add_patient("Ada", age=45)
    answer = client.predict(path, "dr_grading", explain=True, patient_id=patient.id)
    assert answer.verdict == "gradable"
    head = answer.heads["grade"]
    assert head.label in head.probabilities
    assert head.confidence == max(head.probabilities.values())
    assert answer.overlay_url is not None
    drawn = get(answer.overlay_url, trust_env=False)
    assert drawn.status_code == 200
    assert drawn.content.startswith(b"\x89PNG")
    assert client.prediction(answer.id).heads == answer.heads
    trace = client.trace(answer.id)
    assert trace["dataset_digest"]
    assert trace["code_digest"]
    assert trace["model"]["bundle_digest"] == answer.model["digest"]
    kept = client.image(answer.image_id)
    assert kept.patient_id == patient.id
    assert get(kept.url, trust_env=False).content == path.read_bytes()


def test_a_kept_image_is_answered_by_another_model(client: Client) -> None:
    image = client.upload(photograph(2))
    assert (image.media_type, image.width) == ("image/jpeg", 320)
    first, second = client.predict_kept(image.id, "acne"), client.predict_kept(image.id, "skin_lesion")
    assert first.image_id == second.image_id == image.id
    assert {first.task, second.task} == {"acne", "skin_lesion"}


def test_models_and_lists(client: Client, live: Live) -> None:
    served: dict[str, Any] = {}

    def told() -> bool:
        # Who doesn't answer within two seconds is not named.
        served.update((model.task, model) for model in client.models())
        return "skin_lesion" in served

    until(told)
    assert served["skin_lesion"].classes["diagnosis"]
    names = {client.add_patient(f"P{n}").id for n in range(3)}
    assert names <= {patient.id for patient in client.patients()}
    with Client(live.url, live.token(Role.REVIEWER), retries=QUICK) as reviewer:
        assert list(reviewer.cases(status="none of these")) == []


def test_what_can_not_be_done_says_so(client: Client, live: Live) -> None:
    with pytest.raises(NotAnImage):
        client.predict(b"no picture", "acne")
    with pytest.raises(NotFound):
        client.predict(photograph(3), "no_such_task")
    with pytest.raises(NotFound, match=r"request [0-9a-f]{32}"):
        client.image("00000000-0000-0000-0000-000000000000")
    with pytest.raises(NotAllowed):
        client.erase("asked", user="x")
    with Client(live.url, "rtk_wrong", retries=QUICK) as stranger, pytest.raises(TokenRefused):
        stranger.models()
    with (
        Client("http://127.0.0.1:9", "x", retries=QUICK) as nowhere,
        pytest.raises(ServingError, match="No answer"),
    ):
        nowhere.models()


def test_a_reviewer_labels_and_an_admin_erases(live: Live, client: Client) -> None:
    patient = client.add_patient("Eve")
    answer = client.predict(photograph(4), "dr_grading", patient_id=patient.id)
    with Client(live.url, live.token(Role.REVIEWER), retries=QUICK) as reviewer:
        label = reviewer.label(answer.image_id, "dr_grading", "grade", value="mild", comment="one spot")
        assert label["value"] == "mild"
    with Client(live.url, live.token(Role.ADMIN), retries=QUICK) as admin:
        report = admin.erase("asked", patient_id=patient.id)
        assert report["finished"]
        assert report["counts"]["labels"] == 1
    with pytest.raises(NotFound):
        client.patient(patient.id)


FIELDS = ("id", "name", "age", "email", "phone", "medical_history")


class Moody(BaseHTTPRequestHandler):
    """Has no time at first; remembers the keys that it was given."""

    keys: ClassVar[list[str]] = []
    busy = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).keys.append(self.headers["idempotency-key"])
        refused = len(self.keys) <= self.busy
        body = b'{"error": {"code": "overloaded", "message": "no time", "request_id": "1"}}'
        if not refused:
            body = json.dumps(dict.fromkeys(FIELDS) | {"id": "1", "name": "Ada"}).encode()
        self.send_response(503 if refused else 201)
        if refused:
            self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("busy", [0, 2, 5])
def test_what_had_no_time_is_sent_again_under_the_same_key(busy: int) -> None:
    handler = type("Handler", (Moody,), {"keys": [], "busy": busy})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}", "x", retries=QUICK) as client:
            if busy > QUICK.times:
                with pytest.raises(Overloaded):
                    client.add_patient("Ada")
            else:
                assert client.add_patient("Ada").name == "Ada"
        assert len(handler.keys) == min(busy, QUICK.times) + 1
        assert len(set(handler.keys)) == 1
    finally:
        server.shutdown()
        server.server_close()


def test_one_key_for_two_requests_is_a_conflict(live: Live) -> None:
    with live.client(live.token(), bearer=True) as raw:
        for name, status in (("Ada", 201), ("Ada", 201), ("Bob", 409)):
            answer = raw.post("/v1/patients", json={"name": name}, headers={"idempotency-key": "k"})
            assert answer.status_code == status
    assert Conflict.code == answer.json()["error"]["code"]
