"""Second moments and power sums of columns, streamed over rows, mergeable, in float64.

Everything that a ridge regression, its held-out error, linear CKA or a support mask need of the rows.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from widthwise import devices
from widthwise.errors import DataError, UsageError
from widthwise.linalg import half_square, intake
from widthwise.linalg.packed import ROWS, Packed, Product, Products

PRECISIONS = ("float64", "float32_chunks")
LOOKED = 2048  # crossed columns, at most, of whose products rounding is measured
STEPS = 30  # of a power iteration
UNIT = 2.0**-24  # of float32's rounding


class Moments:
    """Sums over rows z of 1, z - shift, (z - shift)(z - shift)', and powers up to the fourth.

    The shift (by default the mean of the first batch) keeps the digits of columns with a large mean; it is
    exact bookkeeping, and `merge` undoes a difference in it. Rows wait in a buffer until there are enough for one
    matrix product.

    Args:
        columns: number of columns.
        shift: (columns,) the point about which sums are taken.
        crossed: take products only of the first columns, as many as this, with all; of all if left out.
        powered: take third and fourth powers only of columns from this one on (NaN for those before it, which are
            crossed); `effective_rows` needs them.
        precision: "float64"; or "float32_chunks", which multiplies 512 rows at a time in float32 and sums the
            products in float64: faster, for 3e-7 of two columns' deviations in their product. `rounding` then says what
            the first rows have shown: the norm of what the products of crossed columns of length 1 are off by.
        device: where the sums are kept and made.

    Raises:
        UsageError: for another precision.

    Example:
        >>> import torch
        >>> rows = torch.arange(12.0).reshape(6, 2)
        >>> moments = Moments(2)
        >>> moments.update(rows[:4])
        >>> moments.update(rows[4:])
        >>> moments.mean
        tensor([5., 6.], dtype=torch.float64)
    """

    def __init__(
        self,
        columns: int,
        shift: Float[Tensor, " columns"] | None = None,
        *,
        crossed: int | None = None,
        powered: int = 0,
        precision: str = "float64",
        device: str | torch.device = "cpu",
    ):
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be {' or '.join(map(repr, PRECISIONS))}, not {precision!r}.")
        self.columns = columns
        self.crossed = columns if crossed is None else crossed
        assert powered <= self.crossed, "columns that are neither crossed nor powered have no squares"
        self.powered, self.precision, self.device = powered, precision, torch.device(device)
        self.shift = None if shift is None else shift.to(self.device, torch.float64)
        self.n, self.rounding = 0, 0.0
        self.low, self.high = self._vector(torch.inf), self._vector(-torch.inf)
        self._total = self._vector(0.0)
        self._powers = self._vector(0.0).repeat(3, 1)[:, powered:]  # sums of squares, cubes and fourth powers
        # Of the products only blocks of rows, from the diagonal on: a symmetric matrix at half its size.
        self._blocks = [self._zeros(stop - start, columns - start) for start, stop in self._cuts]
        self._buffer: Packed | None = None  # rows less the shift that are not in the sums of products yet
        self._waiting = 0

    def update(self, *pieces: Shaped[Tensor, "rows _"], rows: Int[Tensor, " chosen"] | None = None) -> None:
        """Add a batch of rows: a matrix, or several side by side; of them all rows, or those of some numbers.

        Raises:
            DataError: at a NaN or infinite value, naming its row (of the batch) and column, or if the
                batch has another number of columns; the sums are then as before.
        """
        if any(piece.ndim != 2 for piece in pieces) or sum(piece.shape[1] for piece in pieces) != self.columns:
            told = " beside ".join(str(tuple(piece.shape)) for piece in pieces)
            raise DataError(f"a batch must be of shape (rows, {self.columns}), not {told}.")
        added, start = len(pieces[0]) if rows is None else len(rows), 0
        if added == 0:
            return
        pieces = tuple(intake.plain(devices.moved(piece, self.device)) for piece in pieces)
        rows = None if rows is None else rows.to(self.device, torch.int64).contiguous()
        low, high = map(torch.cat, zip(*(intake.extremes(piece, rows) for piece in pieces), strict=True))
        if bool(low.isnan().any()):
            check_finite(torch.cat([piece.to(torch.float64) for piece in pieces], 1), rows)
        if self.shift is None:
            own = slice(None) if rows is None else rows
            self.shift = torch.cat([piece[own].mean(0, dtype=torch.float64) for piece in pieces])
        self.n += added
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        while start < added:
            stop = min(start + ROWS - self._waiting, added)
            if rows is None:
                self._wait([piece[start:stop] for piece in pieces], None, self.shift)
            else:
                self._wait(pieces, rows[start:stop], self.shift)
            start = stop

    # The sums ---------------------------------------------------------------------------------------------

    @property
    def total(self) -> Float[Tensor, " columns"]:
        """The sum of z - shift."""
        return self._total

    @property
    def squares(self) -> Float[Tensor, " columns"]:
        """The sum of (z - shift)^2; NaN for columns selected without their products that have no powers either."""
        self.flush()
        crossed = [block.diagonal() for block in self._blocks]
        known = torch.cat([self._total[:0], *crossed])[: self.powered]
        unknown = self._total.new_full((self.powered - len(known),), torch.nan)
        return torch.cat([known, unknown, self._powers[0]])

    @property
    def second(self) -> Float[Tensor, "crossed columns"]:
        """The sum of (z - shift)(z - shift)': of the crossed columns with all."""
        return self.products(torch.arange(self.crossed), torch.arange(self.columns))

    def products(self, rows: Int[Tensor, " rows"], columns: Int[Tensor, " _"], out: Tensor | None = None) -> Tensor:
        """Return the sum of (z - shift)(z - shift)' of some crossed columns with some of all, in `out` if given."""
        self.flush()
        new = torch.empty(len(rows), len(columns), dtype=torch.float64, device=self.device) if out is None else out
        return half_square.taken(self._blocks, rows, columns, new)

    def times(self, V: Float[Tensor, "crossed some"]) -> Float[Tensor, "crossed some"]:
        """Return the sum of (z - shift)(z - shift)' over the crossed columns, times V: without making the matrix."""
        self.flush()
        product = torch.zeros_like(V)
        for (start, stop), block in zip(self._cuts, self._blocks, strict=True):
            square = block[:, : self.crossed - start]
            product[start:stop].addmm_(square, V[start:])
            product[stop:].addmm_(square[:, stop - start :].T, V[start:stop])
        return product

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
        fourth = self._powers_about(-self.total / self.n)[2].clamp_min(1e-300)
        fourth = torch.cat([torch.full_like(self.total[: self.powered], torch.nan), fourth])
        return torch.where(self.constant, 0.0, self.centred_squares.square() / fourth)

    # Together and apart -----------------------------------------------------------------------------------

    def merge(self, other: "Moments") -> None:
        """Add the rows of another, exactly, whatever shift each has."""
        if other.n == 0:
            return
        if self.shift is None or self.n == 0:
            self.shift = other.shift
        other = other.about(self.shift)
        self.flush()
        other.flush()
        self.n, self.rounding = self.n + other.n, max(self.rounding, other.rounding)
        self._total = self._total + other.total
        self._powers = self._powers + other._powers
        self._blocks = [mine + theirs for mine, theirs in zip(self._blocks, other._blocks, strict=True)]
        self.low, self.high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)

    def about(self, shift: Float[Tensor, " columns"] | None) -> "Moments":
        """Return the same sums about another point (itself, if it is the same point)."""
        assert shift is not None
        assert self.shift is not None
        d = self.shift - shift
        if not d.any():
            return self
        moved, c = self._like(self.columns, self.crossed, self.powered), slice(self.crossed)
        moved.shift, moved.n, moved.low, moved.high = shift, self.n, self.low, self.high
        moved.rounding = self.rounding
        moved._total = self.total + self.n * d
        cross = torch.outer(d[c], self.total) + torch.outer(self.total[c], d)
        moved._pack(self.second + cross + self.n * torch.outer(d[c], d))
        moved._powers = torch.stack(self._powers_about(d))
        return moved

    def select(self, columns: Int[Tensor, " chosen"], crossed: int | None = None) -> "Moments":
        """Return the moments of some of the columns, in the order given, for reading and merging.

        Args:
            crossed: how many of them, from the first on, to hold products of; all if left out.
        """
        assert self.shift is not None
        crossed = len(columns) if crossed is None else crossed
        if crossed == self.crossed and half_square.consecutive(columns) == slice(0, self.columns):
            return self
        powered = int((columns < self.powered).sum())
        assert bool((columns[:powered] < self.powered).all()), "columns without powers come first"
        chosen = self._like(len(columns), 0, 0)
        chosen.crossed, chosen.powered, chosen.rounding = crossed, powered, self.rounding
        chosen.n, chosen.shift, chosen._total = self.n, self.shift[columns], self.total[columns]
        chosen.low, chosen.high = self.low[columns], self.high[columns]
        chosen._powers = self._powers[:, columns[powered:] - self.powered]
        if crossed:
            chosen._pack(self.products(columns[:crossed], columns))
        return chosen

    def save(self, path: str | Path) -> None:
        """Write the sums to a safetensors file."""
        from safetensors.torch import save_file

        assert self.shift is not None, "no rows, no moments"
        self.flush()
        blocks = torch.cat([self.total[:0], *(block.flatten() for block in self._blocks)])
        sums = {"total": self.total, "powers": self._powers, "blocks": blocks, "shift": self.shift}
        sizes = torch.tensor([self.n, self.crossed, self.powered])
        tensors = sums | {"low": self.low, "high": self.high, "sizes": sizes, "rounding": torch.tensor(self.rounding)}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> "Moments":
        """Return the moments that `save` wrote, on the CPU.

        Raises:
            DataError: if the file is damaged, or of something else.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            read = load_file(path)
            n, crossed, powered = read["sizes"].tolist()
            if not (n >= 1 and 0 <= powered <= crossed <= len(read["shift"])):
                raise ValueError(f"{n} rows, {crossed} crossed and {powered} not powered columns cannot be")
            loaded = cls(len(read["shift"]), read["shift"], crossed=crossed, powered=powered)
            kept = {"total": loaded._total, "powers": loaded._powers, "low": loaded.low, "high": loaded.high}
            for name, own in kept.items():
                if read[name].shape != own.shape or read[name].dtype != own.dtype:
                    raise ValueError(f"{name} is {tuple(read[name].shape)}, {read[name].dtype}")
            blocks = read["blocks"].split([block.numel() for block in loaded._blocks])
            loaded._blocks = [new.view_as(old) for new, old in zip(blocks, loaded._blocks, strict=True)]
            loaded.n, loaded._total, loaded._powers = n, read["total"], read["powers"]
            loaded.low, loaded.high = read["low"], read["high"]
            loaded.rounding = float(read.get("rounding", 0.0))
        except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
            raise DataError(f"{path} does not hold moments ({error}); write them again with save.") from error
        return loaded

    @classmethod
    def of(cls, n: int, second: Float[Tensor, "columns columns"], **sums: Shaped[Tensor, "*_ columns"]) -> "Moments":
        """Return the moments of n rows whose sums are known: shift, total, powers (2nd to 4th), low, high, second."""
        made = cls(len(second), sums["shift"], device=second.device)
        made.n, made._total, made._powers = n, sums["total"], sums["powers"]
        made.low, made.high = sums["low"], sums["high"]
        made._pack(second)
        return made

    # Inside -----------------------------------------------------------------------------------------------

    @property
    def _cuts(self) -> list[tuple[int, int]]:
        return half_square.cuts(self.crossed)

    def _zeros(self, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        return torch.zeros(rows, columns, dtype=torch.float64, device=self.device)

    def _pack(self, second: Float[Tensor, "crossed columns"]) -> None:
        self._blocks = [second[start:stop, start:].clone() for start, stop in self._cuts]

    def _vector(self, value: float) -> Float[Tensor, " columns"]:
        return torch.full((self.columns,), value, dtype=torch.float64, device=self.device)

    def _like(self, columns: int, crossed: int, powered: int) -> "Moments":
        kind = {"precision": self.precision, "device": self.device}
        return Moments(columns, crossed=crossed, powered=powered, **kind)

    def _wait(
        self,
        pieces: Sequence[Float[Tensor, "rows _"]],
        chosen: Int[Tensor, " chosen"] | None,
        shift: Float[Tensor, " columns"],
    ) -> None:
        """Put some rows less the shift into the buffer, which has room for them, and their powers into the sums."""
        if self._buffer is None:
            self._buffer = own = Packed(self.columns, self.device)
            each = zip(self._cuts, self._blocks, strict=True)
            products = (Product(own, slice(a, b), own, slice(a, self.columns), out, upper=True) for (a, b), out in each)
            self._products = Products(list(products))
        waiting, first = self._waiting, 0
        self._waiting += len(pieces[0]) if chosen is None else len(chosen)
        for rows in pieces:
            own, at = slice(first, first + rows.shape[1]), max(first - self.powered, 0)
            powers = self._powers[:, at : max(own.stop - self.powered, 0)]
            self._buffer.take(rows, chosen, shift[own], self._total[own], powers, column=first, row=waiting)
            first = own.stop
        if self._waiting == ROWS:
            self._add_products(self._buffer)

    def flush(self) -> None:
        """Bring the products of the rows that wait into the sums, and let go of the buffer."""
        if self._buffer is None:
            return
        if self._waiting:
            self._add_products(self._buffer)
        self._buffer = None
        del self._products
        half_square.mirror(self._blocks)

    def _add_products(self, rows: Packed) -> None:
        """Add the products of all rows that wait."""
        if self.precision == "float64":
            self._products.add(self._waiting)
        else:
            with _float32_products(self.device.type):
                exact = rows.columns(slice(0, self.columns), self._waiting)
                short = exact.to(torch.float32)
                if not self.rounding:
                    self.rounding = _rounding(exact[: self.crossed], short[: self.crossed])
                for (start, stop), block in zip(self._cuts, self._blocks, strict=True):
                    block += torch.mm(short[start:stop], short[start:].T)
        self._waiting = 0

    def _powers_about(self, d: Float[Tensor, " columns"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of (c + d)^2, (c + d)^3 and (c + d)^4 over the rows' c = z - shift, of powered columns."""
        n, total, d = self.n, self.total[self.powered :], d[self.powered :]
        squares, cubes, fourths = self._powers
        return (
            squares + 2 * d * total + n * d**2,
            cubes + 3 * d * squares + 3 * d**2 * total + n * d**3,
            fourths + 4 * d * cubes + 6 * d**2 * squares + 4 * d**3 * total + n * d**4,
        )


