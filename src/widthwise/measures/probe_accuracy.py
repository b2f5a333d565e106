"""FP(features): the test accuracy of a converged multinomial logistic regression on frozen features.

The penalty is chosen by log-loss on rows that no network trained on: held-out *training* rows cannot choose it,
the networks memorised them. Duzgun, Jelassi and Li (2024), definition 2.5, who train the probe by SGD with
augmentation.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise.linalg.logistic import log_loss, logistic
from widthwise.measures.base import Score, accuracy_score
from widthwise.pairs import BLOCKS, Pair

VERSION = 1
NEEDS = frozenset({"features", "labels"})
INVARIANT_TO = frozenset(
    {
        "source rotation",
        "source scale",
        "source translation",
        "target rotation",
        "target column scale",
        "target translation",
    }
)
DECADES = tuple(10.0**k for k in range(2, -7, -1))  # 100 .. 1e-6


def measure(pair: Pair, *, rows: str = "train", penalty: float | None = None) -> Score:
    """Return the accuracy of a probe of the source's features, on the scored rows of the split.

    Args:
        pair: its split is that of probes: cell 0 holds the rows that trained the networks, cells 1 to 5 folds of
            unseen rows, of which those with a block (test rows) are scored and the others (the reserve) choose.
        rows: "train": fitted on the rows that trained the networks, the penalty chosen on the reserve, or with
            none on one half of the test rows for the other; "unseen": fitted on four folds of unseen rows and
            scored on the fifth, the penalty chosen on the other folds' held-out rows.
        penalty: a relative penalty used as given, instead of a choice.
    """
    joint = pair.joint
    assert joint.labels is not None, "a probe needs labels"
    X, cell, block = pair.rows_of(pair.source), joint.split.cell, joint.split.block
    penalties = DECADES if penalty is None else (penalty,)
    fits = _train_fits(cell, block) if rows == "train" else _unseen_fits(cell)
    logits: dict[int, Tensor] = {}
    for fit, _, _ in fits:  # parts that fit on the same rows share one path
        if id(fit) not in logits:
            path = logistic(X[fit], joint.labels[fit], joint.classes, penalties)
            logits[id(fit)] = torch.stack([path.logits(X, j) for j in range(len(penalties))])
    losses = [_losses(logits[id(fit)][:, select], joint.labels[select]) for fit, select, _ in fits]
    correct = torch.zeros(len(X), dtype=torch.bool)
    chosen = []
    for k, (fit, _, score) in enumerate(fits):
        others = losses if rows == "train" else losses[:k] + losses[k + 1 :]
        loss = losses[k] if rows == "train" else torch.stack(others).sum(0)
        best = int(loss.argmin())  # of equal losses the first: the larger penalty
        chosen.append(penalties[best])
        correct[score] = logits[id(fit)][best, score].argmax(1) == joint.labels[score]
    middle = float(torch.tensor(chosen, dtype=torch.float64).median())
    edge = sum(p in (penalties[0], penalties[-1]) for p in chosen) if penalty is None else 0
    return accuracy_score(
        correct, joint, penalty=middle, on_edge=edge, n_fit=int(fits[0][0].sum()), p=X.shape[1], p_live=X.shape[1]
    )


Fit = tuple[Bool[Tensor, " rows"], Bool[Tensor, " rows"], Bool[Tensor, " rows"]]


def _train_fits(cell: Int[Tensor, " rows"], block: Int[Tensor, " rows"]) -> list[Fit]:
    """Return (fit, select, score): the reserve selects for all test rows, or their halves for each other."""
    fit, scored = cell == 0, block >= 0
    reserve = ~fit & ~scored
    if bool(reserve.any()):
        return [(fit, reserve, scored)]
    first = scored & (block < BLOCKS // 2)
    second = scored & ~first
    return [(fit, second, first), (fit, first, second)]


def _unseen_fits(cell: Int[Tensor, " rows"]) -> list[Fit]:
    """Return (fit, select, score) of every fold of unseen rows; a fold selects for the others."""
    folds = range(1, int(cell.max()) + 1)
    return [((cell > 0) & (cell != k), cell == k, cell == k) for k in folds]


def _losses(logits: Float[Tensor, "penalties rows classes"], labels: Int[Tensor, " rows"]) -> Tensor:
    """Return the summed log-loss of every penalty."""
    return log_loss(logits, labels) * len(labels)
