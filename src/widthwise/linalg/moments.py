"""Second moments and power sums of columns, streamed over rows, mergeable, in float64.

Everything that a ridge regression, its held-out error, linear CKA or a support mask need of the rows.
"""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from widthwise.errors import DataError

VECTORS = ("total", "squares", "cubes", "fourths", "low", "high")
BLOCK = 256  # columns: of the symmetric product only blocks on and right of the diagonal are computed


class Moments:
    """Sums over rows z of 1, z - shift, (z - shift)(z - shift)', and powers up to the fourth.

    The shift (by default the mean of the first batch) keeps the digits of columns with a large mean; it is
    exact bookkeeping, and `merge` undoes a difference in it.

    Args:
        columns: number of columns.
        shift: (columns,) the point about which sums are taken.

    Example:
        >>> import torch
        >>> rows = torch.arange(12.0).reshape(6, 2)
        >>> moments = Moments(2)
        >>> moments.update(rows[:4])
        >>> moments.update(rows[4:])
        >>> moments.mean
        tensor([5., 6.], dtype=torch.float64)
    """

    def __init__(self, columns: int, shift: Float[Tensor, " columns"] | None = None):
        self.columns = columns
        self.shift = None if shift is None else shift.to(torch.float64)
        self.n = 0
        self.total = torch.zeros(columns, dtype=torch.float64)
        self.squares = torch.zeros(columns, dtype=torch.float64)
        self.cubes = torch.zeros(columns, dtype=torch.float64)
        self.fourths = torch.zeros(columns, dtype=torch.float64)
        self.low = torch.full((columns,), torch.inf, dtype=torch.float64)
        self.high = torch.full((columns,), -torch.inf, dtype=torch.float64)
        self._second = torch.zeros(columns, columns, dtype=torch.float64)
        self._mirrored = True  # whether what lies below the diagonal is that above it

    def update(self, rows: Shaped[Tensor, "rows columns"]) -> None:
        """Add a batch of rows.

        Raises:
            DataError: at a NaN or infinite value, naming its row (of the batch) and column, or if the
                batch has another number of columns.
        """
        if rows.ndim != 2 or rows.shape[1] != self.columns:
            raise DataError(f"a batch must be of shape (rows, {self.columns}), not {tuple(rows.shape)}.")
        if len(rows) == 0:
            return
        rows = rows.to("cpu", torch.float64)
        check_finite(rows)
        if self.shift is None:
            self.shift = rows.mean(0)
        centred = rows - self.shift
        squares = centred.square()
        self.n += len(rows)
        self.total += centred.sum(0)
        self._add_products(centred)
        self.squares += squares.sum(0)
        self.cubes += (squares * centred).sum(0)
        self.fourths += squares.square().sum(0)
        self.low = torch.minimum(self.low, rows.amin(0))
        self.high = torch.maximum(self.high, rows.amax(0))

    @property
    def second(self) -> Float[Tensor, "rows columns"]:
        """The sum of (z - shift)(z - shift)': of all columns with all, but after `select` with `rows`."""
        if not self._mirrored:
            for start in range(0, self.columns, BLOCK):
                stop = start + BLOCK
                self._second[stop:, start:stop] = self._second[start:stop, stop:].T
            self._mirrored = True
        return self._second

    def merge(self, other: "Moments") -> None:
        """Add the rows of another, exactly, whatever shift each has."""
        if other.n == 0:
            return
        if self.shift is None or self.n == 0:
            self.shift = other.shift
        self._add(other.about(self.shift))

    def about(self, shift: Float[Tensor, " columns"] | None) -> "Moments":
        """Return the same sums about another point (itself, if it is the same point)."""
        assert shift is not None
        assert self.shift is not None
        d = self.shift - shift
        if not d.any():
            return self
        moved = Moments(self.columns, shift)
        moved.n, moved.low, moved.high = self.n, self.low, self.high
        moved.total = self.total + self.n * d
        cross = torch.outer(d, self.total)
        moved._second = self.second + cross + cross.T + self.n * torch.outer(d, d)
        moved.squares, moved.cubes, moved.fourths = self._powers_about(d)
        return moved

    def select(self, columns: Int[Tensor, " chosen"], rows: int | None = None) -> "Moments":
        """Return the moments of some of the columns, in the order given, for reading and merging.

        Args:
            rows: hold `second` only between the first of them, as many as this, and all.
        """
        assert self.shift is not None
        chosen = copy.copy(self)
        chosen.columns, chosen.shift = len(columns), self.shift[columns]
        for name in VECTORS:
            setattr(chosen, name, getattr(self, name)[columns])
        chosen._second, chosen._mirrored = self.second[_index(columns[:rows])][:, _index(columns)], True
        return chosen

    @property
    def mean(self) -> Float[Tensor, " columns"]:
        """The mean of every column."""
        assert self.shift is not None
        return self.shift + self.total / self.n

    @property
    def centred_squares(self) -> Float[Tensor, " columns"]:
        """The sum of squares of every column about its mean; exactly 0 for a constant one."""
        squares = (self.squares - self.total.square() / self.n).clamp_min(0)
        return torch.where(self.constant, 0.0, squares)

    @property
    def constant(self) -> Bool[Tensor, " columns"]:
        """Whether a column's largest value is its smallest."""
        return self.low == self.high

    @property
    def effective_rows(self) -> Float[Tensor, " columns"]:
        """(sum c^2)^2 / sum c^4 of every centred column: k for an indicator of k rows, n/3 for a Gaussian."""
        fourth = self._powers_about(-self.total / self.n)[2]
        return torch.where(self.constant, 0.0, self.centred_squares.square() / fourth.clamp_min(1e-300))

    def _add(self, other: "Moments") -> None:
        self.n += other.n
        self._second += other._second
        self._mirrored = self._mirrored and other._mirrored
        for name in ("total", "squares", "cubes", "fourths"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.low = torch.minimum(self.low, other.low)
        self.high = torch.maximum(self.high, other.high)

    def _add_products(self, centred: Float[Tensor, "rows columns"]) -> None:
        for start in range(0, self.columns, BLOCK):
            own = centred[:, start : start + BLOCK]
            self._second[start : start + BLOCK, start:].addmm_(own.T, centred[:, start:])
        self._mirrored = False

    def _powers_about(self, d: Float[Tensor, " columns"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of (c + d)^2, (c + d)^3 and (c + d)^4 over the rows' c = z - shift."""
        n, total, squares, cubes = self.n, self.total, self.squares, self.cubes
        return (
            squares + 2 * d * total + n * d**2,
            cubes + 3 * d * squares + 3 * d**2 * total + n * d**3,
            self.fourths + 4 * d * cubes + 6 * d**2 * squares + 4 * d**3 * total + n * d**4,
        )


def merged(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all the rows of `parts` together, added in their order."""
    parts = iter(parts)
    total = copy.copy(next(parts))
    total._second = total._second.clone()
    for part in parts:
        total.merge(part)
    return total


def _index(columns: Int[Tensor, " chosen"]) -> slice | Int[Tensor, " chosen"]:
    """Return the columns as a slice, which copies nothing, where they are consecutive."""
    if len(columns) and bool((columns.diff() == 1).all()):
        return slice(int(columns[0]), int(columns[-1]) + 1)
    return columns


def check_finite(rows: Float[Tensor, "rows columns"]) -> None:
    """Raise a DataError that names the first row and column with a NaN or infinite value."""
    if not torch.isfinite(rows.sum()):
        bad = (~torch.isfinite(rows)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            value = rows[row, column].item()
            raise DataError(f"row {row}, column {column} is {value}; every value must be a finite number.")
