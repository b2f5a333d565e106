"""More features than a band form takes: time, memory and certificate of a fit in a Krylov space.

    python benchmarks/features.py DATA A                 # features of 128 real networks
    python benchmarks/features.py DATA B 1               # of 128 others
    python benchmarks/krylov.py A                        # 8,192 features in a Krylov space, and exactly
    python benchmarks/krylov.py A B                      # 16,384 features

20,000 rows to fit, 5,000 held out, 512 targets, half decades from 1e-9 to 10, a penalty chosen per target, float64.
Result: docs/log/2026-11-25-krylov.txt.
"""

import os
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from span import Memory, products

from widthwise.columns import concatenate
from widthwise.linalg import krylov
from widthwise.measures.span_error import SpanError, between
from widthwise.pairs import Joint
from widthwise.regression import given
from widthwise.splits import held_out

FIT, HELD, FIRST = 20_000, 5_000, 50_000  # rows to fit; test rows, and the first of them


def joint(folders: list[Path]) -> Joint:
    """Return the narrow features of every folder side by side, and the wide ones of the first."""
    rows = np.r_[:FIT, FIRST : FIRST + HELD]
    narrow = [np.load(folder / "narrow.npy", mmap_mode="r")[rows] for folder in folders]
    groups = {"source": concatenate(*narrow), "target": concatenate(np.load(folders[0] / "wide.npy")[rows])}
    split = held_out("test", torch.arange(FIT), FIT + torch.arange(HELD), nested=False)
    return Joint(groups, split, None, ("source",))


def timed(what: str, call) -> object:
    before = max(products())
    with Memory() as memory:
        start = time.perf_counter()
        answer = call()
        seconds = time.perf_counter() - start
    print(f"{what:24s} {seconds:8.1f} s  {memory.peak - memory.before:6.2f} GB  {before / 1e9:5.1f} GF/s", flush=True)
    return answer


def told(result: SpanError) -> None:
    print(f"mean {result.mean:.8f}, median {result.median:.8f}, df {result.df:.1f} of {result.rows_fit} rows")
    if result.excess is not None:
        print(f"certificate: relative residual {result.residual:.1e}, excess at most {result.excess:.1e} of a variance")
    chosen = np.array(result.penalty)[np.isfinite(result.penalty)]
    print(f"penalties chosen: {np.quantile(chosen, [0, 0.05, 0.5, 0.95, 1])}", flush=True)


def apart(ours: SpanError, exact: SpanError) -> None:
    """Print how far errors are from exact ones: at every penalty, and at those chosen."""
    ok = np.ones(len(exact.per_feature), bool)
    ok[[*exact.constant_features, *exact.unsupported_features]] = False
    for penalty, mine, theirs in zip(given(None), ours.path, exact.path, strict=True):
        off = np.abs(np.array(mine) - theirs)[ok]
        print(f"penalty {penalty:.0e}: errors apart by at most {off.max():.1e}, median {np.median(off):.1e}")
    off = np.abs(np.array(ours.per_feature) - exact.per_feature)[ok]
    print(f"as chosen: at most {off.max():.1e}, median {np.median(off):.1e}; means {ours.mean - exact.mean:+.1e}")


def main(folders: list[Path]) -> None:
    warnings.simplefilter("ignore")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}; {FIT} + {HELD} rows")
    both = joint(folders)
    timed("moments", lambda: both.cells)
    p, limit = both.groups["source"].columns, krylov.FROM
    krylov.FROM = 0
    ours = timed(f"Krylov space, p = {p}", lambda: between(both, penalties=given(None)))
    told(ours)
    if p <= limit:
        both.kept.clear()
        krylov.FROM = limit
        exact = timed(f"exactly, p = {p}", lambda: between(both, penalties=given(None)))
        told(exact)
        apart(ours, exact)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
