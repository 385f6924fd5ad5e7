"""The ONNX model in int8: static quantisation, each convolution's channels by themselves.

``QuantizeLinear``/``DequantizeLinear`` pairs stand around the backbone's operations (QDQ), ranges come
from training images. The input stays uint8 with its normalisation in float, and what follows the last
map (pooling, head, Grad-CAM) stays float: it costs next to nothing, and logits, map and embedding keep
their precision.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ParityError
from data.files import atomic_path
from training.export.graph import INPUT

#: What is calculated in int8 between the first convolution and the last map.
OPERATIONS = (
    "Conv",
    "Add",
    "Mul",
    "Relu",
    "Clip",
    "HardSigmoid",
    "HardSwish",
    "Sigmoid",
    "LeakyRelu",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
)

#: With one of these behind the last convolution the map is over, and pooling, head or Grad-CAM begin.
_ENDS = {
    "ReduceMean",
    "GlobalAveragePool",
    "Reshape",
    "Flatten",
    "MatMul",
    "Gemm",
    "Transpose",
    "Squeeze",
    "Shape",
}


def quantise_onnx(source: Path, path: Path, images: NDArray[np.uint8]) -> Path:
    """Write ``source`` as int8 to ``path``, with ranges from preprocessed training images [N, H, W, 3].

    Raises:
        ParityError: ONNX Runtime can't quantise this graph.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[NDArray[np.uint8]] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._left, None)
            return None if image is None else {INPUT: image[None]}

    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as name,
        _quiet(),
    ):
        prepared = Path(name) / "prepared.onnx"
        made = Path(name) / "int8.onnx"
        try:
            # ONNX Runtime's own graph optimisation: it folds batch norms, so that one convolution is
            # one operation.
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(made),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATIONS),
                nodes_to_exclude=outside(prepared),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            data = _stripped(made)
        except Exception as error:  # the quantiser raises whatever its helpers raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ParityError(
                f"ONNX Runtime can't quantise the model: {first}",
                hint="Leave int8 out of the task's export.precisions.",
            ) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def outside(path: Path) -> list[str]:
    """The nodes that stay float: before the first convolution, and behind the last map.

    A node without a convolution behind it stays float from the first pooling or reshape on; activations
    and sums that end the last block are still the backbone's.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    makes = {name: node for node in graph.node for name in node.output}
    takers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)
    # Nodes of an ONNX graph lie in an order in which each comes after what it needs.
    after: set[str] = set()
    for node in graph.node:
        if node.op_type == "Conv" or any(name in makes and makes[name].name in after for name in node.input):
            after.add(node.name)
    before: set[str] = set()
    for node in reversed(graph.node):
        needed = (taker for name in node.output for taker in takers[name])
        if any(taker.op_type == "Conv" or taker.name in before for taker in needed):
            before.add(node.name)
    left: set[str] = set()
    for node in graph.node:
        behind = node.name not in before and node.op_type != "Conv"
        follows = any(name in makes and makes[name].name in left for name in node.input)
        if behind and (node.op_type in _ENDS or follows):
            left.add(node.name)
    return [node.name for node in graph.node if node.name not in after or node.name in left]


def _stripped(path: Path) -> bytes:
    """The model's bytes without the quantiser's notes, so that equal models have equal bytes."""
    import onnx

    model = onnx.load(str(path))
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser prints, logs to the root logger and warns about its own internals."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
