"""The model as ONNX: ``uint8 [N, H, W, 3]`` in; ``logits``, ``cam`` and ``embedding`` out.

Normalisation lies inside the graph. The map of class c is Grad-CAM, ReLU(Σₖ α_ck A_k) with α_ck the mean over
positions of ∂logit_c/∂A_k (Selvaraju et al. 2017). Where the head is a plain mean and a linear layer,
α_ck = w_ck / (h·w), so that it costs one small matrix product; ``training.export.tail`` has the other case.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.errors import ParityError
from data.files import atomic_path
from serving.core.bundle import ExplanationCard
from training.export.tail import Tail, UnknownTail, find_tail
from training.model import Classifier

# What ONNX Runtime 1.20, the oldest that the serving extra allows, reads; 1.31 was the newest tried.
OPSET = 20
INPUT = "image"


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported model: its file, the shape of each output for one image, and how ``cam`` is made."""

    path: Path
    outputs: Mapping[str, tuple[int, ...]]
    explanation: ExplanationCard


class Graph(nn.Module):
    """What is exported. ``tail`` is None for the closed form; ``explain`` False leaves ``cam`` out."""

    def __init__(self, model: Classifier, tail: Tail | None, *, explain: bool = True) -> None:
        super().__init__()
        self.model = model
        self.tail = tail
        self.explain = explain
        mean, std = torch.tensor(model.mean), torch.tensor(model.std)
        self.register_buffer("offset", (mean * 255).view(1, 3, 1, 1))
        self.register_buffer("factor", (1 / (std * 255)).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """uint8 [N, H, W, 3] to logits, cam (unless left out) and embedding."""
        # The transpose moves bytes, a quarter of what it would move after the cast.
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        features = self.model.features((pixels - self.offset) * self.factor)  # type: ignore[operator]
        if self.tail is None:
            embedding = self.model.pool(features)
            slopes = self.model.head.weight
        else:
            values = self.tail.trace(self.tail.start(features))
            embedding = values[-1]
            weight = self.model.head.weight.unsqueeze(0)
            # One copy of the weights an image, since every image's activations bend them differently.
            slopes = self.tail.back(values, weight.expand(image.shape[0], -1, -1))
        logits = self.model.head(embedding)
        if not self.explain:
            return logits, embedding
        height, width = features.shape[2:]
        maps = torch.matmul(slopes / (height * width), features.flatten(2))
        return logits, torch.relu(maps).reshape(-1, maps.shape[1], height, width), embedding


def export_onnx(model: Classifier, size: tuple[int, int], path: Path, *, explain: bool = True) -> Exported:
    """Write the model as ONNX and check the file; ``size`` is (H, W) of the input.

    A model whose maps have no analytic form is exported without ``cam``, the reason in ``explanation``.

    Raises:
        ParityError: torch or ONNX can't take the model.
    """
    graph, names, reason = graph_of(model, explain=explain)
    # Two images, since an exporter may take a batch of one for a constant.
    example = torch.zeros((2, *size, 3), dtype=torch.uint8)
    with torch.no_grad():
        shapes = {name: tuple(value.shape[1:]) for name, value in zip(names, graph(example), strict=True)}
    with atomic_path(path) as temporary:
        write_onnx(graph, example, names, temporary, model.backbone_name)
    method = "none" if reason else ("closed-form" if model.closed_form else "vjp")
    return Exported(path, shapes, ExplanationCard(method, reason=reason))


def graph_of(model: Classifier, *, explain: bool = True) -> tuple[Graph, list[str], str | None]:
    """The module to export, its outputs' names in order, and why it has no ``cam`` (None where it has)."""
    model = model.cpu().float().eval().to(memory_format=torch.contiguous_format)
    tail: Tail | None = None
    reason: str | None = None if explain else "Left out on request."
    if explain and not model.closed_form:
        try:
            tail = find_tail(model)
        except UnknownTail as error:
            reason = str(error)
    graph = Graph(model, tail, explain=reason is None).eval()
    return graph, ["logits", "cam", "embedding"] if reason is None else ["logits", "embedding"], reason


def write_onnx(
    graph: nn.Module, example: Tensor, names: list[str], path: Path, what: str, *, input_name: str = INPUT
) -> None:
    """Write ``graph`` as checked ONNX with any number of images; ``example`` is a batch, at best of two.

    Raises:
        ParityError: torch or ONNX can't take it; ``what`` names it.
    """
    import onnx

    try:
        # The exporter prints its steps, and warns about its own internals.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
        model = program.model_proto
        _strip(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the exporter wraps whatever went wrong in classes of its own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ParityError(
            f"{what} can't be exported as ONNX: {first}",
            hint="Choose a backbone that torch.onnx can export, such as resnet50.",
        ) from error
    path.write_bytes(model.SerializeToString())


def _strip(model: Any) -> None:
    """Remove what names this machine (paths in stack traces), so that equal models have equal bytes."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    graph = model.graph
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    for group in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for item in group:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    # Functions would carry traces too; the exporter inlines them for standard operators.
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
