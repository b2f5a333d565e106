"""Whether moments fit in memory, asked before they are made: without it a process ends and nobody says why."""

import os

from widthwise.errors import UsageError

BYTES = 8


def check(crossed: int, columns: int, cells: int) -> None:
    """Refuse second moments that this machine cannot hold: those of every cell, and as much again for a fit.

    Args:
        crossed: columns of which products are taken, with all.

    Raises:
        UsageError: saying how much they take and what takes less.
    """
    needed = BYTES * (cells + 1) * crossed * (columns - crossed / 2)
    if needed > physical():
        raise UsageError(
            f"second moments of {crossed} features in {cells} parts, and a fit of them, take {needed / 1e9:.1f} GB; "
            f'this machine has {physical() / 1e9:.1f} GB. Give fewer features, fewer folds or split="test", or use a '
            "machine with more memory."
        )


def physical() -> float:
    """Return the bytes of memory that this machine has; infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
