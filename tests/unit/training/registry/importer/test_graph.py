"""training/registry/importer/graph.py: graphs of many forms answer behind our interface as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from data.errors import UsageError
from training.registry.importer.foreign import IMAGENET_MEAN, IMAGENET_STD, Foreign, order_of
from training.registry.importer.graph import Original, normalised, read, wrap

SIZE = (12, 16)


def network(
    path: Path,
    *,
    layout: str = "NCHW",
    dtype: int = TensorProto.FLOAT,
    end: str = "gemm",
    classes: int = 3,
    batch: str | int = "N",
    opset: int = 17,
    names: tuple[str, str] = ("x", "y"),
    softmax: bool = False,
    size: tuple[Any, Any] = SIZE,
) -> Path:
    """A small convolutional network in the form that is asked for."""
    rng = np.random.default_rng(0)
    x, y = names
    arrays = {
        "w1": rng.normal(0, 0.4, (4, 3, 3, 3)),
        "w": rng.normal(0, 1, (classes, 4)),
        "b": rng.normal(0, 1, classes),
    }
    nodes, value = [], x
    if dtype == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", [value], ["float"], to=TensorProto.FLOAT))
        value = "float"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [value], ["chw"], perm=[0, 3, 1, 2]))
        value = "chw"
    nodes.append(helper.make_node("Conv", [value, "w1"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]))
    nodes.append(helper.make_node("Relu", ["c"], ["A"]))
    last = f"{y}_raw" if softmax else y
    if end == "max":
        nodes.append(helper.make_node("GlobalMaxPool", ["A"], ["p"]))
    elif end == "mean":
        nodes.append(helper.make_node("ReduceMean", ["A"], ["p"], axes=[2, 3], keepdims=1))
    else:
        nodes.append(helper.make_node("GlobalAveragePool", ["A"], ["p"]))
    nodes.append(helper.make_node("Flatten", ["p"], ["f"]))
    if end == "matmul":
        arrays["w"] = arrays["w"].T
        nodes.append(helper.make_node("MatMul", ["f", "w"], ["m"]))
        nodes.append(helper.make_node("Add", ["m", "b"], [last]))
    else:
        nodes.append(helper.make_node("Gemm", ["f", "w", "b"], [last], transB=1))
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], [y], axis=1))
    shape = [batch, 3, *size] if layout == "NCHW" else [batch, *size, 3]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(x, dtype, shape)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def run(data: bytes | str, feed: dict[str, Any]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def wrapped(original: Original, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "size": SIZE,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "classes": 3,
        "order": None,
        "output": None,
        "probabilities": False,
    }
    return wrap(original, **(settings | changes))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.UINT8])
@pytest.mark.parametrize("end", ["gemm", "matmul", "mean", "max"])
def test_every_form_answers_as_before(tmp_path: Path, layout: str, dtype: int, end: str) -> None:
    path = network(tmp_path / "m.onnx", layout=layout, dtype=dtype, end=end)
    original = read(path)
    made = wrapped(original)
    pixels = images()
    answers = run(made.data, {"image": pixels})
    feed = normalised(pixels, original, IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_allclose(answers["logits"], run(str(path), {"x": feed})["y"], atol=1e-3, rtol=1e-4)
    if end == "max":
        assert (made.maps, list(answers)) == (None, ["logits", "embedding"])
        assert made.reason is not None
        np.testing.assert_array_equal(answers["embedding"], answers["logits"])
    else:
        assert list(answers) == ["logits", "cam", "embedding"]
        assert answers["cam"].shape == (3, 3, 6, 8)
        assert answers["embedding"].shape == (3, 4)


def test_the_map_is_grad_cam(tmp_path: Path) -> None:
    """Against a gradient taken by differences: a change of A_k at a place moves logit c by w_ck / (h w)."""
    path = network(tmp_path / "m.onnx")
    made = wrapped(read(path))
    pixels = images(2)
    answers = run(made.data, {"image": pixels})
    model = onnx.load_from_string(made.data)
    model.graph.output.append(helper.make_tensor_value_info(made.maps, TensorProto.FLOAT, None))
    maps = run(model.SerializeToString(), {"image": pixels})[made.maps]
    weight = numpy_helper.to_array(next(i for i in onnx.load(str(path)).graph.initializer if i.name == "w"))
    area = maps.shape[2] * maps.shape[3]
    gradient = np.broadcast_to((weight / area)[None, :, :, None, None], (2, *weight.shape, 1, 1))
    expected = np.maximum((gradient * maps[:, None]).sum(axis=2), 0)
    np.testing.assert_allclose(answers["cam"], expected, atol=1e-5)


def test_names_that_are_ours_do_no_harm(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", names=("image", "logits"))
    original = read(path)
    answers = run(wrapped(original).data, {"image": images()})
    feed = normalised(images(), original, IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_allclose(answers["logits"], run(str(path), {"image": feed})["logits"], atol=1e-4)


def test_classes_are_put_in_the_tasks_order(tmp_path: Path) -> None:
    original = read(network(tmp_path / "m.onnx"))
    plain, turned = (run(wrapped(original, order=o).data, {"image": images()}) for o in (None, (2, 0, 1)))
    np.testing.assert_array_equal(turned["logits"], plain["logits"][:, [2, 0, 1]])
    np.testing.assert_allclose(turned["cam"], plain["cam"][:, [2, 0, 1]], atol=1e-6)
    np.testing.assert_array_equal(turned["embedding"], plain["embedding"])


@pytest.mark.parametrize("told", [True, False])
def test_probabilities_become_logits(tmp_path: Path, told: bool) -> None:
    original = read(network(tmp_path / "m.onnx", softmax=True))
    given = run(wrapped(original, probabilities=told).data, {"image": images()})["logits"]
    feed = normalised(images(), original, IMAGENET_MEAN, IMAGENET_STD)
    exact = run(str(tmp_path / "m.onnx"), {"x": feed})["y"]
    shifted = np.exp(given - given.max(axis=1, keepdims=True))
    np.testing.assert_allclose(shifted / shifted.sum(axis=1, keepdims=True), exact, atol=1e-5)


def test_a_batch_of_one_is_made_a_batch_of_many(tmp_path: Path) -> None:
    original = read(network(tmp_path / "m.onnx", batch=1))
    answers = run(wrapped(original).data, {"image": images(5)})
    assert answers["logits"].shape == (5, 3)


def test_an_old_opset_is_raised(tmp_path: Path) -> None:
    original = read(network(tmp_path / "m.onnx", opset=11))
    assert run(wrapped(original).data, {"image": images()})["cam"].shape == (3, 3, 6, 8)


def test_the_fixed_size_is_read(tmp_path: Path) -> None:
    assert read(network(tmp_path / "m.onnx")).size == SIZE
    assert read(network(tmp_path / "n.onnx", size=("H", "W"))).size is None


def test_what_is_no_image_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not onnx at all")
    with pytest.raises(UsageError, match="no ONNX model that can be read"):
        read(tmp_path / "x.onnx")
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "two",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 4])],
    )
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
        str(tmp_path / "two.onnx"),
    )
    with pytest.raises(UsageError, match=r"has 2 inputs \(a, b\)"):
        read(tmp_path / "two.onnx")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["y"])],
        "grey",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 4, 4])],
    )
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
        str(tmp_path / "grey.onnx"),
    )
    with pytest.raises(UsageError, match="takes 1 channels"):
        read(tmp_path / "grey.onnx")


def test_an_unknown_output_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no output 'z'"):
        wrapped(read(network(tmp_path / "m.onnx")), output="z")


def test_the_order_of_classes() -> None:
    assert order_of(None, ["a", "b"]) is None
    assert order_of(["a", "b"], ["a", "b"]) is None
    assert order_of(["c", "a", "b"], ["a", "b", "c"]) == (1, 2, 0)
    with pytest.raises(UsageError, match="lacks c and has also x"):
        order_of(["a", "b", "x"], ["a", "b", "c"])
    with pytest.raises(UsageError, match="names a class twice"):
        order_of(["a", "b", "a", "c"], ["a", "b", "c"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_kind_is_told_from_the_bytes(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.bin")
    save_file({"a": torch.zeros(1)}, tmp_path / "renamed.pt")
    network(tmp_path / "m.onnx")
    script = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(script, str(tmp_path / "script.pth"))
    kinds = {n: Foreign(tmp_path / n).kind() for n in ("plain.bin", "renamed.pt", "m.onnx", "script.pth")}
    assert kinds == {
        "plain.bin": "state",
        "renamed.pt": "state",
        "m.onnx": "onnx",
        "script.pth": "torchscript",
    }
    (tmp_path / "text.pth").write_text("hello, this is no model")
    with pytest.raises(UsageError, match="no file of weights that we know"):
        Foreign(tmp_path / "text.pth").kind()
    with pytest.raises(UsageError, match="There is no file"):
        Foreign(tmp_path / "none.onnx").kind()
