"""The pieces of the latency and quality parts that can be wrong without a run showing it."""

from __future__ import annotations

import sys
from email import message_from_bytes
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.anomaly import environment
from benchmarks.anomaly.latency import ANOMALIB, form, resized, tell, timed
from benchmarks.anomaly.parts import SMALL, Run, images, named, plan
from benchmarks.anomaly.quality import auroc, masks
from benchmarks.anomaly.records import Part
from data.paths import Home


def test_form_is_read_back_as_it_was_sent() -> None:
    kind, body = form(
        {"role_id": "a", "mm_per_px": "0.1"}, [("images", b"\x89PNG\r\n\x1a\n--"), ("images", b"2")]
    )
    message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    names = [part.get_param("name", header="content-disposition") for part in parts]
    assert names == ["role_id", "mm_per_px", "images", "images"]
    assert body.count(b"Content-Type: image/png") == 2
    assert b"\x89PNG\r\n\x1a\n--" in body


def test_steps_are_read_from_a_line_of_the_service_log() -> None:
    line = "INFO infer role=bench roi=screw device=cpu width=448 load_ms=0.1 decode_ms=3.5 total_ms=70.25"
    assert timed(line) == {"load": 0.1, "decode": 3.5, "total": 70.25}


def test_rows_of_a_latency_study_add_up() -> None:
    part = Part("latency", {})
    tell(
        part,
        "s",
        ANOMALIB,
        [10.0, 12.0, 11.0],
        [{"decode": 2.0, "total": 9.0}, {"decode": 4.0}, {"decode": 3.0}],
    )
    values = {measure.what: measure.value for measure in part.measures}
    assert values["step: decode"] == 3.0
    assert "step: total" not in values
    assert values["step: everything else"] == values["whole, median"] - 3.0 == 8.0


def test_masks_are_at_the_maps_size_and_empty_for_good_images(tmp_path: Path) -> None:
    place = tmp_path / "ground_truth" / "cut"
    place.mkdir(parents=True)
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    cv2.imwrite(str(place / "007_mask.png"), mask)
    tests = [tmp_path / "test" / "good" / "001.png", tmp_path / "test" / "cut" / "007.png"]
    found = masks(tmp_path, tests, (4, 2))
    assert found.shape == (2, 4, 2)
    assert not found[0].any()
    assert found[1].tolist() == [[True, True], [True, True], [False, False], [False, False]]
    with pytest.raises(SystemExit, match="no mask"):
        masks(tmp_path, [tmp_path / "test" / "cut" / "008.png"], (4, 2))


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, False, True, True])) == 0.75
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 9, 200) / 9, rng.random(200) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auroc(scores, positive) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


def test_images_are_found_in_order_and_a_folder_without_any_ends_the_run(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in images(tmp_path)] == ["a.jpg", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="No images"):
        images(tmp_path / "empty")


def test_resized_images_are_squares_that_both_sides_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 20, 3), np.uint8))
    (out,) = resized([tmp_path / "a.png"], 16, tmp_path)
    read = cv2.imread(str(out))
    assert read is not None
    assert read.shape == (16, 16, 3)


def test_every_contender_gets_the_same_threads_and_no_bars() -> None:
    given = environment.environment(3)
    assert {given[name] for name in environment.THREADS} == {"3"}
    assert given["TQDM_DISABLE"] == "1"


def test_an_installed_environment_is_used_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def call(command: list[str]) -> None:
        calls.append(command)
        python = home.root / "bench" / "anomalib" / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("")

    monkeypatch.setattr(environment, "_call", call)
    python = environment.install()
    assert python == home.root / "bench" / "anomalib" / ".venv" / "bin" / "python"
    assert [command[1] for command in calls] == ["venv", "pip"]
    assert any(word.startswith("torch==") for word in calls[1])
    assert "anomalib" in calls[1]
    environment.install()
    assert len(calls) == 2
    environment.install(upgrade=True)
    assert [command[1] for command in calls] == ["venv", "pip", "pip"]


def test_a_job_of_our_own_side_is_done_in_a_process(tmp_path: Path) -> None:
    points = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    np.save(tmp_path / "e.npy", points)
    job = {"embeddings": str(tmp_path / "e.npy"), "count": 6, "start": 3, "indices": str(tmp_path / "i.npy")}
    answer = environment.run(None, "plain", job, 1)
    assert answer["peak_mib"] >= answer["before_mib"] > 0
    assert np.load(tmp_path / "i.npy", allow_pickle=False)[0] == 3
    with pytest.raises(SystemExit, match="failed"):
        environment.run(None, "plain", {**job, "embeddings": str(tmp_path / "none.npy")}, 1)


def test_a_contender_that_stays_answers_line_by_line_and_its_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "echo.py"
    script.write_text(
        "import json, sys\n"
        "for number, line in enumerate(sys.stdin):\n"
        "    if json.loads(line).get('fail'): sys.exit('it broke')\n"
        "    print(json.dumps({'line': number, **json.loads(line)}), flush=True)\n"
    )
    monkeypatch.setattr(environment, "_command", lambda python, task: [sys.executable, str(script)])
    with environment.keep(None, "serve", {"a": 1}, 2) as kept:
        assert kept.first == {"line": 0, "a": 1, "threads": 2}
        assert kept.ask({"b": 2}) == {"line": 1, "b": 2}
        with pytest.raises(SystemExit, match="it broke"):
            kept.ask({"fail": True})
    assert kept.process.poll() is not None


def test_plan_names_every_set_and_bounds_the_memory_of_the_largest(tmp_path: Path) -> None:
    for folder in ("screw/train/good", "screw/test/good", "skin/images"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes(b"")
    assert named(tmp_path / "skin" / "images") == "skin"
    given = Run(tmp_path / "screw", [tmp_path / "skin" / "images"], SMALL, 2, tmp_path, tmp_path, 0.0)
    cases = plan(given)
    assert [case.data for case, _ in cases] == ["screw", "screw", "skin", "screw", "gaussian", "gaussian"]
    assert [case.least for case, _ in cases] == [10, 3, 3, 3, 1, 1]
    assert [case.bounded for case, _ in cases] == [False, False, False, True, False, True]
    assert [paths is None for _, paths in cases] == [False] * 4 + [True] * 2
