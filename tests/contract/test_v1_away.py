"""/v1 with nobody behind the address of its models."""

from __future__ import annotations

from pathlib import Path

from serving.gateway.access import Role
from tests.contract.v1_nouns import refused
from tests.gateway_live import form_of, live_gateway, photograph


def test_models_that_are_away_are_a_503(tmp_path: Path) -> None:
    with (
        live_gateway(tmp_path, "http://127.0.0.1:9", GATEWAY_SYSTEMS="v1") as live,
        live.client(live.token(Role.ADMIN)) as client,
    ):
        refused(client.get("/v1/models"), 503, "model_away")
        answer = client.post("/v1/predictions", files=form_of(photograph()), data={"task": "acne"})
        refused(answer, 503, "model_away")
        assert answer.headers["retry-after"]
        # What needs no model goes on, a label of a task that nobody serves just now too.
        image = client.post("/v1/images", files=form_of(photograph())).json()
        label = {"image_id": image["id"], "task": "acne", "head": "acne", "value": "acne"}
        assert client.post("/v1/labels", json=label).status_code == 201
        assert client.get("/readyz").json()["status"] == "ready"
        refused(client.get("/v1/nothing"), 404, "not_found")
        refused(client.put("/v1/patients"), 405, "method_not_allowed")
