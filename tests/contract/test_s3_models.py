"""S3 where a model is away, comes back, is not there at all, or takes no such face."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.core.bundle import write_bundle
from serving.gateway.store.repositories import predictions
from serving.scan import ACNE
from tests.contract.s3_scans import S3, SELFIE, held_to_contract, user
from tests.gateway_live import live_gateway, photograph, tiny_models
from tests.gateway_scans import BASE, begin, ended, send
from tests.integration.serving.harness import PATIENCE_S, Servers, promote
from tests.profiles import face_bundle

NOWHERE = "http://127.0.0.1:9"


def test_a_model_that_is_away_fails_the_scan_after_a_while(tmp_path: Path) -> None:
    with live_gateway(tmp_path, NOWHERE, **S3, GATEWAY_SCAN_WAIT_S="1") as live, user(live) as app:
        scan_id = begin(app)
        assert send(app, scan_id, SELFIE).status_code == 200
        state = ended(app, scan_id)
        assert (state["status"], state["reason"]["code"]) == ("failed", "model_away")
        assert app.get("/readyz/s3").status_code == 503
        # Without a face nobody has to be asked.
        assert send(app, scan_id, photograph(2)).status_code == 200
        assert ended(app, scan_id)["reason"]["code"] == "no_face"


@pytest.mark.slow
def test_a_scan_waits_for_a_predictor_that_comes_back(tmp_path: Path) -> None:
    tiny_models(tmp_path)
    servers = Servers(tmp_path / "serving", tmp_path / "servers")
    told = {**S3, "GATEWAY_SCAN_WAIT_S": str(PATIENCE_S)}
    with (
        servers.running(),
        live_gateway(tmp_path / "gateway", servers.url, **told) as live,
        user(live) as app,
    ):
        servers.predictor.kill()
        scan_id = begin(app)
        assert send(app, scan_id, SELFIE).status_code == 200
        assert app.get(f"{BASE}/{scan_id}/status").json()["status"] == "processing"
        servers.predictor.start()
        assert ended(app, scan_id)["status"] == "completed"
        held_to_contract(app.get(f"{BASE}/{scan_id}/results").json()["result"], scan_id)


@pytest.mark.slow
def test_a_model_that_there_is_none_of_is_null_and_a_face_too_poor_has_no_result(tmp_path: Path) -> None:
    plain = face_bundle(tmp_path / "acne", ACNE, quality="photo")
    card = dataclasses.replace(plain.card, quality={**plain.card.quality, "min_sharpness": 0.99})
    strict = write_bundle(tmp_path / "strict", card, {name: plain.path(name) for name in card.files})
    promote(tmp_path / "serving", plain, "1")
    servers = Servers(tmp_path / "serving", tmp_path / "servers")
    with servers.running(), live_gateway(tmp_path / "gateway", servers.url, **S3) as live, user(live) as app:
        scan_id = begin(app)
        assert send(app, scan_id, SELFIE).status_code == 200
        assert ended(app, scan_id)["status"] == "completed"
        result = app.get(f"{BASE}/{scan_id}/results").json()["result"]
        assert result["ml_analysis"]["acne_analysis"] is not None
        assert result["ml_analysis"]["condition_analysis"] is None
        assert result["ml_analysis"]["ml_models_used"] == {"acne_model": True, "condition_model": False}
        assert result["confidence"] is None
        # From now on a model whose quality gate takes no such face.
        promote(tmp_path / "serving", strict, "2")
        for _ in range(100):
            scan_id = begin(app)
            assert send(app, scan_id, SELFIE).status_code == 200
            if (state := ended(app, scan_id))["status"] == "failed":
                break
        assert state["reason"]["code"] == "not_gradable"
        assert state["reason"]["details"] == ["blurred"]
        with live.scope() as scope:
            (row,) = predictions.listed(scope, scan_id=scan_id)
            assert (row.verdict, row.reasons, row.answer["heads"]) == ("retake", ["blurred"], {})
