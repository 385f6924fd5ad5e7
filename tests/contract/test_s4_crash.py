"""Contract S4 under concurrency, restarts and kill -9: one generation or the next, never half of one."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.contract import s4_files
from tests.contract.s4_server import ROLE, S4Server, ng_pixels, ok_images, ok_pixels, png, slow_fit
from tests.integration.serving.harness import PATIENCE_S, until

MARKED = png(ng_pixels(1, left=30, top=20))


def test_fits_of_one_region_are_serialised(s4: S4Server) -> None:
    roi = "Serial"
    sets = [ok_images(count, start=40) for count in (2, 3, 4, 5)]
    alone = {}
    for images in sets:
        assert s4.fit(images, roi="Alone").status_code == 200
        alone[len(images)] = s4_files.read_roi(s4.models, ROLE, "Alone")["emb"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda images: s4.fit(images, roi=roi), sets))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json()["n_embeddings"] for answer in answers] == [64 * n for n in (2, 3, 4, 5)]
    stored = s4_files.read_roi(s4.models, ROLE, roi)
    # One of the four, whole: memory, index and metadata of the same fit.
    count = stored["metadata"]["count_images"]
    assert np.array_equal(stored["emb"], alone[count])
    assert np.array_equal(stored["index"].reconstruct_n(0, stored["index"].ntotal), alone[count])


def test_incremental_fits_at_once_lose_nothing(s4: S4Server) -> None:
    roi = "Joining"
    assert s4.fit(ok_images(2), roi=roi).status_code == 200
    with ThreadPoolExecutor(4) as pool:
        joined = list(
            pool.map(lambda n: s4.fit(ok_images(1, start=60 + n), roi=roi, incremental="true"), range(4))
        )
    assert [answer.status_code for answer in joined] == [200] * 4
    assert sorted(answer.json()["n_embeddings"] for answer in joined) == [64 * n for n in (3, 4, 5, 6)]
    assert s4_files.read_roi(s4.models, ROLE, roi)["metadata"]["count_images"] == 6


def test_readers_never_see_half_a_memory(s4: S4Server) -> None:
    """A plain reader of the files and a client, both asking without a pause while the region is refitted."""
    roi = "Read"
    sets = [ok_images(count, start=70) for count in (1, 6)]
    sizes = set()
    for images in sets:
        sizes.add(s4.fit(images, roi=roi).json()["coreset_size"])
    stop = threading.Event()
    seen: list[int] = []
    answers: list[int] = []
    failures: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                found = s4_files.read_roi(s4.models, ROLE, roi)
                seen.append(len(found["emb"]))
                assert np.allclose(np.linalg.norm(found["emb"], axis=1), 1, atol=1e-5)
                assert found["index"] is not None
            except Exception as error:
                failures.append(repr(error))

    def ask() -> None:
        with httpx.Client(base_url=s4.client.base_url, timeout=PATIENCE_S) as client:
            while not stop.is_set():
                answer = client.post(
                    "/infer",
                    data={"role_id": ROLE, "roi_id": roi, "mm_per_px": "0.2"},
                    files={"image": ("a.png", MARKED, "image/png")},
                )
                answers.append(answer.status_code)

    threads = [threading.Thread(target=read), threading.Thread(target=ask)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(12):
            assert s4.fit(sets[turn % 2], roi=roi).status_code == 200
            # Both have met it before the next one comes; the first may have begun earlier than this.
            before = len(seen) + len(failures), len(answers)
            until(lambda before=before: len(seen) + len(failures) > before[0] + 1)  # type: ignore[misc]
            until(lambda before=before: len(answers) > before[1] + 1)  # type: ignore[misc]
            s4.calibrate([0.1], roi=roi)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(seen) == sizes
    assert set(answers) == {200}
    assert not list((s4.models / ROLE).glob(".*.part"))


def test_many_regions_under_a_bound(s4_small: S4Server) -> None:
    """More regions than stay in memory: each goes on answering as itself."""
    scores = {}
    for n in range(5):
        assert s4_small.fit(ok_images(n + 1, start=80 + n), roi=f"Many{n}").status_code == 200
        scores[n] = s4_small.infer(MARKED, roi=f"Many{n}").json()["score"]
    assert len(set(scores.values())) == 5
    for n in (3, 0, 4, 1, 2, 2, 0):
        assert s4_small.infer(MARKED, roi=f"Many{n}").json()["score"] == scores[n]


def test_another_processes_files_are_seen_at_once(s4: S4Server) -> None:
    roi = "Shared"
    assert s4.fit(ok_images(3), roi=roi).status_code == 200
    before = s4.infer(MARKED, roi=roi).json()
    found = s4_files.read_roi(s4.models, ROLE, roi)
    calib = {
        "threshold": 0.01,
        "p99_ok": 0.01,
        "p5_ng": None,
        "mm_per_px": 0.2,
        "area_mm2_thr": 0,
        "score_percentile": 50,
    }
    s4_files.write_roi(s4.models, ROLE, roi, found["emb"][:2], (8, 8), calib=calib)
    after = s4.infer(MARKED, roi=roi).json()
    assert after["threshold"] == 0.01
    assert after["score"] != before["score"]


def test_kill_9_in_the_middle_of_a_fit_leaves_the_old_memory_serving(tmp_path: Path) -> None:
    roi = "Killed"
    server = S4Server(tmp_path, {"CORESET_RATE": "0.9"})
    server.start()
    try:
        assert server.fit(ok_images(3), roi=roi).status_code == 200
        assert server.calibrate([0.01], roi=roi).status_code == 200
        before = server.infer(MARKED, roi=roi).json()
        files = s4_files.read_roi(server.models, ROLE, roi)
        images = slow_fit()
        with ThreadPoolExecutor(1) as pool:
            fitting = pool.submit(server.fit, images, roi=roi)
            until(lambda: server.fits == 1)
            time.sleep(0.3)
            server.kill()
            with pytest.raises(httpx.HTTPError):
                fitting.result()
        server.start()
        assert server.infer(MARKED, roi=roi).json() == before
        again = s4_files.read_roi(server.models, ROLE, roi)
        assert again["metadata"] == files["metadata"]
        assert again["calib"] == files["calib"]
        assert server.fit(ok_images(2), roi=roi).status_code == 200
        assert server.infer(png(ok_pixels(1)), roi=roi).json()["threshold"] is None
    finally:
        server.stop()


def test_a_stop_finishes_what_is_in_flight(tmp_path: Path) -> None:
    server = S4Server(tmp_path)
    server.start()
    with ThreadPoolExecutor(1) as pool:
        images = ok_images(40)
        fitting = pool.submit(server.fit, images, roi="Last")
        until(lambda: server.fits == 1 or fitting.done())
        assert server.process is not None
        server.process.terminate()
        assert fitting.result().status_code == 200
    assert server.stop() == 0
    assert not server.ready.exists()
    assert s4_files.read_roi(server.models, ROLE, "Last")["metadata"]["count_images"] == 40


def test_a_thousand_images_in_a_fit(tmp_path: Path) -> None:
    """Embeddings beyond the memory that a fit may take lie on the disk; the form's files always may."""
    server = S4Server(tmp_path, {"PATCHCORE_FIT_MEMORY_BYTES": "100000"}, side=32, patch=8)
    with server.running():
        draw = np.random.default_rng(0)
        images = [png(draw.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(1000)]
        answer = server.fit(images, roi="Thousand")
        assert answer.status_code == 200, answer.text
        assert answer.json()["n_embeddings"] == 16_000
        assert answer.json()["coreset_size"] == 320
        assert server.infer(images[0], roi="Thousand").status_code == 200
