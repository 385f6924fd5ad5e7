"""Models that were trained elsewhere: ONNX, TorchScript, or a state dict with a named architecture."""

from .foreign import Foreign
from .run import import_model

__all__ = ["Foreign", "import_model"]
