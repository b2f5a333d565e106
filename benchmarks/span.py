"""How fast span errors come, against the limit of the machine and against what people would write.

    python benchmarks/features.py DATA FEATURES          # features of real trained networks, minutes
    pip install himalaya==0.4.11                         # one of the peers
    python benchmarks/span.py FEATURES [NAME ...]        # all, or some of the lines of the table

50,000 rows to fit, 10,000 held out, 512 targets, 20 penalties, a penalty chosen per target, float64. Every line is
a process of its own, so that its peak memory is its own; its ratio is to the flops that its answer needs at least, at
the rate of a float64 matrix product in the same process. "x limit" takes the mean rate of the products just before and
after a run, since what slows the one slows the other; "x best" the fastest of these products, which noise can only make
larger. Of both the median of the runs; "least" is the least x limit. Results: docs/log/2026-11-25-span.txt and those
after it, before 2026-11-28 x best alone.
"""

import gc
import importlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

FIT, HELD, TARGETS = 50_000, 10_000, 512
GRID = [10 ** (k / 2 - 9) for k in range(20)]  # half decades from 1e-9
REPEATS = {512: 15, 2048: 5}  # odd: a median is a run
L = len(GRID)
MILLION = 1_000_000
PEERS = ("Ridge", "RidgeCV", "himalaya")


# What an answer needs at least, in flops ----------------------------------------------------------------


def gram(n: int, p: int) -> float:
    """The source's second moments, a symmetric product, and its products with the targets."""
    return n * (p * p + 2 * p * TARGETS)


def path(p: int, parts: int) -> float:
    """One fit at all penalties, its errors on some parts: the cheapest of the ways that are known.

    A root of the held-out moments each, p^3 / 3; and a reduction of S to tridiagonal form, 4/3 p^3, which turns the
    targets, 2 p^2 t, and the held-out moments, 2 p^3, or each weight back, 2 p^2 t a penalty; or a Cholesky factor and
    two solves a penalty. Everywhere p^2 t a penalty and part for the errors: R w, R a triangle.
    """
    t, errors = TARGETS, parts * L * p * p * TARGETS
    tridiagonal = 4 / 3 * p**3 + 2 * p * p * t + min(parts * 2 * p**3, 2 * L * p * p * t)
    cholesky = L * (p**3 / 3 + 2 * p * p * t)
    return parts * p**3 / 3 + min(tridiagonal, cholesky) + errors


def curve(p: int, parts: int) -> float:
    """All leading designs: a Cholesky factor a penalty, L^-1 C, and of every part R L^-T and its products."""
    t = TARGETS
    return parts * p**3 / 3 + L * (p**3 / 3 + p * p * t + parts * (p**3 / 3 + p * p * t))


def predictions(n: int, p: int) -> float:
    return 2 * n * p * TARGETS


# The lines of the table ---------------------------------------------------------------------------------


def moments(X: np.ndarray, Y: np.ndarray) -> float:
    from widthwise.linalg.moments import Moments

    p = X.shape[1]
    sums = Moments(p + TARGETS, crossed=p, powered=p)
    for start in range(0, FIT, 2048):
        stop = min(start + 2048, FIT)
        sums.update(*(torch.from_numpy(x[start:stop]) for x in (X, Y)))
    return float(sums.total.sum())


def one_fit(X: np.ndarray, Y: np.ndarray) -> list:
    from widthwise import span_error

    tests = {"source_test": X[FIT:], "target_test": Y[FIT:]}
    return np.array(span_error(X[:FIT], Y[:FIT], split="test", penalties=GRID, **tests).path).tolist()


def folds(X: np.ndarray, Y: np.ndarray) -> float:
    return every_row(X[:FIT], Y[:FIT])


def every_row(X: np.ndarray, Y: np.ndarray) -> float:
    from widthwise import span_error

    return span_error(X, Y, penalties=GRID).mean


def growth(X: np.ndarray, Y: np.ndarray) -> list[float]:
    from widthwise.columns import Concatenation
    from widthwise.measures import growth_curve
    from widthwise.pairs import Joint, Pair
    from widthwise.splits import held_out

    width = X.shape[1] // 16
    groups = {str(k): Concatenation([X[:, k * width : (k + 1) * width]]) for k in range(16)}
    split = held_out("test", torch.arange(FIT), FIT + torch.arange(HELD), nested=False)
    joint = Joint(groups | {"target": Concatenation([Y])}, split, None, tuple(groups))
    pair = Pair(joint, tuple(groups), ("target",))
    return growth_curve.measure(pair, leave_out=False, penalties=tuple(GRID)).values["mean"]


