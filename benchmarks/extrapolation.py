"""How far the two extrapolations in n are from the population's span error, by p / n.

    [MACHINE=name] python benchmarks/extrapolation.py

Planted: sources X = z S with z ~ N(0, I), targets y = X w + noise, |X w|^2 and noise so that exactly 0.2 of every
target's variance lies outside the source. S is flat, or deviations fall as 1 / k (then ridge penalties matter).
F(n) is the span error of 5 folds; errors are estimate less 0.2, means over repetitions and their standard errors.
"""

import os
import platform
import warnings

import numpy as np
import torch

from widthwise.errors import NumericsWarning
from widthwise.measures.span_error import span_error

N, TARGETS, REPETITIONS, TRUTH = 600, 16, 10, 0.2
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
SPECTRA = {"flat": lambda p: np.ones(p), "1 / k": lambda p: 1 / np.arange(1, p + 1)}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", NumericsWarning)
    print("python benchmarks/extrapolation.py")
    print(f"{os.cpu_count()} cores, {os.environ.get('MACHINE') or platform.machine()}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, one thread")
    print(f"n = {N} (fits on {N * 4 // 5}), {TARGETS} targets, {REPETITIONS} repetitions, population value {TRUTH}")
    for name, spectrum in SPECTRA.items():
        print(f"\ndeviations {name}; estimate less {TRUTH}, mean +- standard error")
        print(f"{'p/n':>5s} {'p':>4s} {'F(n)':>18s} {'Richardson':>18s} {'Aitken':>18s}  Aitken null")
        for share in SHARES:
            p = round(share * N)
            found = [extrapolated(np.random.default_rng([k, p]), spectrum(p)) for k in range(REPETITIONS)]
            cells = [told([F[which] for F in found]) for which in ("fit", "richardson", "aitken")]
            null = sum(F["aitken"] is None for F in found)
            print(f"{share:5.2f} {p:4d} {' '.join(cells)}  {null} of {REPETITIONS}", flush=True)


def extrapolated(random: np.random.Generator, deviations: np.ndarray) -> dict:
    """Return F(n) and its limits for one draw of rows, weights and noise."""
    X = random.normal(size=(N, len(deviations))) * deviations
    W = random.normal(size=(len(deviations), TARGETS))
    W *= np.sqrt((1 - TRUTH) / ((deviations[:, None] * W) ** 2).sum(0))
    Y = X @ W + np.sqrt(TRUTH) * random.normal(size=(N, TARGETS))
    result = span_error(X, Y, extrapolate=True, row_interval=False)
    assert result.extrapolated is not None
    return result.extrapolated


def told(values: list) -> str:
    off = np.array([value for value in values if value is not None]) - TRUTH
    if not len(off):
        return f"{'-':>18s}"
    error = off.std(ddof=1) / len(off) ** 0.5 if len(off) > 1 else np.nan
    return f"{off.mean():+9.4f} +- {error:.4f}".rjust(18)


if __name__ == "__main__":
    main()
