"""Refused photographs are in a window, by whichever surface they came; nothing else of them is kept."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.core.drift import Window, WindowInfo, read_window
from serving.gateway.access import Role
from serving.gateway.store.repositories import predictions
from serving.gateway.store.tables import Glance, Image
from tests.gateway_live import Live, form_of, live_gateway, live_models, photograph

SHARP, BLURRED = photograph(1), photograph(2, blurred=True)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("drift")
    told = {
        "GATEWAY_SERVING_ROOT": str(folder / "models" / "serving"),
        "GATEWAY_SYSTEMS": "s0,s1,s2,v1,review",
        "GATEWAY_REGISTRY_COMMAND": "-",
        # What S0 itself takes for blurred: everything.
        "BLUR_THRESHOLD": "1000000000",
    }
    with (
        live_models(folder / "models") as servers,
        live_gateway(folder / "gateway", servers.url, **told) as gateway,
    ):
        yield gateway


@pytest.fixture
def app(live: Live) -> Iterator[httpx.Client]:
    with live.client(live.token()) as client:
        yield client


def window_of(live: Live, task: str, folder: Path, which: str = "newest") -> tuple[Window, WindowInfo]:
    with live.client(live.token(Role.REVIEWER), bearer=True) as reader:
        sent = reader.get(f"/v1/review/drift/window/{task}", params={"which": which})
    assert sent.status_code == 200, sent.text
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        archive.extractall(folder / which)
    return read_window(folder / which)


def told(given: Window) -> tuple[list[bool], list[bool]]:
    """Of each image whether it was let through, and whether an answer of it is kept."""
    assert given.gradable is not None
    assert given.sharpness is not None
    assert given.exposure is not None
    assert not np.isnan(given.sharpness).any()
    assert not np.isnan(given.exposure).any()
    answered = ~np.isnan(next(iter(given.probabilities.values()))).any(axis=1)
    return given.gradable.tolist(), answered.tolist()


def kept(live: Live) -> tuple[int, int]:
    """Images and answers."""
    with live.scope() as scope:
        return scope.session.query(Image).count(), len(predictions.listed(scope, limit=1000))


def test_s2_refuses_and_counts(live: Live, app: httpx.Client, tmp_path: Path) -> None:
    patient = app.post("/patients/", json={"name": "Ada"}).json()["id"]
    about = {"patient_id": patient, "visit_type": "follow-up"}
    assert app.post("/predict/", files=form_of(SHARP), params=about).status_code == 200
    before = kept(live)
    assert app.post("/predict/", files=form_of(BLURRED), params=about).status_code == 400
    assert kept(live) == before
    asked = app.post("/v1/predictions", files=form_of(BLURRED), params={"task": "dr_grading"})
    assert asked.status_code == 201, asked.text
    given, info = window_of(live, "dr_grading", tmp_path)
    assert told(given) == ([True, False, False], [True, False, False])
    assert info.version == "1"
    with live.scope() as scope:
        (row,) = scope.session.query(Glance).filter(Glance.task == "dr_grading")
        assert row.verdict != "gradable"


def test_s1_refuses_and_counts(live: Live, app: httpx.Client, tmp_path: Path) -> None:
    assert app.post("/api/v1/analyze/image", files=form_of(SHARP)).status_code == 200
    before = kept(live)
    assert app.post("/api/v1/analyze/image", files=form_of(BLURRED)).status_code >= 400
    assert kept(live) == before
    assert told(window_of(live, "skin_profile", tmp_path)[0]) == ([True, False], [True, False])


def test_s0_counts_what_it_takes_for_blurred_itself(live: Live, app: httpx.Client, tmp_path: Path) -> None:
    for data in (SHARP, BLURRED):
        sent = app.post("/check-image", files=form_of(data))
        assert sent.json()["status"] == "fail", sent.text
    # The model found the first one sharp enough; its answer went to nobody.
    for task in ("skin_lesion", "acne"):
        assert told(window_of(live, task, tmp_path / task)[0]) == ([True, False], [False, False])


def test_each_window_can_be_asked_for_by_readers_alone(live: Live, app: httpx.Client, tmp_path: Path) -> None:
    given, info = window_of(live, "acne", tmp_path, "labels")
    assert (given.images, info.source) == (0, "gateway, labels")
    assert app.get("/v1/review/drift/window/acne").status_code == 403
    with live.client(live.token(Role.REVIEWER), bearer=True) as reader:
        assert reader.get("/v1/review/drift/window/acne", params={"which": "x"}).status_code == 422
        # These models have no reference, and there is no command that could make a page.
        assert reader.get("/review/api/drift/acne").status_code == 200
        found = reader.get("/review/api/drift/acne/page")
        assert (found.status_code, found.json()["error"]["code"]) == (503, "registry_away")
