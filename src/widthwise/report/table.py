"""One table of plain values, and its forms: aligned text, Markdown, CSV, JSON."""

import csv
import io
import json
import math
from dataclasses import dataclass

Cell = str | int | float | bool | None
TERMINAL_COLUMNS = 100


@dataclass(frozen=True)
class Table:
    """A table of plain values.

    `name` is its file's. For readers only: the columns in `signed` show a plus sign, the cell `marked` a star.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    signed: frozenset[str] = frozenset()
    marked: str | None = None

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers and nothing else: those are set to the right."""
        return [_numbers([row[k] for row in self.rows]) for k in range(len(self.header))]

    @property
    def texts(self) -> list[list[str]]:
        """Every cell as a reader sees it."""
        signs = [name in self.signed for name in self.header]
        return [[self._text(cell, sign) for cell, sign in zip(row, signs, strict=True)] for row in self.rows]

    def _text(self, cell: Cell, signed: bool) -> str:
        return f"{cell}*" if self.marked is not None and cell == self.marked else text(cell, signed)


def text(value: Cell, signed: bool = False) -> str:
    """Return a value as a reader wants it: four decimals near 1, fewer above, nothing for nothing."""
    value = finite(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    size = abs(value)
    form = ".1e" if 0 < size < 5e-5 else ".4f" if size < 10 else ".2f" if size < 1000 else ".0f"
    return format(value, ("+" if signed else "") + form)


def finite(value: Cell) -> Cell:
    """Return the value, or None for NaN and infinity: CSV and JSON have no word for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_text(table: Table) -> str:
    """Return the table in aligned columns of plain text: numbers to the right, words to the left."""
    cells = [list(table.header), *table.texts]
    sizes = [max(len(line[k]) for line in cells) for k in range(len(table.header))]
    gap = "  " if sum(sizes) + 2 * len(sizes) - 2 <= TERMINAL_COLUMNS else " "
    columns = list(zip(sizes, table.numeric, strict=True))
    lines = [
        gap.join(cell.rjust(n) if right else cell.ljust(n) for cell, (n, right) in zip(line, columns, strict=True))
        for line in cells
    ]
    lines.insert(1, gap.join("-" * size for size in sizes))
    return "\n".join(line.rstrip() for line in lines)


def to_markdown(table: Table) -> str:
    """Return the table as a Markdown table."""
    rule = ["--:" if right else ":--" for right in table.numeric]
    lines = [list(table.header), rule, *table.texts]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def to_csv(table: Table) -> str:
    """Return the table as CSV with a header, every number at full precision."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([finite(cell) for cell in row] for row in table.rows)
    return lines.getvalue()


def to_json(table: Table) -> str:
    """Return the table as a JSON list of objects, NaN as null."""
    rows = [dict(zip(table.header, map(finite, row), strict=True)) for row in table.rows]
    return json.dumps(rows, indent=1)


def _numbers(cells: list[Cell]) -> bool:
    filled = [cell for cell in cells if cell is not None]
    return bool(filled) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in filled)
