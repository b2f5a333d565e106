"""Times, sizes, facts and tables as plain text for a terminal, and values as JSON has them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def duration(seconds: float) -> str:
    """Return a time such as "40 s", "12 min", "3.5 h" or "9 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:,.0f} days"


def size(n: float) -> str:
    """Return a number of bytes such as "350 MB" or "1.2 GB"."""
    return f"{n / 1e6:,.0f} MB" if n < 1e9 else f"{n / 1e9:,.1f} GB"


def percent(done: float, total: float) -> str:
    """Return a share in whole per cent, rounded down: 100 % is done."""
    return f"{int(100 * done / total) if total else 100} %"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells, every column as wide as its widest cell."""
    spans = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(n) for cell, n in zip(line, spans, strict=True)) for line in lines)


def facts(given: Mapping[str, Any]) -> str:
    """Return one fact a line, without those that are None or empty; a long text stands by itself."""
    told = {name: value for name, value in given.items() if value is not None and value != {}}
    span = max(map(len, told))
    return "\n".join(
        f"\n{value}\n" if "\n" in str(value) else f"{name:>{span}}  {_plain(value)}" for name, value in told.items()
    )


def by_width(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return maps from width to count as a table, one row a width."""
    widths = next(iter(counts.values()))
    rows = [(width, *(f"{of[width]:,}" for of in counts.values())) for width in widths]
    return table([("width", *counts), *rows])


def for_json(value: Any) -> Any:
    """Return a value as JSON has it: NaN and infinity, for which it has no word, as None; tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [for_json(part) for part in value]
    return {name: for_json(part) for name, part in value.items()} if isinstance(value, dict) else value


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