def merged(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all the rows of `parts` together, added in their order; of one, itself."""
    parts = list(parts)
    first, *others = [part for part in parts if part.n] or parts[:1]
    if not others:
        return first
    first.flush()
    total = copy.copy(first)  # What `merge` adds up is new: of what is shared nothing changes.
    for part in others:
        total.merge(part)
    return total


def _rounding(exact: Float[Tensor, "columns rows"], short: Float[Tensor, "columns rows"]) -> float:
    """Return the spectral norm of what products of columns in float32 are off by, the columns scaled to length 1.

    At least a unit of rounding: rows whose products are exact, as of small whole numbers, say nothing of those behind.
    Of many columns the first are looked at, and the rest taken for as noisy: the norm of noise grows as their root.
    """
    columns = len(exact)
    exact, short = exact[:LOOKED], short[:LOOKED]
    length = exact.norm(dim=1).clamp_min(1e-300)
    off = (short @ short.T - exact @ exact.T) / length / length[:, None]
    v = torch.randn(len(off), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(off)
    norm = 0.0
    for _ in range(STEPS):
        v = off @ (v / v.norm().clamp_min(1e-300))
        norm = float(v.norm())
    return max(norm * (columns / max(len(exact), 1)) ** 0.5, UNIT)


@contextmanager
def _float32_products(device: str) -> Iterator[None]:
    """Multiply in float32 whatever the caller allows: no TF32, no bfloat16, no autocast."""
    with devices.as_told(), torch.autocast(device, enabled=False):
        yield


def check_finite(rows: Float[Tensor, "rows columns"], chosen: Int[Tensor, " chosen"] | None = None) -> None:
    """Raise a DataError that names the first row and column with a NaN or infinite value, of all rows or the chosen."""
    bad = (~torch.isfinite(rows if chosen is None else rows[chosen])).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        row = row if chosen is None else int(chosen[row])
        value = rows[row, column].item()
        raise DataError(f"row {row}, column {column} is {value}; every value must be a finite number.")
