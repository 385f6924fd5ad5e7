"""What runs a model. Nothing outside this folder knows which library does."""

from serving.core.runtimes.base import OUTPUTS, Runtime
from serving.core.runtimes.open import WarmUp, open_runtime, warm_up

__all__ = ["OUTPUTS", "Runtime", "WarmUp", "open_runtime", "warm_up"]
