"""Contract S3 over HTTP: init → upload → status → results → history, against real processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from serving.gateway.access import Role
from serving.gateway.store.repositories import images, predictions, scans
from serving.scan import BundleModels, FaceScan, analyze_face
from tests.contract.s3_scans import RESULTS, S3, SELFIE, STATE, held_to_contract, moment, refused, user
from tests.faces import portrait
from tests.gateway_live import Live, live_gateway, photograph, tiny_models
from tests.gateway_scans import BASE, begin, ended, send
from tests.gateway_servers import BUCKET, KEY, SECRET, new_database, s3
from tests.integration.serving.harness import Servers, get
from tests.profiles import jpeg, png

BEGUN = ["scan_id", "status", "created_at"]
UPLOADED = ["scan_id", "status", "image_url", "message"]


@pytest.fixture(scope="module")
def live(gateway_models: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """S3 on SQLite and a folder."""
    with live_gateway(tmp_path_factory.mktemp("s3"), gateway_models.url, **S3) as found:
        yield found


@pytest.fixture(scope="module")
def live_on_servers(gateway_models: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """S3 on PostgreSQL and an S3 server."""
    server = s3()
    environment = {
        **S3,
        "DATABASE_URL": new_database(),
        "STORAGE_DIR": f"s3://{BUCKET}/{server.new_prefix()}",
        "GATEWAY_S3_ENDPOINT": server.endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    with live_gateway(tmp_path_factory.mktemp("s3-servers"), gateway_models.url, **environment) as found:
        yield found


@pytest.fixture(params=["sqlite and a folder", "postgresql and s3"])
def each(request: pytest.FixtureRequest) -> Live:
    """On each kind of store."""
    name = "live" if request.param.startswith("sqlite") else "live_on_servers"
    found: Live = request.getfixturevalue(name)
    return found


@pytest.fixture
def app(live: Live) -> Iterator[httpx.Client]:
    with user(live) as client:
        yield client


def test_the_story(each: Live) -> None:
    """Begin, send a selfie, wait, read; the photograph is where its address says, the answers are traced."""
    with user(each) as app:
        answer = app.post(f"{BASE}/init")
        assert answer.status_code == 201
        begun = answer.json()
        assert list(begun) == BEGUN
        assert begun["status"] == "pending"
        scan_id = begun["scan_id"]
        assert str(uuid.UUID(scan_id)) == scan_id

        state = app.get(f"{BASE}/{scan_id}/status").json()
        assert list(state) == STATE
        assert (state["scan_id"], state["status"]) == (scan_id, "pending")
        assert moment(state["created_at"]) == moment(begun["created_at"])
        early = app.get(f"{BASE}/{scan_id}/results")
        assert early.status_code == 400
        assert early.json() == {
            "detail": "The scan is pending: there is no result yet.",
            "status": "pending",
        }

        answer = send(app, scan_id, SELFIE)
        assert answer.status_code == 200, answer.text
        uploaded = answer.json()
        assert list(uploaded) == UPLOADED
        assert (uploaded["scan_id"], uploaded["status"]) == (scan_id, "processing")
        # The address alone is enough, and gives what was sent.
        picture = get(uploaded["image_url"], trust_env=False)
        assert picture.content == SELFIE
        assert picture.headers["content-type"] == "image/jpeg"

        state = ended(app, scan_id)
        assert list(state) == STATE
        assert state["status"] == "completed"
        assert moment(state["updated_at"]) > moment(state["created_at"])

        answer = app.get(f"{BASE}/{scan_id}/results")
        assert answer.status_code == 200, answer.text
        results = answer.json()
        assert list(results) == RESULTS
        assert {key: results[key] for key in STATE} == state
        held_to_contract(results["result"], scan_id)
        assert app.get(f"{BASE}/history").json() == {"scans": [state]}

    with each.scope() as scope:
        scan = scans.get(scope, scan_id)
        rows = predictions.listed(scope, scan_id=scan_id)
        assert {row.task for row in rows} == {"acne", "skin_condition"}
        assert {row.image_id for row in rows} == {scan.image_id}
        for row in rows:
            trace = predictions.trace(scope, row.id)
            assert trace["model"]["bundle_digest"].startswith("sha256:")
            assert trace["image"]["sha256"] == images.get(scope, row.image_id).sha256


def test_the_result_is_what_the_python_call_gives(
    app: httpx.Client, tmp_path: Path, shared_data: Path
) -> None:
    """On a real face, with the same bundles in this process."""
    tiny_models(tmp_path)
    here = BundleModels.open(
        tmp_path / "bundles" / "acne", tmp_path / "bundles" / "skin_condition", threads=1
    )
    for path in sorted((shared_data / "faces").glob("*.*")):
        data = path.read_bytes()
        found = analyze_face(data, here) if path.suffix in (".jpg", ".jpeg", ".png") else None
        if isinstance(found, FaceScan):
            break
    else:
        raise AssertionError("no photograph that is answered for")
    scan_id = begin(app)
    assert send(app, scan_id, data).status_code == 200
    assert ended(app, scan_id)["status"] == "completed"
    result = app.get(f"{BASE}/{scan_id}/results").json()["result"]
    held_to_contract(result, scan_id)
    wanted = found.to_dict(scan_id)
    assert result["cv_analysis"] == wanted["cv_analysis"]
    for part in ("acne_analysis", "condition_analysis"):
        said, expected = result["ml_analysis"][part], wanted["ml_analysis"][part]
        assert said["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


@pytest.mark.parametrize(
    "encode",
    [jpeg, png, lambda rgb: bytes(cv2.imencode(".webp", rgb[..., ::-1])[1])],
    ids=["jpeg", "png", "webp"],
)
def test_each_format_as_a_form_and_as_itself(
    app: httpx.Client, encode: Callable[[np.ndarray], bytes]
) -> None:
    data = encode(portrait(320))
    by_form, by_body = begin(app), begin(app)
    assert send(app, by_form, data).status_code == 200
    raw = app.post(f"{BASE}/{by_body}/upload", content=data, headers={"content-type": "image/webp"})
    assert raw.status_code == 200
    assert ended(app, by_form)["status"] == ended(app, by_body)["status"] == "completed"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"not an image at all", "not a JPEG"),
        (photograph(1, kind=".bmp"), "JPEG, PNG and WebP"),
        (photograph(1, kind=".tiff"), "JPEG, PNG and WebP"),
        (SELFIE[: len(SELFIE) // 2], "damaged"),
        (SELFIE + bytes(5 * 2**20), "the limit is 5,242,880"),
        (bytes(30 * 2**20), "more than"),
    ],
    ids=["empty", "text", "bmp", "tiff", "cut", "over 5 MB", "over the body's limit"],
)
def test_400_for_a_file_that_is_not_taken(app: httpx.Client, data: bytes, says: str) -> None:
    scan_id = begin(app)
    assert says in refused(send(app, scan_id, data), 400)
    assert app.get(f"{BASE}/{scan_id}/status").json()["status"] == "pending"


def test_5_mb_are_taken(app: httpx.Client) -> None:
    scan_id = begin(app)
    assert send(app, scan_id, SELFIE + bytes(5 * 2**20 - len(SELFIE))).status_code == 200
    assert ended(app, scan_id)["status"] == "completed"


def test_400_without_a_file(app: httpx.Client) -> None:
    scan_id = begin(app)
    refused(app.post(f"{BASE}/{scan_id}/upload"), 400)
    refused(app.post(f"{BASE}/{scan_id}/upload", json={}), 400)
    refused(app.post(f"{BASE}/{scan_id}/upload", files={"photo": ("a", SELFIE, "image/jpeg")}), 400)


ROUTES: dict[str, Callable[[httpx.Client, str], httpx.Response]] = {
    "upload": lambda client, scan_id: send(client, scan_id, SELFIE),
    "status": lambda client, scan_id: client.get(f"{BASE}/{scan_id}/status"),
    "results": lambda client, scan_id: client.get(f"{BASE}/{scan_id}/results"),
}


@pytest.mark.parametrize("route", ROUTES)
def test_whose_scan_it_is(live: Live, gateway_models: Servers, route: str) -> None:
    ask = ROUTES[route]
    with (
        user(live, "mine") as mine,
        user(live, "mine") as mine_too,
        user(live, "another") as another,
        user(live, "admin", role=Role.ADMIN) as admin,
        user(live, "mine", tenant="elsewhere") as elsewhere,
    ):
        scan_id = begin(mine)
        for word in ("7", "not-a-uuid", "0" * 36, scan_id[:-1], f"{scan_id}0", "%00", "7" * 3000):
            refused(ask(mine, word), 400)
        refused(ask(mine, str(uuid.uuid4())), 404)
        refused(ask(elsewhere, scan_id), 404)
        refused(ask(another, scan_id), 403)
        # Its owner's, and nobody else's.
        refused(ask(admin, scan_id), 403)
        assert ask(mine_too, scan_id.upper()).json()["scan_id" if route != "results" else "status"]
        with live.scope() as scope:
            other = scans.add(scope, system="s2", owner="mine").id
        refused(ask(mine, other), 404)


@pytest.mark.parametrize("route", ["init", "history", *ROUTES])
def test_bearer_tokens_only(live: Live, route: str) -> None:
    def ask(client: httpx.Client) -> httpx.Response:
        if route == "init":
            return client.post(f"{BASE}/init")
        if route == "history":
            return client.get(f"{BASE}/history")
        return ROUTES[route](client, str(uuid.uuid4()))

    key, bearer = live.token(), live.token(kind="bearer")
    with live.client() as nobody, live.client(key) as by_key, live.client(key, bearer=True) as wrong:
        for client in (nobody, by_key, wrong):
            answer = ask(client)
            refused(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
    with live.client(bearer) as misplaced:
        refused(ask(misplaced), 401)
    with user(live, role=Role.REVIEWER) as reviewer:
        refused(ask(reviewer), 403)


def crowd() -> bytes:
    return jpeg(np.hstack([portrait(400), portrait(400, seed=1)]))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (photograph(2), "no_face"),
        (crowd(), "several_faces"),
        (png((portrait(480) * 0.08).astype(np.uint8)), "too_dark"),
    ],
    ids=["none", "several", "dark"],
)
def test_a_failure_is_typed_and_the_scan_can_be_tried_again(
    app: httpx.Client, data: bytes, code: str
) -> None:
    scan_id = begin(app)
    assert send(app, scan_id, data).status_code == 200
    state = ended(app, scan_id)
    assert list(state) == [*STATE, "reason"]
    assert (state["status"], state["reason"]["code"]) == ("failed", code)
    assert state["reason"]["message"].endswith(".")
    answer = app.get(f"{BASE}/{scan_id}/results")
    assert answer.status_code == 400
    # Why, and nothing that could be taken for a result.
    assert answer.json() == {
        "detail": f"The scan failed: {state['reason']['message']}",
        "status": "failed",
        "reason": state["reason"],
    }
    assert send(app, scan_id, SELFIE).status_code == 200
    assert ended(app, scan_id)["status"] == "completed"
    again = send(app, scan_id, SELFIE)
    assert "completed" in refused(again, 400)


def test_one_upload_of_two_at_once_is_taken(app: httpx.Client) -> None:
    scan_id = begin(app)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: send(app, scan_id, jpeg(portrait(320, seed=n))), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400, 400]
    assert ended(app, scan_id)["status"] == "completed"


def test_the_same_key_is_answered_once(app: httpx.Client, live: Live) -> None:
    def headers() -> dict[str, str]:
        return {"idempotency-key": str(uuid.uuid4())}

    key = headers()
    first, again = (app.post(f"{BASE}/init", headers=key) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    scan_id = first.json()["scan_id"]
    key = headers()
    first, again = (send(app, scan_id, SELFIE, headers=key) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    ended(app, scan_id)
    assert send(app, scan_id, SELFIE, headers=key).json() == first.json()
    refused(send(app, scan_id, jpeg(portrait(320)), headers=key), 409)
    with live.scope() as scope:
        assert len(predictions.listed(scope, scan_id=scan_id)) == 2


def test_history_is_ones_own_newest_first(live: Live) -> None:
    with user(live) as mine, user(live) as another:
        assert mine.get(f"{BASE}/history").json() == {"scans": []}
        ids = [begin(mine) for _ in range(3)]
        begin(another)
        found = mine.get(f"{BASE}/history").json()["scans"]
        assert [scan["scan_id"] for scan in found] == ids[::-1]
        assert all(list(scan) == STATE for scan in found)
        part = mine.get(f"{BASE}/history", params={"skip": 1, "limit": 1}).json()["scans"]
        assert [scan["scan_id"] for scan in part] == [ids[1]]
        assert mine.get(f"{BASE}/history", params={"limit": 0}).status_code == 422
