"""Where an error goes as rows, or networks, grow without end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar


def richardson(half: float, full: float) -> float:
    """Return 2 F(n) - F(n/2): the limit of an error that falls as 1 / n."""
    return 2 * full - half


def aitken(quarter: float, half: float, full: float) -> float | None:
    """Return F(n) - D2^2 / (D1 - D2), with D1 = F(n/4) - F(n/2) and D2 = F(n/2) - F(n).

    None unless 0 < D2 < D1: there is no geometric sequence through the three (Aitken 1926).
    """
    D1, D2 = quarter - half, half - full
    return full - D2**2 / (D1 - D2) if 0 < D2 < D1 else None


def power_law(sizes: Sequence[float], errors: Sequence[float]) -> float | None:
    """Return the limit c of the least-squares fit c + b size^-a of errors that fall as a power of the size.

    None with fewer than five sizes, or where the fit has no end to fall to: a at the edge of [0.05, 8], or b < 0.
    """
    if len(sizes) < 5:
        return None
    x, F = np.asarray(sizes, float), np.asarray(errors, float)

    def solved(a: float) -> tuple[float, np.ndarray]:
        design = np.stack([np.ones_like(x), (x / x[0]) ** -a], 1)
        weights = np.linalg.lstsq(design, F, rcond=None)[0]
        return float(((F - design @ weights) ** 2).sum()), weights

    low, high = 0.05, 8.0
    tried = np.geomspace(low, high, 200)
    best = int(np.argmin([solved(a)[0] for a in tried]))
    if best in (0, len(tried) - 1):
        return None
    around = (tried[best - 1], tried[best + 1])
    found: Any = minimize_scalar(lambda a: solved(a)[0], bounds=around, method="bounded")
    limit, slope = solved(float(found.x))[1]
    return float(limit) if slope > 0 else None
