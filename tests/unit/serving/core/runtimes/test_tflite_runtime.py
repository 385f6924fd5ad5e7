from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest

from data.errors import BundleError, IntegrityError, RequestError, ServingError
from serving.core.bundle import GOLDEN, Bundle, PrecisionCard, write_bundle
from serving.core.runtimes import open_runtime
from tests.lite import lite_bundle, tiny_tflite


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return lite_bundle(tmp_path_factory.mktemp("tflite") / "b")


def images(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)


def changed(bundle: Bundle, path: Path, model: bytes, **card: object) -> Bundle:
    files: dict[str, Path | bytes] = {name: bundle.path(name) for name in bundle.card.files}
    return write_bundle(path, dataclasses.replace(bundle.card, **card), {**files, "model.tflite": model})  # type: ignore[arg-type]


def test_a_batch_is_its_images_one_by_one(bundle: Bundle) -> None:
    runtime = open_runtime(bundle, "tflite")
    assert (runtime.name.split()[0], runtime.precision) == ("tflite", "tflite")
    together = runtime.run(images(3))["logits"]
    assert (together.shape, together.dtype) == ((3, 5), np.float32)
    alone = np.concatenate([runtime.run(images(3)[i : i + 1])["logits"] for i in range(3)])
    np.testing.assert_array_equal(together, alone)
    assert np.ptp(together, axis=0).max() > 0


def test_it_gives_the_golden_answers(bundle: Bundle) -> None:
    golden = bundle.arrays(GOLDEN)
    given = open_runtime(bundle, "tflite", 1).run(golden["images"])["logits"]
    np.testing.assert_allclose(given, golden["logits"], rtol=1e-4, atol=1e-4)


def test_several_threads_get_their_own_answers(bundle: Bundle) -> None:
    runtime = open_runtime(bundle, "tflite", 1)
    wanted = [runtime.run(images(1, seed))["logits"] for seed in range(6)]
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for _ in range(20):
            if not np.array_equal(runtime.run(images(1, seed))["logits"], wanted[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_it_is_not_asked_rightly_is_refused(bundle: Bundle) -> None:
    runtime = open_runtime(bundle, "tflite")
    with pytest.raises(RequestError, match="takes uint8"):
        runtime.run(images(1)[:, :32])
    with pytest.raises(RequestError, match=r"no output 'cam'. The tiny model has no map"):
        runtime.run(images(1), ("cam",))
    runtime.close()
    with pytest.raises(ServingError, match="was closed"):
        runtime.run(images(1))


def test_another_model_than_the_card_says_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    weight = np.zeros((5, 3))
    with pytest.raises(BundleError, match=r"LiteRT can't load model.tflite"):
        open_runtime(changed(bundle, tmp_path / "a", b"not a model"), "tflite")
    with pytest.raises(BundleError, match="the card says"):
        open_runtime(changed(bundle, tmp_path / "b", tiny_tflite(weight, (32, 32))), "tflite")
    with pytest.raises(BundleError, match="the card says"):
        open_runtime(changed(bundle, tmp_path / "c", tiny_tflite(weight, (64, 64), ("scores",))), "tflite")


def test_other_answers_than_the_golden_ones_are_not_served(bundle: Bundle, tmp_path: Path) -> None:
    other = tiny_tflite(np.random.default_rng(5).normal(0, 0.02, (5, 3)), (64, 64))
    with pytest.raises(IntegrityError, match="answers the golden images"):
        open_runtime(changed(bundle, tmp_path / "a", other), "tflite")
    loose = {**bundle.card.precisions, "tflite": PrecisionCard("model.tflite", "tflite", tolerance=1.0)}
    assert open_runtime(changed(bundle, tmp_path / "b", other, precisions=loose), "tflite")


def test_each_format_has_its_runtime(bundle: Bundle) -> None:
    for runtime, precision in (("openvino", "tflite"), ("tflite", "fp32")):
        with pytest.raises(BundleError, match=f"{runtime} runs no '{precision}'"):
            open_runtime(bundle, precision, runtime=runtime)
