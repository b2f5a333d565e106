"""Whether moments fit in memory, asked before they are made: without it a process ends and nobody says why."""

import os

import torch

from widthwise.errors import UsageError

BYTES = 8


def check(crossed: int, columns: int, cells: int, device: torch.device) -> None:
    """Refuse second moments that this machine, or card, cannot hold: those of every cell, and as much again for a fit.

    Args:
        crossed: columns of which products are taken, with all.
        device: whose memory holds them.

    Raises:
        UsageError: saying how much they take and what takes less.
    """
    needed = BYTES * (cells + 1) * crossed * (columns - crossed / 2)
    holder = "machine" if device.type == "cpu" else "card"
    there = physical() if device.type == "cpu" else float(torch.cuda.mem_get_info(device)[1])
    if needed > there:
        raise UsageError(
            f"second moments of {crossed} features in {cells} parts, and a fit of them, take {needed / 1e9:.1f} GB; "
            f'this {holder} has {there / 1e9:.1f} GB. Give fewer features, fewer folds or split="test", or use a '
            f"{holder} with more memory."
        )


def physical() -> float:
    """Return the bytes of memory that this machine has; infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
