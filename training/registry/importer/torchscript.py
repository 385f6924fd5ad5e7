"""TorchScript as ONNX. Loading such a file compiles and may run code in it, so it must be trusted by name.

The code is TorchScript, not Python: it can't import modules, but it can read and write files through torch's
operators. ``--trust`` says that the file's origin is known.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

from data.errors import UsageError

OPSET = 17


def to_onnx(path: Path, out: Path, size: tuple[int, int], *, trust: bool) -> None:
    """Write the model as ONNX with float input [N, 3, H, W].

    Raises:
        UsageError: it is not trusted, or it can't be loaded or exported.
    """
    if not trust:
        raise UsageError(
            f"{path.name} is TorchScript: loading it runs code that is inside the file.",
            hint="Add --trust if you know where it comes from; or export it as ONNX or safetensors there.",
        )
    import torch

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            model: Any = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            # The newer exporter takes no ScriptModule (torch 2.14).
            torch.onnx.export(
                model,
                (torch.zeros(2, 3, *size),),
                str(out),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=None,
                dynamic_axes={"image": {0: "N"}},
            )
    except Exception as error:  # torch wraps whatever a file's code raises in classes of its own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{path.name} can't be taken as TorchScript: {first}",
            hint="Export it as ONNX where it was trained.",
        ) from error
