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

    `name` is its file's. For readers only: the columns in `signed` show a plus sign, the cell `marked` a
    star, `interval` names three columns that are read as one, "value [low, high]", and those in `aside` are
    left out.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    signed: frozenset[str] = frozenset()
    marked: str | None = None
    interval: tuple[str, str, str] | None = None
    aside: frozenset[str] = frozenset()

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers and nothing else: those are set to the right."""
        return [_numbers([row[k] for row in self.rows]) for k in range(len(self.header))]

    @property
    def heads(self) -> list[str]:
        """The header as a reader sees it."""
        value = self.interval[0] if self.interval else None
        return [f"{name} [95 %]" if name == value else name.replace("_", " ") for name in self.header]

    @property
    def texts(self) -> list[list[str]]:
        """Every cell as a reader sees it."""
        return [
            [self._text(dict(zip(self.header, row, strict=True)), name) for name in self.header] for row in self.rows
        ]

    @property
    def shown(self) -> list[int]:
        """The columns that a reader sees: not those aside, nor the ends of an interval, nor empty ones."""
        out = self.aside | set(self.interval[1:] if self.interval else ())
        filled = [any(finite(row[k]) is not None for row in self.rows) for k in range(len(self.header))]
        return [k for k, name in enumerate(self.header) if name not in out and filled[k]]

    def _text(self, row: dict[str, Cell], name: str) -> str:
        if self.marked is not None and row[name] == self.marked:
            return f"{row[name]}*"
        words = text(row[name], name in self.signed)
        if self.interval and name == self.interval[0]:
            low, high = (text(row[end], name in self.signed) for end in self.interval[1:])
            return f"{words} [{low}, {high}]" if low and high else words
        return words


def text(value: Cell, signed: bool = False) -> str:
    """Return a value as a reader wants it: four decimals near 1, fewer above, nothing for nothing."""
    value = finite(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return format(value, ("+" if signed else "") + _form(value))


def _form(value: float) -> str:
    size = abs(value)
    if size >= 1e6 or 0 < size < 5e-5:
        return ".1e"
    if value.is_integer() or size >= 1000:
        return ".0f"
    return ".4f" if size < 10 else ".2f"


def finite(value: Cell) -> Cell:
    """Return the value, or None for NaN and infinity: CSV and JSON have no word for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_text(table: Table) -> str:
    """Return the table in aligned columns of plain text: numbers to the right, words to the left."""
    lines = _read(table)
    sizes = [max(len(line[k]) for line in lines) for k in range(len(table.shown))]
    gap = "  " if sum(sizes) + 2 * len(sizes) - 2 <= TERMINAL_COLUMNS else " "
    columns = list(zip(sizes, _right(table), strict=True))
    lines.insert(1, ["-" * size for size in sizes])
    return "\n".join(
        gap.join(
            cell.rjust(n) if right else cell.ljust(n) for cell, (n, right) in zip(line, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def to_markdown(table: Table) -> str:
    """Return the table as a Markdown table."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in _read(table)]
    lines.insert(1, ["--:" if right else ":--" for right in _right(table)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_latex(table: Table) -> str:
    """Return the table for LaTeX, with booktabs' rules: what a reader sees, the caption above it."""
    lines = [[_latex(cell) for cell in line] for line in _read(table)]
    columns = "".join("r" if right else "l" for right in _right(table))
    head, *body = [f"{' & '.join(line)} \\\\" for line in lines]
    rules = ["\\toprule", head, "\\midrule", *body, "\\bottomrule"]
    inside = "\n".join(rules)
    return (
        f"\\begin{{table}}\n\\caption{{{_latex(table.title)}. {_latex(table.caption)}}}\n\\label{{tab:{table.name}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n{inside}\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


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


def _read(table: Table) -> list[list[str]]:
    """Return the header and the rows as a reader sees them."""
    return [[line[k] for k in table.shown] for line in [table.heads, *table.texts]]


def _right(table: Table) -> list[bool]:
    return [table.numeric[k] for k in table.shown]


def _numbers(cells: list[Cell]) -> bool:
    filled = [cell for cell in cells if cell is not None]
    return bool(filled) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in filled)
