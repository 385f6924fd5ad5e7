"""Someone else's ONNX graph as one of ours: uint8 [N, H, W, 3] in; ``logits``, ``cam``, ``embedding`` out.

Nodes are put before its input (layout, cast, normalisation) and behind its output (logarithm of
probabilities, order of classes). Where the graph ends in global average pooling and one linear layer,
Grad-CAM has a closed form and is added: ReLU(sum over k of w_ck A_k) / (h w). Elsewhere there is no
explanation, and the logits stand in for the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ParityError, UsageError

from .foreign import Triple

_LEAST_OPSET = 13
_POOLS = ("GlobalAveragePool", "ReduceMean")
_PASS = ("Flatten", "Squeeze", "Reshape", "Dropout", "Identity")
_ITS = "original/"  # before every name in the graph that came, so that none is one of ours


@dataclass(frozen=True, slots=True)
class Original:
    """The graph as it came: its input's name, type and layout, its outputs, its fixed size if it has one."""

    model: Any
    input: str
    uint8: bool
    channels_last: bool
    size: tuple[int, int] | None
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The graph as we serve it. ``maps`` names the tensor that ``cam`` is made of; None without one."""

    data: bytes
    outputs: tuple[str, ...]
    maps: str | None
    weight: NDArray[np.float32] | None  # the linear layer's [C, K], in the task's order
    reason: str | None  # why there is no explanation


def read(path: Path) -> Original:
    """Read and check an ONNX file.

    Raises:
        UsageError: it is no ONNX model with one image input.
    """
    import onnx
    from onnx import TensorProto, compose, version_converter

    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        opset = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
        if opset < _LEAST_OPSET:
            model = version_converter.convert_version(model, _LEAST_OPSET)
        model = compose.add_prefix(model, _ITS)
    except Exception as error:  # protobuf, onnx's checker and its converter have no base in common
        raise UsageError(f"{path.name} is no ONNX model that can be read: {_first(error)}.") from error
    constants = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(item.name.removeprefix(_ITS) for item in inputs)
        raise UsageError(f"{path.name} has {len(inputs)} inputs ({names}).", hint="It must take one image.")
    kind = inputs[0].type.tensor_type
    dims = [item.dim_value or None for item in kind.shape.dim]
    if len(dims) != 4 or kind.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise UsageError(
            f"{path.name} takes {TensorProto.DataType.Name(kind.elem_type)} {dims}.",
            hint="It must take float32 or uint8 images, [N, 3, H, W] or [N, H, W, 3].",
        )
    last = dims[3] == 3 and dims[1] != 3
    if not last and dims[1] not in (3, None):
        raise UsageError(f"{path.name} takes {dims[1]} channels.", hint="It must take colour images.")
    height, width = dims[1:3] if last else dims[2:4]
    return Original(
        model=model,
        input=inputs[0].name,
        uint8=kind.elem_type == TensorProto.UINT8,
        channels_last=last,
        size=(height, width) if height and width else None,
        outputs=tuple(item.name.removeprefix(_ITS) for item in model.graph.output),
    )


def wrap(
    original: Original,
    *,
    size: tuple[int, int],
    mean: Triple,
    std: Triple,
    classes: int,
    order: Sequence[int] | None,
    output: str | None,
    probabilities: bool,
) -> Wrapped:
    """Make the graph one of ours.

    Raises:
        UsageError: its outputs don't fit the task.
        ParityError: ONNX can't take the result.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.ModelProto()
    model.CopyFrom(original.model)
    graph = model.graph
    add = _Adder("output")
    logits = _logits(original, add, output, probabilities)
    maps, weight, embedding, reason = _find_maps(original, logits)
    before = _front(original, mean, std)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before.nodes, *nodes, *add.nodes])
    graph.initializer.extend([*before.constants, *add.constants])
    behind = _Adder("ours")
    if order is not None:
        logits = behind.node("Gather", [logits, behind.constant(np.asarray(order, np.int64))], axis=1)
    behind.node("Identity", [logits], name="logits")
    behind.node("Identity", [embedding or "logits"], name="embedding")
    outputs = ["logits", "embedding"]
    chosen: NDArray[np.float32] | None = None
    if maps is not None and weight is not None:
        chosen = weight if order is None else weight[np.asarray(order)]
        flat = behind.node("Reshape", [maps, behind.constant(np.array([0, weight.shape[1], -1], np.int64))])
        places = behind.node("Shape", [maps])
        grid = behind.node("Slice", [places, *(behind.constant(np.array([i], np.int64)) for i in (2, 4))])
        head = behind.constant(np.array([-1, len(chosen)], np.int64))
        shape = behind.node("Concat", [head, grid], axis=0)
        area = behind.node("Cast", [behind.node("ReduceProd", [grid], keepdims=0)], to=TensorProto.FLOAT)
        raw = behind.node("MatMul", [behind.constant(chosen.astype(np.float32)), flat])
        grey = behind.node("Relu", [behind.node("Reshape", [raw, shape])])
        behind.node("Div", [grey, area], name="cam")
        outputs.insert(1, "cam")
    graph.node.extend(behind.nodes)
    graph.initializer.extend(behind.constants)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *size, 3]))
    del graph.output[:]
    ranks = {"logits": 2, "embedding": 2, "cam": 4}
    for name in outputs:
        dims: list[Any] = ["N", *(f"{name}_{i}" for i in range(1, ranks[name]))]
        if name == "logits":
            dims[1] = classes
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    # Shapes that were noted for a batch of one would contradict ours.
    del graph.value_info[:]
    model.ir_version = min(max(model.ir_version, 8), 10)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ParityError(f"The graph can't be wrapped: {_first(error)}.") from error
    return Wrapped(bytes(model.SerializeToString()), tuple(outputs), maps, chosen, reason)


