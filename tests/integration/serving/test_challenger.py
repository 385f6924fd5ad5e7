"""A challenger beside its champion: hot, under a name of its own, and gone without a lost request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from data.preprocess import Preprocessing
from serving.client import ask as ask_by_client
from serving.core.bundle import Bundle
from serving.core.challenger import challenger_file, remove_challenger
from tests.bundles import tiny_bundle
from tests.integration.serving import pictures
from tests.integration.serving.harness import WIRES, Reply, Servers, ask, challenge, promote
from tests.integration.serving.test_life import until

TASK, BESIDE = "dr_grading", "dr_grading-challenger"
GOOD = pictures.file(pictures.sharp(), "jpeg")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    base = tmp_path_factory.mktemp("versions")
    other = Preprocessing(size=(64, 64), fit="letterbox")
    changed = {"preprocessing": other.to_dict(), "preprocessing_digest": other.digest}
    return {
        "1": tiny_bundle(base / "1", quality="photo", seed=1),
        "2": tiny_bundle(base / "2", quality="photo", seed=2, **changed),
        "3": tiny_bundle(base / "3", quality="photo", seed=3),
    }


@pytest.fixture
def living(versions: dict[str, Bundle], tmp_path: Path) -> Iterator[Servers]:
    root = tmp_path / "root"
    promote(root, versions["1"], "1")
    linger = ("--linger-s", "1.5")
    servers = Servers(
        root, root / "servers", poll_s=0.05, predictor_options=linger, transformer_options=linger
    )
    with servers.running() as running:
        yield running


def metadata(servers: Servers, name: str = BESIDE, *, url: str | None = None) -> dict[str, Any]:
    response = httpx.get(f"{url or servers.url}/v2/models/{name}")
    return response.json() if response.status_code == 200 else {}


def mode(servers: Servers) -> tuple[Any, Any]:
    told = metadata(servers).get("parameters", {})
    return told.get("mode"), told.get("share")


def loads(servers: Servers) -> float:
    """How often the predictor loaded something as the challenger."""
    text = httpx.get(f"{servers.predictor_url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("retiderm_swaps_total{")]
    return sum(float(line.split()[-1]) for line in lines if f'model="{BESIDE}",outcome="served"' in line)


def version(reply: Reply) -> str:
    return str(reply.documents[0]["model"]["version"])


def test_from_shadow_to_a_share_to_champion(living: Servers, versions: dict[str, Bundle]) -> None:
    assert metadata(living) == {}
    assert ask(living, "v2 json", [GOOD], task=BESIDE).status == 404
    challenge(living.root, versions["2"], "2", "shadow")
    until(lambda: mode(living)[0] not in (None, "starting"))
    assert mode(living) == ("shadow", 0.0)
    assert "mode" not in metadata(living, TASK)["parameters"]
    # Each under its own name, over each wire, prepared each in its own way.
    for wire in WIRES:
        champion, beside = ask(living, wire, [GOOD]), ask(living, wire, [GOOD], task=BESIDE)
        assert champion.documents[0]["model"]["digest"] == versions["1"].digest
        told = beside.documents[0]["model"]
        assert (told["name"], told["version"], told["digest"]) == (BESIDE, "2", versions["2"].digest)
    origin = ask_by_client(living.url, BESIDE, [GOOD], features=True).origin
    assert (origin["task"], origin["model_name"], origin["model_version"]) == (TASK, BESIDE, "2")
    # Another share is another line of the file, and no load.
    assert loads(living) == 1
    challenge(living.root, versions["2"], "2", "share", 0.25)
    until(lambda: mode(living) == ("share", 0.25))
    assert loads(living) == 1
    # Promoted: the model that is there already takes over, and the challenger's name goes.
    promote(living.root, versions["2"], "2")
    remove_challenger(living.root, TASK)
    until(lambda: version(ask(living, "v2 binary", [GOOD])) == "2")
    until(lambda: metadata(living) == {})
    until(lambda: metadata(living, url=living.predictor_url) == {})
    assert ask(living, "grpc", [GOOD], task=BESIDE).status == "NOT_FOUND"
    assert version(ask(living, "grpc", [GOOD])) == "2"
    assert f'model="{BESIDE}",precision' not in httpx.get(f"{living.predictor_url}/metrics").text


def test_a_withdrawn_one_says_so_before_it_goes(living: Servers, versions: dict[str, Bundle]) -> None:
    challenge(living.root, versions["3"], "3", "share", 0.1)
    until(lambda: ask(living, "v2 json", [GOOD], task=BESIDE).ok)
    seen: list[tuple[Any, Any]] = []
    remove_challenger(living.root, TASK)
    while not seen or seen[-1] != (None, None):
        now = mode(living)
        if not seen or seen[-1] != now:
            seen.append(now)
        if now[0] == "withdrawn":
            # Who didn't look yet is answered.
            reply = ask(living, "v2 json", [GOOD], task=BESIDE)
            assert reply.ok or mode(living) == (None, None), reply
    assert ("withdrawn", 0.0) in seen
    assert version(ask(living, "v1", [GOOD])) == "1"


def test_a_gateway_that_looks_loses_no_request(living: Servers, versions: dict[str, Bundle]) -> None:
    """Half of the requests go to a challenger that comes, is replaced, and goes; the champion changes too."""
    stop, beside = threading.Event(), Counter[str]()

    def keep_asking(wire: str) -> list[tuple[str, Reply]]:
        replies, turn, looked = [], 0, -1.0
        while not stop.is_set():
            turn += 1
            # It looks now and then, not for each request: what it knows is old.
            if time.monotonic() - looked > 0.3:
                share, looked = mode(living)[1], time.monotonic()
            name = BESIDE if share and turn % 2 else TASK
            replies.append((name, ask(living, wire, [GOOD], task=name)))
            if name == BESIDE and replies[-1][1].ok:
                beside[version(replies[-1][1])] += 1
        return replies

    with ThreadPoolExecutor(len(WIRES)) as pool:
        asking = [pool.submit(keep_asking, wire) for wire in ("v1", "v2 binary", "grpc")]
        for name in ("2", "3"):
            challenge(living.root, versions[name], name, "share", 0.5)
            until(lambda name=name: beside[name] > 5)  # type: ignore[misc]
        promote(living.root, versions["3"], "3")
        remove_challenger(living.root, TASK)
        until(lambda: metadata(living) == {})
        promote(living.root, versions["1"], "1")
        until(lambda: version(ask(living, "v2 binary", [GOOD])) == "1")
        stop.set()
        replies = [reply for future in asking for reply in future.result()]
    assert set(Counter(reply.status for _, reply in replies)) == {200, "OK"}
    assert {name for name, _ in replies} == {TASK, BESIDE}
    for name, reply in replies:
        model = reply.documents[0]["model"]
        assert model["name"] == name
        assert model["digest"] == versions[model["version"]].digest


def test_a_bad_challenger_never_answers_and_leaves_the_champion_alone(
    living: Servers, versions: dict[str, Bundle]
) -> None:
    challenge(living.root, versions["3"], "3", "shadow")
    folder = next((living.root / TASK / "versions").glob("3-*"))
    until(lambda: ask(living, "v2 json", [GOOD], task=BESIDE).ok)
    remove_challenger(living.root, TASK)
    until(lambda: metadata(living, url=living.predictor_url) == {})
    model = folder / "model.onnx"
    altered = bytearray(model.read_bytes())
    altered[len(altered) // 2] ^= 1
    model.write_bytes(altered)
    challenge(living.root, versions["3"], "3", "shadow")
    until(lambda: f"{BESIDE} version 3 may not serve" in living.predictor.log.read_text())
    # The two look each in its own time: the transformer may hear of it after the predictor has refused it.
    until(lambda: metadata(living) != {})
    assert mode(living) == ("starting", 0.0)
    assert ask(living, "v2 json", [GOOD], task=BESIDE).status == 503
    assert httpx.get(f"{living.url}/v2/models/{BESIDE}/ready").status_code == 503
    for wire in WIRES:
        assert version(ask(living, wire, [GOOD])) == "1"
    challenger_file(living.root, TASK).write_text("{")
    assert httpx.get(f"{living.url}/v2/health/ready").status_code == 200
