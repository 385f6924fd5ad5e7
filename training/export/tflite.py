"""The model as TFLite: float, and int8 with the same uint8 input and float outputs.

``litert-torch`` converts the graph that the ONNX export has too (logits, cam, embedding; one image at a
time), and its quantiser puts int8 around the backbone with ranges from training images; normalisation
and what follows the last convolution stay float, as in ``training.export.quantise``. Both run in a
process of their own (``python -m training.export.tflite``): the libraries change torch's and Python's
settings, print, and take a gigabyte that this process would keep.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.errors import ParityError
from data.files import atomic_path
from training.export.graph import INPUT, Graph, graph_of
from training.model import Classifier

_TIMEOUT_S = 1800


class _Named(nn.Module):
    """The graph with its outputs by name, which become the names in the TFLite signature."""

    def __init__(self, graph: Graph, names: list[str]) -> None:
        super().__init__()
        # Not `graph`: torch's own graph modules have an attribute of that name.
        self.inner = graph
        self.names = names

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.inner(image), strict=True))


def export_tflite(
    model: Classifier,
    size: tuple[int, int],
    path: Path,
    *,
    explain: bool = True,
    quantised: Path | None = None,
    images: NDArray[np.uint8] | None = None,
) -> None:
    """Write the model as float TFLite to ``path``, and as int8 to ``quantised`` with ranges from ``images``.

    ``size`` is (H, W); ``images`` are preprocessed training images [N, H, W, 3].

    Raises:
        ParityError: the converter can't take the model, or isn't installed.
    """
    graph, names, _ = graph_of(model, explain=explain)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as name:
        work = Path(name)
        example = torch.zeros((1, *size, 3), dtype=torch.uint8)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                program = torch.export.export(_Named(graph, names).eval(), (), {INPUT: example})
                torch.export.save(program, work / "program.pt2")
        except Exception as error:  # torch.export raises whatever the model's code met
            raise _refused(model, str(error)) from error
        wish: dict[str, Any] = {"program": str(work / "program.pt2"), "float": str(work / "float.tflite")}
        wish["size"] = list(size)
        if quantised is not None:
            if images is None or not len(images):
                raise ParityError("int8 needs training images for its ranges.", hint="Pass some images.")
            np.save(work / "images.npy", images, allow_pickle=False)
            wish |= {"images": str(work / "images.npy"), "int8": str(work / "int8.tflite")}
        (work / "wish.json").write_text(json.dumps(wish))
        _child(model, work)
        for made, target in (("float.tflite", path), ("int8.tflite", quantised)):
            if target is not None:
                with atomic_path(target) as temporary:
                    temporary.write_bytes((work / made).read_bytes())


def _child(model: Classifier, work: Path) -> None:
    command = [sys.executable, "-m", "training.export.tflite", str(work / "wish.json")]
    # A run under -W error would make an error of each warning in the converter's own code.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    log = work / "log.txt"
    with log.open("wb") as stream:
        try:
            done = subprocess.run(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                # Unbuffered, so that the last line of the log is the last that was said: the error.
                env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"},
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _refused(model, f"no result after {_TIMEOUT_S} s") from error
    if done.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise _refused(model, lines[-1] if lines else f"exit status {done.returncode}")


def _refused(model: Classifier, why: str) -> ParityError:
    first = (why.strip() or "no reason given").splitlines()[0]
    return ParityError(
        f"{model.backbone_name} can't be exported as TFLite: {first}",
        hint="Leave tflite out of export.precisions, or install it: pip install 'retiderm[edge]'.",
    )


def _convert(wish: dict[str, Any]) -> None:
    """In the child: the exported program to a float TFLite file."""
    import litert_torch

    program = torch.export.load(wish["program"])
    example = torch.zeros((1, *wish["size"], 3), dtype=torch.uint8)
    litert_torch.convert(program.module(), sample_kwargs={INPUT: example}).export(wish["float"])


def _quantise(wish: dict[str, Any]) -> None:
    """In the child: the float file to int8, with the ranges that calibration images reach."""
    from ai_edge_quantizer import calibrator, quantizer, recipe_manager  # type: ignore[import-untyped]
    from ai_edge_quantizer.algorithm_manager import AlgorithmName  # type: ignore[import-untyped]
    from ai_edge_quantizer.qtyping import TFLOperationName  # type: ignore[import-untyped]
    from ai_edge_quantizer.utils import qsv_utils  # type: ignore[import-untyped]

    recipe = recipe_manager.RecipeManager()
    everything = TFLOperationName.ALL_SUPPORTED
    recipe.add_static_config(regex=".*", operation_name=everything, activation_num_bits=8, weight_num_bits=8)
    # Inputs and outputs keep their types: uint8 and float.
    recipe.add_quantization_config(".*", TFLOperationName.INPUT, algorithm_key=AlgorithmName.NO_QUANTIZE)
    recipe.add_quantization_config(".*", TFLOperationName.OUTPUT, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for scope in _outside(wish["float"]):
        exactly = f"^{re.escape(scope)}$"
        recipe.add_quantization_config(exactly, everything, algorithm_key=AlgorithmName.NO_QUANTIZE)
    images = np.load(wish["images"], allow_pickle=False)
    # The extremes over all images, not their moving average, which cuts off what is rare.
    ranges = calibrator.Calibrator(wish["float"], num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    ranges.calibrate({"serving_default": [{INPUT: image[None]} for image in images]}, recipe)
    made = quantizer.Quantizer(wish["float"], recipe.get_quantization_recipe())
    result = made.quantize(ranges.get_model_qsvs(), enable_progress_report=False)
    if result.quantized_model is None:
        raise RuntimeError("the quantiser gave no model")
    Path(wish["int8"]).write_bytes(bytes(result.quantized_model))


def _outside(path: str) -> list[str]:
    """The operations before the first convolution and after the last, as the quantiser names them."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(path)
    graph = model.subgraphs[0]
    codes = [model.operatorCodes[item.opcodeIndex].builtinCode for item in graph.operators]
    kinds = [str(flatbuffer.TFL_OP_CODE_TO_NAME.get(code, "")) for code in codes]
    convolutions = [i for i, kind in enumerate(kinds) if "CONV_2D" in kind]
    first, last = (convolutions[0], convolutions[-1]) if convolutions else (len(kinds), -1)
    return [
        flatbuffer.get_op_scope(item, graph.tensors)
        for i, item in enumerate(graph.operators)
        if i < first or i > last
    ]


def main() -> None:
    """``python -m training.export.tflite WISH.json``: what the file asks for, in a process of its own."""
    wish = json.loads(Path(sys.argv[1]).read_text())
    warnings.simplefilter("ignore")
    _convert(wish)
    if "int8" in wish:
        _quantise(wish)


if __name__ == "__main__":
    main()
