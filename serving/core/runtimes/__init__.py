"""What runs a model. Nothing outside this folder knows which library does."""

from serving.core.runtimes.base import OUTPUTS, Runtime
from serving.core.runtimes.kinds import KINDS, Kind
from serving.core.runtimes.open import AUTO, WarmUp, check_golden, open_runtime, warm_up
from serving.core.runtimes.tuned import Measured, Tuned, read_tuned, tuned_table, write_tuned

__all__ = [
    "AUTO",
    "KINDS",
    "OUTPUTS",
    "Kind",
    "Measured",
    "Runtime",
    "Tuned",
    "WarmUp",
    "check_golden",
    "open_runtime",
    "read_tuned",
    "tuned_table",
    "warm_up",
    "write_tuned",
]
