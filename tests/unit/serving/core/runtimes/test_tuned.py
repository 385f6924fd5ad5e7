from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest

import serving.core.runtimes.tuned as tuned
from data.paths import Home
from serving.core.bundle import Bundle
from serving.core.runtimes import AUTO, open_runtime
from serving.core.runtimes.tuned import (
    Measured,
    Tuned,
    host_kind,
    read_tuned,
    tuned_path,
    tuned_table,
    write_tuned,
)
from tests.bundles import tiny_bundle

ROW = Measured("openvino", "fp32", "openvino 1", 10, 1.5, 2.5, 0.0, 1e-3, 0, passed=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("tuned") / "b")


def choice(bundle: Bundle, **changes: object) -> Tuned:
    version = open_runtime(bundle, runtime="openvino").name
    made = Tuned(
        task=bundle.card.task,
        digest=bundle.digest,
        host=host_kind(),
        hardware={"cpu": "x", "cores": 2},
        threads=2,
        tuned_at="2025-01-01T00:00:00+00:00",
        runtime="openvino",
        precision="fp32",
        version=version,
        table=(ROW, Measured("tflite", "tflite", reason="It is not installed.")),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_what_is_kept_is_read_again(bundle: Bundle, home: Home) -> None:
    kept = choice(bundle)
    path = write_tuned(kept)
    assert path.is_relative_to(home.root / "tuned" / bundle.digest[7:])
    assert read_tuned(bundle.digest) == kept
    assert tuned_table(bundle.digest) == json.loads(path.read_text())


def test_without_a_choice_it_is_fp32_on_onnx_runtime(bundle: Bundle, home: Home) -> None:
    assert tuned_table(bundle.digest) is None
    runtime = open_runtime(bundle, AUTO)
    assert (runtime.name.split()[0], runtime.precision) == ("onnxruntime", "fp32")


def test_a_choice_is_taken_at_the_next_opening(bundle: Bundle, home: Home) -> None:
    write_tuned(choice(bundle))
    assert open_runtime(bundle, AUTO).name.split()[0] == "openvino"
    assert open_runtime(bundle).name.split()[0] == "onnxruntime"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "openvino 2019.1"}, "measured with openvino 2019.1"),
        ({"precision": "int8"}, "no approved precision"),
        ({"runtime": "another"}, "no runtime 'another'"),
    ],
)
def test_a_choice_that_is_not_to_be_had_is_logged_and_fp32_serves(
    bundle: Bundle,
    home: Home,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, str],
    says: str,
) -> None:
    write_tuned(choice(bundle, **changes))
    with caplog.at_level(logging.WARNING, "retiderm.serving"):
        assert open_runtime(bundle, AUTO).name.split()[0] == "onnxruntime"
    assert says in caplog.text
    assert "Run retiderm tune again" in caplog.text


def test_another_kind_of_host_has_no_choice(
    bundle: Bundle, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tuned(choice(bundle))
    monkeypatch.setattr(tuned, "hardware", lambda: {"cpu": "Another", "cores": 64})
    assert read_tuned(bundle.digest) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 9, "task": 3}'])
def test_a_damaged_file_is_logged_and_no_choice(
    bundle: Bundle, home: Home, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tuned_path(bundle.digest)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with caplog.at_level(logging.WARNING, "retiderm.serving"):
        assert read_tuned(bundle.digest) is None
    assert str(path) in caplog.text


def test_a_copied_file_of_another_bundle_is_no_choice(bundle: Bundle, home: Home, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", seed=3)
    source = write_tuned(choice(other))
    target = tuned_path(bundle.digest)
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    assert read_tuned(bundle.digest) is None
