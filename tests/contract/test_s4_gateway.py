"""Contract S4 through the gateway: the same story behind tokens, in this process and at another address."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.gateway.access import Role
from tests.contract import s4_files
from tests.contract.s4_server import ROI, ROLE, S4Server, ng_pixels, ok_images, png
from tests.extractors import tiny_extractor
from tests.gateway_live import Live, live_gateway
from tests.integration.serving.harness import PATIENCE_S, free_port, until

NO_MODELS = "http://127.0.0.1:9"


@dataclass
class Through:
    """S4's clients, asking a gateway. ``s4`` has the files; its own process runs only behind a remote one."""

    s4: S4Server
    live: Live

    def alone(self, tenant: str = "default", **options: str) -> S4Server:
        """The client's calls, with a new token of an app."""
        found = S4Server.__new__(S4Server)
        found.client = self.live.client(self.live.token(tenant=tenant, **options))
        return found


@contextlib.contextmanager
def local(folder: Path, **environment: str) -> Iterator[Through]:
    s4 = S4Server(folder / "s4")
    told = {
        "GATEWAY_SYSTEMS": "s4",
        "MODELS_DIR": str(s4.models),
        "PATCHCORE_EXTRACTOR": str(s4.extractor),
        "PATCHCORE_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    with live_gateway(folder / "gateway", NO_MODELS, **told) as live:
        wait_ready(live)
        yield Through(s4, live)


@contextlib.contextmanager
def remote(folder: Path, **environment: str) -> Iterator[Through]:
    with S4Server(folder / "s4").running() as s4:
        told = {"GATEWAY_SYSTEMS": "s4", "GATEWAY_ANOMALY_URL": str(s4.client.base_url), **environment}
        with live_gateway(folder / "gateway", NO_MODELS, **told) as live:
            yield Through(s4, live)


def wait_ready(live: Live) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with live.client() as client:
        while client.get("/readyz/s4").status_code != 200:
            assert time.monotonic() < deadline, (live.folder / "gateway.log").read_text()[-2000:]
            time.sleep(0.02)


@pytest.fixture(scope="module", params=["local", "remote"])
def through(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    opened = {"local": local, "remote": remote}[request.param]
    with opened(tmp_path_factory.mktemp(f"s4-{request.param}")) as found:
        yield found


@pytest.fixture
def client(through: Through) -> Iterator[S4Server]:
    found = through.alone()
    with found.client:
        yield found


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """An error in S4's shape, whose trace is a reference."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "trace"}
    assert words in body["error"]
    assert re.fullmatch(r"[0-9A-Za-z._-]{8,64}", body["trace"])


def test_health_is_the_contracts_and_public(through: Through) -> None:
    with through.live.client() as nobody:
        answer = nobody.get("/health")
        assert answer.status_code == 200
        assert set(answer.json()) == {"status", "device", "model", "version"}
        assert answer.json()["model"] == through.s4.card.backbone
        assert nobody.head("/health").status_code == 200
        assert nobody.get("/s4/health").json() == answer.json()
        # One that needs more than two seconds to say so counts as away, and for the next second.
        until(lambda: nobody.get("/readyz").json()["systems"] == {"s4": True})


def test_the_whole_story(through: Through, client: S4Server) -> None:
    fitted = client.fit(ok_images(6))
    assert fitted.status_code == 200, fitted.text
    assert fitted.json() == {
        "n_embeddings": 384,
        "coreset_size": 8,
        "token_shape": [8, 8],
        "coreset_rate_requested": 0.02,
        "coreset_rate_applied": pytest.approx(8 / 384),
    }
    assert fitted.headers["x-request-id"]
    assert fitted.headers["x-content-type-options"] == "nosniff"
    marked = png(ng_pixels(100, left=70, top=8))
    before = client.infer(marked).json()
    assert before["threshold"] is None
    assert before["regions"] == []
    ok = [client.infer(image).json()["score"] for image in ok_images(5, start=50)]
    calibrated = client.calibrate(ok, [before["score"]])
    assert calibrated.status_code == 200
    assert calibrated.json()["threshold"] == pytest.approx((np.percentile(ok, 99) + before["score"]) / 2)
    found = client.infer(marked, mm_per_px=0.5).json()
    assert set(found) == {
        "role_id", "roi_id", "score", "threshold", "heatmap_png_base64", "regions", "token_shape", "params",
    }  # fmt: skip
    assert found["threshold"] == pytest.approx(calibrated.json()["threshold"])
    assert found["regions"][0]["area_mm2"] == pytest.approx(found["regions"][0]["area_px"] * 0.25)
    masked = client.infer(marked, shape={"kind": "rect", "x": 0, "y": 0, "w": 40, "h": 64}).json()
    assert masked["score"] < found["score"]
    # The gateway's own tenant has the folder that an older service's files are in.
    stored = s4_files.read_roi(through.s4.models, ROLE, ROI)
    assert stored["calib"] == calibrated.json()
    assert len(stored["emb"]) == 8


def test_its_errors_keep_their_shape_and_words(client: S4Server) -> None:
    refused(client.infer(png(ng_pixels(1, 1, 1)), roi="never"), 400, "never")
    refused(client.infer(b"no image", roi=ROI), 400, "")
    refused(client.infer(ok_images(1)[0], role="../../etc"), 400, "path-safe")
    refused(client.calibrate([], roi="never"), 400, "OK score")
    refused(client.client.post("/calibrate_ng", content=b"{"), 400, "")
    refused(client.client.post("/infer", json={}), 400, "multipart/form-data")
    refused(client.client.get("/nothing"), 404, "")
    refused(client.client.get("/infer"), 405, "")
    for answer in (client.infer(b"x"), client.client.get("/s4/nothing")):
        assert "/tmp" not in answer.text


def test_its_doors_are_the_gateways(through: Through) -> None:
    live = through.live
    images = ok_images(2)
    for token in (None, "rtk_0123456789abcdef_" + "A" * 43, "x"):
        someone = S4Server.__new__(S4Server)
        with live.client(token) as someone.client:
            refused(someone.fit(images), 401, "token")
            refused(someone.infer(images[0]), 401, "token")
            refused(someone.calibrate([0.1]), 401, "token")
    with through.alone(role=Role.REVIEWER).client as reviewer:
        refused(reviewer.post("/infer"), 403, "role")
    bearer = live.token(Role.ADMIN, kind="bearer")
    with live.client(bearer, bearer=True) as admin:
        refused(admin.post("/infer", json={}), 400, "multipart/form-data")


def test_a_large_body_without_a_token_still_gets_its_401(through: Through) -> None:
    someone = S4Server.__new__(S4Server)
    big = [png(np.random.default_rng(n).integers(0, 256, (700, 700, 3), dtype=np.uint8)) for n in range(8)]
    with through.live.client("no-token") as someone.client:
        refused(someone.fit(big), 401, "token")


def test_another_tenants_memories_are_not_seen(through: Through, client: S4Server) -> None:
    assert client.fit(ok_images(2), roi="ours").status_code == 200
    other = through.alone(tenant="clinic-b")
    with other.client:
        if through.s4.process is not None:
            # One service, one tenant's: the others are kept out.
            refused(other.infer(ok_images(1)[0], roi="ours"), 403, "another tenant's")
            refused(other.fit(ok_images(2), roi="ours"), 403, "another tenant's")
            return
        refused(other.infer(ok_images(1)[0], roi="ours"), 400, "ours")
        assert other.fit(ok_images(3), roi="theirs").json()["n_embeddings"] == 192
        assert other.infer(ok_images(1)[0], roi="theirs").status_code == 200
    refused(client.infer(ok_images(1)[0], roi="theirs"), 400, "theirs")
    # Not by a role that looks like the folder, either.
    refused(client.infer(ok_images(1)[0], role=".tenants", roi="theirs"), 400, "path-safe")


def test_its_limits_are_its_own_and_it_is_open_where_that_was_switched_on(tmp_path: Path) -> None:
    told = {
        "GATEWAY_REQUEST_S": "1",
        "GATEWAY_MAX_BODY_BYTES": "1000",
        "PATCHCORE_MAX_IMAGES": "20",
        "GATEWAY_OPEN_ACCESS": "s4",
    }
    with local(tmp_path, **told) as through:
        client = through.alone()
        with client.client:
            refused(client.fit(ok_images(21)), 413, "20 files")
            request = client.client.build_request(
                "POST",
                "/fit_ok",
                data={"role_id": ROLE, "roi_id": ROI, "mm_per_px": "0.2"},
                files=[("images", ("ok.png", image, "image/png")) for image in ok_images(2)],
            )
            body = request.read()

            def slowly() -> Iterator[bytes]:
                # Longer than other bodies may take, and than other requests may altogether.
                yield body[:2000]
                time.sleep(2.5)
                yield body[2000:]

            headers = {"content-type": request.headers["content-type"]}
            answer = client.client.post("/fit_ok", content=slowly(), headers=headers)
            assert answer.status_code == 200, answer.text
        nobody = S4Server.__new__(S4Server)
        with through.live.client() as nobody.client:
            assert nobody.infer(ok_images(1)[0]).status_code == 200
            elsewhere = nobody.client.post("/infer", headers={"origin": "https://elsewhere.example"})
            refused(elsewhere, 403, "elsewhere")


@pytest.mark.slow
def test_without_an_extractor_only_s4_is_unready(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    told = {"GATEWAY_SYSTEMS": "s4,s0", "PATCHCORE_EXTRACTOR": str(folder), "GATEWAY_DEBUG": "1"}
    with live_gateway(tmp_path / "gateway", NO_MODELS, **told) as live:
        token = live.token()
        with live.client(token) as client:
            for answer in (client.get("/s4/health"), client.post("/infer"), client.post("/fit_ok")):
                refused(answer, 503, "no extractor")
                assert int(answer.headers["retry-after"]) >= 1
                assert str(tmp_path) not in answer.text
            assert client.get("/readyz/s4").status_code == 503
            assert client.get("/readyz").json()["systems"]["s4"] is False
            assert client.get("/s0/health").status_code == 200
            # Made later, it is found without a restart.
            tiny_extractor(folder)
            until(lambda: client.get("/s4/health").status_code == 200)


def test_a_service_that_is_away_is_a_503(tmp_path: Path) -> None:
    told = {"GATEWAY_SYSTEMS": "s4", "GATEWAY_ANOMALY_URL": f"http://127.0.0.1:{free_port()}"}
    with live_gateway(tmp_path / "gateway", NO_MODELS, **told) as live:
        client = S4Server.__new__(S4Server)
        with live.client(live.token()) as client.client:
            answer = client.infer(ok_images(1)[0])
            refused(answer, 503, "can't be reached")
            assert answer.headers["retry-after"]
            refused(client.client.get("/health"), 503, "can't be reached")
            assert client.client.get("/readyz").json() == {
                "status": "degraded", "store": True, "systems": {"s4": False},
            }  # fmt: skip
        log = (live.folder / "gateway.log").read_text()
        assert "Traceback" not in log


def test_the_document_says_what_s4_takes_and_gives(through: Through) -> None:
    with through.live.client() as client:
        document = client.get("/openapi.json").json()
    for path in ("/fit_ok", "/calibrate_ng", "/infer"):
        said = document["paths"][path]["post"]
        assert said["security"] == [{"apiKey": []}, {"bearer": []}]
        assert {"200", "400", "401", "403", "429", "503"} <= set(said["responses"])
        schema = said["responses"]["401"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/TraceError"}
    assert "security" not in document["paths"]["/health"]["get"]
    assert "nullable" not in json.dumps(document)