def normalised(
    images: NDArray[np.uint8], original: Original, mean: Triple, std: Triple
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """What the original takes, by numpy: the other way that the wrapped graph is held against."""
    values: NDArray[Any] = images
    if not original.uint8:
        values = ((images / 255.0 - np.array(mean)) / np.array(std)).astype(np.float32)
    return values if original.channels_last else np.ascontiguousarray(values.transpose(0, 3, 1, 2))


class _Adder:
    """Collects nodes and constants under names of our own."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = prefix

    def node(self, kind: str, inputs: Sequence[str], *, name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        output = name or self._name(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _name(self, kind: str) -> str:
        return f"{self._prefix}/{kind.lower()}_{len(self.nodes) + len(self.constants)}"


def _front(original: Original, mean: Triple, std: Triple) -> _Adder:
    """From ``image`` to the original's input."""
    from onnx import TensorProto

    add = _Adder("input")
    value = "image"
    if not original.channels_last:
        value = add.node("Transpose", [value], perm=[0, 3, 1, 2])
    if not original.uint8:
        shape = (1, 1, 1, 3) if original.channels_last else (1, 3, 1, 1)
        offset = (np.array(mean) * 255).astype(np.float32).reshape(shape)
        factor = (1 / (np.array(std) * 255)).astype(np.float32).reshape(shape)
        value = add.node("Cast", [value], to=TensorProto.FLOAT)
        value = add.node("Mul", [add.node("Sub", [value, add.constant(offset)]), add.constant(factor)])
    add.node("Identity", [value], name=original.input)
    return add


def _logits(original: Original, add: _Adder, output: str | None, probabilities: bool) -> str:
    names = tuple(name.strip() for name in output.split(",")) if output else original.outputs[:1]
    if output is None and len(original.outputs) > 1:
        raise UsageError(
            f"The model has several outputs: {', '.join(original.outputs)}.",
            hint="Say which by --output; those of several heads with a comma between.",
        )
    unknown = [name for name in names if name not in original.outputs]
    if unknown:
        raise UsageError(
            f"The model has no output {unknown[0]!r}.", hint=f"It has: {', '.join(original.outputs)}."
        )
    parts = []
    for name in names:
        made = _producer(original, _ITS + name)
        if made is not None and made.op_type == "Softmax":
            parts.append(made.input[0])  # what it was made of is exact, its logarithm is not
        elif probabilities:
            low, high = (add.constant(np.array(value, np.float32)) for value in (1e-12, 1.0))
            parts.append(add.node("Log", [add.node("Clip", [_ITS + name, low, high])]))
        else:
            parts.append(_ITS + name)
    return parts[0] if len(parts) == 1 else add.node("Concat", parts, axis=1)


def _find_maps(
    original: Original, logits: str
) -> tuple[str | None, NDArray[np.float32] | None, str | None, str | None]:
    """The maps, the linear layer's weights [C, K] and the embedding, or the reason why there are none."""
    from onnx import numpy_helper

    none = "The imported graph does not end in global average pooling and one linear layer."
    constants = {item.name: item for item in original.model.graph.initializer}
    node = _producer(original, logits)
    if node is not None and node.op_type == "Add":  # MatMul + bias
        inner = [_producer(original, name) for name in node.input]
        node = next((item for item in inner if item is not None and item.op_type == "MatMul"), None)
    if node is None or node.op_type not in ("Gemm", "MatMul") or node.input[1] not in constants:
        return None, None, None, none
    weight = np.asarray(numpy_helper.to_array(constants[node.input[1]]), dtype=np.float32)
    transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i == 1 for a in node.attribute)
    plain = all(a.f == 1.0 for a in node.attribute if a.name in ("alpha", "beta"))
    weight = weight if transposed else weight.T
    embedding = node.input[0]
    above = _producer(original, embedding)
    while above is not None and above.op_type in _PASS:
        above = _producer(original, above.input[0])
    if above is None or above.op_type not in _POOLS or not plain:
        return None, None, None, none
    return above.input[0], weight, embedding, None


def _producer(original: Original, name: str) -> Any:
    return next((node for node in original.model.graph.node if name in node.output), None)


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")
