"""The regularisation path of a linear probe, as far as rows that choose its penalty have something to gain."""

from collections.abc import Sequence

import torch
from torch import Tensor

from widthwise.linalg.logistic import LogisticPath, log_loss, logistic, logits

DECADES = tuple(10.0**k for k in range(2, -7, -1))  # 100 .. 1e-6
TIE = 1e-4  # losses this near to the least, relatively, are equal: of them the largest penalty is taken
LEARNED = 0.1  # share of the first log-loss on the fit's own rows below which little is left to learn
LOST = 1.2  # times the least loss from which a path does not come back, whatever is left to learn


def path(
    X: Tensor,
    labels: Tensor,
    fit: Tensor,
    choosing: dict[int, Tensor],
    classes: int,
    penalties: Sequence[float],
) -> tuple[LogisticPath, dict[int, list[float]]]:
    """Return the path of one fit, and its summed log-loss on the rows of every part that chooses by it.

    The path ends once all these losses have turned, as the small penalties are the dear ones. Rows of a class
    that has none to fit are left out: they cost the same, infinity, at every penalty.
    """
    own, fitted = X[fit], labels[fit]
    known = torch.isin(labels, fitted.unique())
    held = {k: (X[rows & known], labels[rows & known]) for k, rows in choosing.items()}
    losses: dict[int, list[float]] = {k: [] for k in held}
    of_fit: list[float] = []

    def stop(weights: Tensor, intercept: Tensor) -> bool:
        of_fit.append(float(log_loss(logits(own, weights, intercept), fitted)))
        for k, (rows, truth) in held.items():
            losses[k].append(float(log_loss(logits(rows, weights, intercept), truth)) * len(truth))
        learned = of_fit[-1] < LEARNED * of_fit[0]
        return all(_turned(curve, 1.05 if learned else LOST) for curve in losses.values())

    return logistic(own, fitted, classes, penalties, stop=stop), losses


def _turned(losses: Sequence[float], risen: float) -> bool:
    """Return whether losses along decreasing penalties have risen twice in a row, to so many times their least.

    A small rise alone is no end: directions of large variance that say nothing are fitted first, and those of small
    variance may say much. Where the fit's own rows are learned, there is nothing more to find; elsewhere a path goes on
    until its loss is a fifth above the least. The penalties left out are the dearest: on 12,000 rows of 512
    features of trained networks the last two of nine took 28 of 39 seconds, at losses of 1.6 and 2.6 times the least.
    """
    return len(losses) > 2 and losses[-3] < losses[-2] < losses[-1] and losses[-1] > risen * min(losses)
