"""The regularisation path of a linear probe, as far as rows that choose its penalty have something to gain."""

from collections.abc import Sequence

import torch
from torch import Tensor

from widthwise.linalg.logistic import LogisticPath, log_loss, logistic, logits

DECADES = tuple(10.0**k for k in range(2, -7, -1))  # 100 .. 1e-6
TIE = 1e-4  # losses this near to the least, relatively, are equal: of them the largest penalty is taken
LEARNED = 0.1  # share of the first log-loss on the fit's own rows below which little is left to learn


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
        return of_fit[-1] < LEARNED * of_fit[0] and all(_turned(curve) for curve in losses.values())

    return logistic(own, fitted, classes, penalties, stop=stop), losses


def _turned(losses: Sequence[float]) -> bool:
    """Return whether losses along decreasing penalties have risen twice in a row, to 5 % above their least.

    A rise alone is no end: directions of large variance that say nothing are fitted first, and those of small
    variance may say much. Where the fit's own rows are learned, there is nothing more to find.
    """
    return len(losses) > 2 and losses[-3] < losses[-2] < losses[-1] and losses[-1] > 1.05 * min(losses)
