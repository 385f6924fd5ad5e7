"""Where and in which precision a model trains, and what this machine's memory and kernels need for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from data.errors import UsageError
from data.provenance import cpu_quota

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2  # names of glibc's mallopt


def choose_device(asked: str) -> torch.device:
    """``auto`` is this process's GPU where there is one, otherwise the CPU; or a device by torch's name."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked.partition(":")[0] not in {"cpu", "cuda"}:
        raise UsageError(f"Training can't run on {asked!r}.", hint="Use auto, cpu, cuda or cuda:1.")
    device = torch.device(asked)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("There is no usable GPU here.", hint="Use --device cpu.")
        if ":" not in asked:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def choose_precision(asked: str, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16``; ``auto`` is bf16 where the hardware multiplies it, otherwise fp32."""
    if device.type == "cuda":
        if asked == "auto":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return asked
    if asked == "fp16":
        raise UsageError("fp16 is for GPUs.", hint="Use precision auto, bf16 or fp32 on a CPU.")
    if asked == "auto":
        flags = torch.cpu.get_capabilities()
        native = any(flags.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return "bf16" if native else "fp32"
    return asked


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a training forward pass."""
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=precision != "fp32")


def spare_depthwise(model: nn.Module, device: torch.device, precision: str) -> None:
    """Let depthwise convolutions run in fp32 within bf16 on a CPU.

    oneDNN's backward pass of a bf16 depthwise convolution takes 3 to 6 times as long as the fp32 one, while
    everything else gains (``benchmarks/training.py``).
    """
    if device.type != "cpu" or precision != "bf16":
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.groups == module.in_channels:
            module.forward = _in_fp32(module.forward)  # type: ignore[method-assign,assignment]


def _in_fp32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def wrapped(images: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return forward(images)
        with torch.autocast("cpu", enabled=False):
            return forward(images.float()).bfloat16()

    return wrapped


@contextlib.contextmanager
def steady(device: torch.device) -> Iterator[None]:
    """Deterministic kernels, all of this process's CPUs, and memory that is kept between steps.

    glibc maps every large tensor anew and gives it back at once, so that each step faults its pages in again:
    keeping them makes a training step up to twice as fast. Everything is put back afterwards.
    """
    libc = _glibc() if device.type == "cpu" else None
    threads = torch.get_num_threads()
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cpu_quota() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    cudnn.deterministic, cudnn.benchmark = True, False
    if libc is not None:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)  # never
        libc.mallopt(_TOP_PAD, 64 << 20)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = before
        if libc is not None:
            libc.mallopt(_MMAP_MAX, 65536)
            libc.mallopt(_TRIM_THRESHOLD, 128 << 10)
            libc.mallopt(_TOP_PAD, 128 << 10)
            libc.malloc_trim(0)


def _glibc() -> Any | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") else None
    except OSError:
        return None