def script(X: np.ndarray, Y: np.ndarray) -> list:
    """What a careful hand writes: the second moments once, a Cholesky factor and a prediction a penalty."""
    A, B = (torch.from_numpy(x[:FIT]).double() for x in (X, Y))
    mean_x, mean_y = A.mean(0), B.mean(0)
    A -= mean_x
    B -= mean_y
    S, C = A.T @ A, A.T @ B
    scale = S.trace() / (S.diagonal() > 0).sum()
    As, Bs = (torch.from_numpy(x[FIT:]).double() for x in (X, Y))
    As, Bs, total = As - mean_x, Bs - mean_y, (Bs - Bs.mean(0)).square().sum(0)
    errors = []
    for penalty in GRID:
        factor = torch.linalg.cholesky(S + penalty * scale * torch.eye(len(S), dtype=torch.float64))
        errors.append((Bs - As @ torch.cholesky_solve(C, factor)).square().sum(0) / total)
    return torch.stack(errors).tolist()


def some(X: np.ndarray, Y: np.ndarray, fit: Callable[[float], np.ndarray]) -> list:
    """Return the errors at two penalties, of predictions that a peer makes."""
    held = Y[FIT:].astype(np.float64)
    total = ((held - held.mean(0)) ** 2).sum(0)
    return [(((held - fit(q)) ** 2).sum(0) / total).tolist() for q in (GRID[8], GRID[14])]


def absolute(X: np.ndarray) -> float:
    A = X[:FIT].astype(np.float64)
    squares = ((A - A.mean(0)) ** 2).sum(0)
    return squares.sum() / (squares > 0).sum()


def sklearn_ridge(X: np.ndarray, Y: np.ndarray) -> list:
    from sklearn.linear_model import Ridge

    A, B, As, scale = X[:FIT].astype(np.float64), Y[:FIT].astype(np.float64), X[FIT:].astype(np.float64), absolute(X)
    return timed(lambda: some(X, Y, lambda q: Ridge(alpha=q * scale, solver="cholesky").fit(A, B).predict(As)))


def sklearn_ridge_cv(X: np.ndarray, Y: np.ndarray) -> list:
    from sklearn.linear_model import RidgeCV

    A, B, As, scale = X[:FIT].astype(np.float64), Y[:FIT].astype(np.float64), X[FIT:].astype(np.float64), absolute(X)
    return timed(lambda: RidgeCV([q * scale for q in GRID], alpha_per_target=True).fit(A, B).predict(As).mean().item())


def himalaya(X: np.ndarray, Y: np.ndarray) -> list:
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV
    from sklearn.model_selection import PredefinedSplit

    set_backend("torch")
    A, B = (torch.from_numpy(x).double() for x in (X, Y))
    cv = PredefinedSplit(np.repeat([-1, 0], [FIT, HELD]))
    alphas = [q * absolute(X) for q in (GRID[8], GRID[14])]
    # It makes a matrix of rows to fit times rows held out for every penalty, 80 GB of 20 at once.
    model = RidgeCV(alphas, fit_intercept=True, cv=cv, solver_params={"n_alphas_batch": 1})
    return timed(lambda: float(model.fit(A, B).cv_scores_.mean()))


def timed(call: Callable) -> list:
    """Return [seconds without the preparation, answer]."""
    start = time.perf_counter()
    answer = call()
    return [time.perf_counter() - start, answer]


ALL = FIT + HELD
# name: what, p, its flops, how many times its penalties make the 20
LINES: dict[str, tuple[Callable, int, float, float]] = {}
for p in (512, 2048):
    LINES |= {
        f"moments {p}": (moments, p, gram(FIT, p), 1),
        f"one fit {p}": (one_fit, p, gram(ALL, p) + path(p, 2) + predictions(HELD, p), 1),
        f"curve {p}": (growth, p, gram(ALL, p) + curve(p, 2), 1),
        f"script {p}": (script, p, 0, 1),
        f"Ridge {p}": (sklearn_ridge, p, 0, 10),
        f"RidgeCV {p}": (sklearn_ridge_cv, p, 0, 1),
        f"himalaya {p}": (himalaya, p, 0, 10),
    }
LINES["folds 2048"] = (folds, 2048, gram(FIT, 2048) + 5 * path(2048, 1) + predictions(FIT, 2048), 1)
LINES["rows 1000000"] = (every_row, 2048, gram(MILLION, 2048) + 5 * path(2048, 1) + predictions(MILLION, 2048), 1)
LINES["one fit 8192"] = (one_fit, 8192, gram(ALL, 8192) + path(8192, 2) + predictions(HELD, 8192), 1)
LINES["folds 8192"] = (folds, 8192, gram(FIT, 8192) + 5 * path(8192, 1) + predictions(FIT, 8192), 1)


def products() -> list[float]:
    """Return the flops a second of some float64 matrix products."""
    A, rates = torch.randn(2048, 2048, dtype=torch.float64), []
    for _ in range(4):
        start = time.perf_counter()
        A @ A
        rates.append(2 * 2048**3 / (time.perf_counter() - start))
    return rates


class Memory:
    """The largest anonymous memory of this process, looked at every 10 ms (Linux): not what it maps of files."""

    def __enter__(self) -> "Memory":
        self.done, self.before = threading.Event(), self.now()
        self.peak = self.before
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.done.wait(0.01):
            self.peak = max(self.peak, self.now())

    @staticmethod
    def now() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1e6


