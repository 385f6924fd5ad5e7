from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from data.errors import BundleError, IntegrityError, RequestError, ServingError
from data.provenance import cpu_quota
from serving.core.bundle import Bundle, ExplanationCard, PrecisionCard, write_bundle
from serving.core.runtimes import open_runtime, warm_up
from tests.bundles import tiny_bundle, tiny_onnx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("runtime") / "b")


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)


def changed(bundle: Bundle, path: Path, model: bytes | None = None, **card: object) -> Bundle:
    files: dict[str, Path | bytes] = {name: bundle.path(name) for name in bundle.card.files}
    if model is not None:
        files["model.onnx"] = model
    return write_bundle(path, dataclasses.replace(bundle.card, **card), files)


def test_only_what_is_asked_for_is_given(bundle: Bundle) -> None:
    runtime = open_runtime(bundle)
    assert runtime.name.startswith("onnxruntime ")
    assert runtime.precision == "fp32"
    assert {k: v.shape for k, v in runtime.run(images(3)).items()} == {"logits": (3, 5)}
    every = runtime.run(images(2), ("logits", "cam", "embedding"))
    assert {k: v.shape for k, v in every.items()} == {
        "logits": (2, 5),
        "cam": (2, 5, 8, 8),
        "embedding": (2, 16),
    }
    assert all(value.dtype == np.float32 for value in every.values())


def test_the_map_is_the_closed_form(bundle: Bundle) -> None:
    out = open_runtime(bundle).run(images(2), ("logits", "cam"))
    assert out["cam"].min() >= 0
    assert out["cam"].max() > 0


def test_a_batch_answers_as_its_images_alone(bundle: Bundle) -> None:
    runtime = open_runtime(bundle)
    batch = runtime.run(images(4))["logits"]
    alone = np.concatenate([runtime.run(images(4)[i : i + 1])["logits"] for i in range(4)])
    np.testing.assert_allclose(batch, alone, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        images(1)[0],
        images(1).astype(np.float32),
        images(1)[:, :32],
        np.zeros((1, 64, 64, 4), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
    ],
    ids=["one image", "float", "other size", "alpha", "none", "channels first"],
)
def test_other_images_are_a_request_error(bundle: Bundle, wrong: np.ndarray) -> None:
    with pytest.raises(RequestError, match=r"takes uint8 \[N, 64, 64, 3\]"):
        open_runtime(bundle).run(wrong)


def test_images_in_other_memory_order_are_taken(bundle: Bundle) -> None:
    runtime = open_runtime(bundle)
    straight = runtime.run(images(2))["logits"]
    turned = np.asfortranarray(images(2))
    np.testing.assert_array_equal(runtime.run(turned)["logits"], straight)


def test_an_unknown_output_is_a_request_error(bundle: Bundle) -> None:
    with pytest.raises(RequestError, match=r"no output 'saliency'.*logits, cam, embedding"):
        open_runtime(bundle).run(images(1), ("saliency",))


def test_a_model_without_map_says_why(tmp_path: Path, bundle: Bundle) -> None:
    outputs = {name: shape for name, shape in bundle.card.outputs.items() if name != "cam"}
    other = changed(
        bundle, tmp_path / "b", outputs=outputs, explanation=ExplanationCard("none", reason="Odd pooling.")
    )
    with pytest.raises(RequestError, match=r"no output 'cam'. Odd pooling."):
        open_runtime(other).run(images(1), ("cam",))


def test_threads_follow_the_quota(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.core.runtimes.onnx.cpu_quota", lambda: 3)
    runtime = open_runtime(bundle)
    assert runtime._session.get_session_options().intra_op_num_threads == 3  # type: ignore[attr-defined]
    assert cpu_quota() <= (os.cpu_count() or 1)
    fixed = open_runtime(bundle, threads=1)
    assert fixed._session.get_session_options().intra_op_num_threads == 1  # type: ignore[attr-defined]


def test_threads_may_share_a_runtime(bundle: Bundle) -> None:
    runtime = open_runtime(bundle)
    wanted = runtime.run(images(1))["logits"]
    found: list[np.ndarray] = []

    def ask() -> None:
        for _ in range(20):
            found.append(runtime.run(images(1))["logits"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(np.array_equal(item, wanted) for item in found)


def test_golden_answers_are_held(bundle: Bundle) -> None:
    result = warm_up(open_runtime(bundle, warm=False), bundle)
    assert result.images == 4
    assert result.max_difference < 1e-6
    assert result.labels_changed == 0


def test_another_model_fails_the_warm_up(tmp_path: Path, bundle: Bundle) -> None:
    other = changed(bundle, tmp_path / "b", model=tiny_onnx(5, (64, 64), seed=9))
    with pytest.raises(IntegrityError, match="answers the golden images"):
        open_runtime(other)


def test_unreadable_and_other_models_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="can't load"):
        open_runtime(changed(bundle, tmp_path / "a", model=b"not onnx"))
    outputs = {**bundle.card.outputs, "extra": (1,)}
    with pytest.raises(BundleError, match="the card says"):
        open_runtime(changed(bundle, tmp_path / "b", outputs=outputs))


def test_precisions_must_be_approved_and_known(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no approved precision 'int8'.*Approved: fp32"):
        open_runtime(bundle, "int8")
    refused = {"fp32": PrecisionCard("model.onnx", approved=False)}
    with pytest.raises(BundleError, match="Approved: none"):
        open_runtime(changed(bundle, tmp_path / "a", precisions=refused))
    foreign = {"fp32": PrecisionCard("model.onnx", format="gguf")}
    with pytest.raises(BundleError, match="runs no 'fp32' of the format 'gguf'"):
        open_runtime(changed(bundle, tmp_path / "b", precisions=foreign))


def test_a_closed_runtime_says_so(bundle: Bundle) -> None:
    runtime = open_runtime(bundle)
    runtime.close()
    with pytest.raises(ServingError, match="was closed"):
        runtime.run(images(1))
