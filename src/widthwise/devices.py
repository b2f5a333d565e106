"""Where numbers are computed: a processor or a card, by name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from widthwise.errors import UsageError


def named(name: str | torch.device, option: str = "device") -> torch.device:
    """Return the device of a name: "cpu", "cuda" or a card such as "cuda:1".

    Args:
        option: what the caller calls it.

    Raises:
        UsageError: for another name, or a card that torch does not see.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(name)):
        raise UsageError(f'{option} must be cpu, cuda or a card such as cuda:1, not "{name}".')
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = f"{torch.cuda.device_count()} cards" if torch.cuda.is_available() else "no card"
        raise UsageError(f"{option} {name}: torch {torch.__version__} sees {there}; cpu is the default.")
    return device


def is_card(device: str | torch.device) -> bool:
    """Return whether a device, or the one of a name, is a card."""
    return torch.device(device).type == "cuda"


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from the processor to a card, without waiting until it is there."""
    if tensor.is_cuda or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def as_told() -> Iterator[None]:
    """Let float32 be float32, whatever the caller allows (no TF32), and a card take the same kernels every time."""
    cudnn: Any = torch.backends.cudnn
    precision = torch.get_float32_matmul_precision()
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
