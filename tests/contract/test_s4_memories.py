"""S4's memories: fits that join or keep everything, and the files of older services."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from tests.contract import s4_files
from tests.contract.s4_by_hand import patches_of
from tests.contract.s4_server import HEIGHT, ROLE, WIDTH, S4Server, ng_pixels, ok_images, ok_pixels, png

OLD = {
    "threshold": 0.4,
    "p99_ok": 0.3,
    "p5_ng": 0.5,
    "mm_per_px": 0.2,
    "area_mm2_thr": 1.0,
    "score_percentile": 99,
}


def test_an_incremental_fit_joins_and_says_its_bound(s4: S4Server) -> None:
    roi = "Joined"
    first = s4.fit(ok_images(4), roi=roi).json()
    s4.calibrate([0.1], roi=roi)
    before = s4_files.read_roi(s4.models, ROLE, roi)
    odd = ng_pixels(3, left=24, top=24)
    unknown = s4.infer(png(odd), roi=roi).json()["score"]
    joined = s4.fit([png(odd)] * 2, roi=roi, incremental="true").json()
    assert joined["n_embeddings"] == first["n_embeddings"] + 2 * 64
    assert joined["coreset_size"] == int(np.ceil(joined["n_embeddings"] * 0.02))
    known = s4.infer(png(odd), roi=roi).json()
    assert known["score"] < unknown / 2
    assert known["threshold"] is None, "a new memory is calibrated anew"

    # The bound holds over every patch that it was ever fitted with, the old images' too.
    after = s4_files.read_roi(s4.models, ROLE, roi)
    ever = [patches_of(s4, ok_pixels(n)) for n in range(4)] + [patches_of(s4, odd)]
    farthest = s4_files.distances(after, np.concatenate([p.reshape(-1, p.shape[-1]) for p in ever])).max()
    assert farthest <= joined["cover_radius_bound"] + 1e-6
    assert after["metadata"]["n_embeddings"] == joined["n_embeddings"]
    assert len(before["emb"]) == first["coreset_size"]


def test_a_fit_of_every_embedding_keeps_every_embedding(s4: S4Server) -> None:
    whole = s4.fit(ok_images(2), roi="Whole", memory_fit="true").json()
    assert whole["coreset_size"] == whole["n_embeddings"] == 128
    assert whole["coreset_rate_requested"] == whole["coreset_rate_applied"] == 1.0
    usual = s4.fit(ok_images(2), roi="Whole", memory_fit="false").json()
    assert usual["coreset_size"] == 3


@pytest.mark.parametrize("flat", [False, True], ids=["folders", "flat"])
@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize(
    "metadata", [None, {"coreset_rate": 0.02, "applied_rate": 0.0208}], ids=["bare", "metadata"]
)
@pytest.mark.parametrize("calib", [None, OLD], ids=["uncalibrated", "calibrated"])
def test_files_in_every_old_layout_are_served(
    s4: S4Server, flat: bool, index: bool, metadata: dict[str, Any] | None, calib: dict[str, Any] | None
) -> None:
    role = "Old"
    roi = f"R{flat:d}{index:d}{metadata is not None:d}{calib is not None:d}"
    patches = np.concatenate([patches_of(s4, ok_pixels(n)).reshape(-1, 16) for n in range(3)])
    emb = patches[np.random.default_rng(0).permutation(len(patches))[:20]]
    s4_files.write_roi(
        s4.models, role, roi, emb, (8, 8), flat=flat, metadata=metadata, index=index, calib=calib
    )

    marked = ng_pixels(9, left=40, top=20)
    answers = [s4.infer(png(marked), role=role, roi=roi) for _ in range(2)]
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json() == answers[1].json()
    answer = answers[0].json()
    grid = s4_files.distances({"emb": emb, "index": None}, patches_of(s4, marked).reshape(-1, 16)).reshape(
        8, 8
    )
    upsampled = cv2.resize(grid.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    by_hand = cv2.GaussianBlur(upsampled, (0, 0), 1.0)
    assert answer["score"] == pytest.approx(np.percentile(by_hand, 99), abs=1e-5), "squared L2 on every path"
    if calib is None:
        assert answer["threshold"] is None
    else:
        # Without index.faiss the old service measured, and so calibrated, Euclidean distances.
        threshold = 0.4 if index else 0.4**2
        assert answer["threshold"] == pytest.approx(threshold)
        if not index:
            migrated = s4_files.read_roi(s4.models, role, roi)["calib"]
            assert migrated["threshold"] == pytest.approx(threshold)
            assert migrated["p99_ok"] == pytest.approx(0.09)
            assert migrated["p5_ng"] == pytest.approx(0.25)
            assert f"roi={roi}" in s4.log.read_text() or f"ROI {roi}" in s4.log.read_text()

    # A new fit writes the contract's folder, and the old calibration no longer counts.
    assert s4.fit(ok_images(2), role=role, roi=roi).status_code == 200
    assert s4_files.read_roi(s4.models, role, roi)["calib"] is None
    assert s4.infer(png(marked), role=role, roi=roi).json()["threshold"] is None