def measure(name: str, features: Path) -> None:
    """Run one line and print what it found as JSON; every time is put beside the rate just before and after it."""
    warnings.simplefilter("ignore")
    call, p, flops, times = LINES[name]
    X, Y = rows(features, p, streamed=name.startswith("rows"))
    for module in ("span_error", "growth_curve"):  # loading them is not timed
        importlib.import_module(f"widthwise.measures.{module}")
    products()  # the first one is slow
    rates, seconds, peaks = [products()], [], []
    peer, once = name.split()[0] in PEERS, name.split()[0] in (*PEERS, "rows")  # minutes
    for _ in range(1 if once else REPEATS.get(p, 1)):
        gc.collect()
        with Memory() as memory:
            start = time.perf_counter()
            answer = call(X, Y)
            seconds.append(time.perf_counter() - start)
        if peer:  # it says itself how long it took without its preparation
            seconds[-1], answer = answer
        peaks.append(memory.peak - memory.before)
        rates.append(products())
    found = {"seconds": float(np.median(seconds)) * times, "peak": max(peaks), "each": seconds}
    found["rate"] = float(np.median([x for own in rates for x in own]))
    for name, of in (("ratio", statistics.harmonic_mean), ("best", max)):
        beside = [of([*before, *after]) for before, after in itertools.pairwise(rates)]
        found[name] = sorted(t * r / flops for t, r in zip(seconds, beside, strict=True)) if flops else None
    print(json.dumps(found | {"answer": answer}))


def rows(features: Path, p: int, streamed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows in memory; or a million of them as memory maps, the same ones again and again."""
    if not streamed:
        X = np.load(features / "narrow.npy", mmap_mode="r")[:, :p]
        return np.ascontiguousarray(X), np.load(features / "wide.npy")
    found = []
    for name, columns in (("narrow", p), ("wide", TARGETS)):
        given, path = np.load(features / f"{name}.npy", mmap_mode="r"), features / f"million-{name}-{columns}.npy"
        if not path.exists():
            made = np.lib.format.open_memmap(path, "w+", np.float32, (MILLION, columns))
            for start in range(0, MILLION, len(given)):
                made[start : start + len(given)] = given[: MILLION - start, :columns]
            made.flush()
        found.append(np.load(path, mmap_mode="r"))
    return found[0], found[1]


def run(name: str, features: Path) -> dict:
    command = [sys.executable, __file__, str(features), "--line", name]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def main(features: Path, names: list[str]) -> None:
    print(f"benchmarks/span.py: {FIT} rows to fit, {HELD} held out, {TARGETS} targets, {L} penalties, float64")
    print(f"{os.cpu_count()} cores, {_processor()}; Python {platform.python_version()}, torch {torch.__version__}")
    titles = f"{'seconds':>9s} {'x limit':>8s} {'least':>6s} {'x best':>7s} {'GF/s':>6s} {'peak GB':>8s}"
    print(f"{'line':14s} {titles}  single runs")
    found: dict[str, dict] = {}
    for name in names or LINES:
        line = found[name] = run(name, features)
        ratio, best = line["ratio"], line["best"]
        told = f"{np.median(ratio):8.2f} {ratio[0]:6.2f} {np.median(best):7.2f}" if ratio else " " * 23
        note = "extrapolated from two penalties" if LINES[name][3] > 1 else " ".join(f"{x:.2f}" for x in line["each"])
        numbers = f"{line['seconds']:9.2f} {told} {line['rate'] / 1e9:6.1f} {line['peak']:8.2f}"
        print(f"{name:14s} {numbers}  {note}", flush=True)
    for p in (512, 2048):
        _compare(found, p)


def _compare(found: dict[str, dict], p: int) -> None:
    """Print how many times faster one fit is than each peer, and how far the errors are from theirs."""
    if f"one fit {p}" not in found:
        return
    ours = found[f"one fit {p}"]
    for peer in ("script", *PEERS):
        if f"{peer} {p}" in found:
            times = found[f"{peer} {p}"]["seconds"] / ours["seconds"]
            print(f"one fit {p} is {times:.1f} times faster than {peer}{_apart(found, ours, peer, p)}")
    if f"curve {p}" in found:
        print(f"curve {p} takes {found[f'curve {p}']['seconds'] / ours['seconds']:.2f} times one fit")


def _apart(found: dict[str, dict], ours: dict, peer: str, p: int) -> str:
    if peer not in ("script", "Ridge"):
        return ""
    theirs = np.array(found[f"{peer} {p}"]["answer"], float)
    mine = np.array(ours["answer"], float)[[8, 14] if peer == "Ridge" else slice(None)]
    off = np.abs(mine - theirs) / np.maximum(theirs, 1e-3)
    return f"; errors apart by at most {np.nanmax(off[np.isfinite(off)]):.1e}, relatively"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    if sys.argv[2:3] == ["--line"]:
        measure(sys.argv[3], Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
