"""What a measure is: a question asked of a pair of feature groups on the same rows.

A member is a file with

    VERSION        an integer that rises when its numbers change
    COST           how many span errors it takes as long as, about; 1 if left out
    NEEDS          what of a pair it reads: a subset of {"moments", "features", "labels", "logits"}; or {"networks"},
                   and then measure(networks, *, option=default, ...) is asked of `Trained` networks instead of a pair
    INVARIANT_TO   what leaves its value alone: a subset of `TRANSFORMATIONS`; it must change under the others
    measure(pair, *, option=default, ...) -> Score

The source is what explains, the target what is explained, always in that order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from widthwise import seeds
from widthwise.config import Run
from widthwise.linalg.intervals import Drawn, Term, block_counts, drawn, wilson
from widthwise.pairs import Joint

TRANSFORMATIONS = (
    "source rotation",
    "source scale",
    "source translation",
    "source column scale",
    "target rotation",
    "target column scale",
    "target translation",
)


@dataclass(frozen=True)
class Score:
    """One measure of one pair: the headline `value`, whatever else it knows, and arrays to compute with.

    Attributes:
        values: plain numbers by statistic, the headline among them.
        arrays: tensors kept for later, such as sums of squared error by (row block, target).
    """

    value: float
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def over_rows(self) -> Drawn:
        """The mean span error of supported features in draws of the row blocks, the same ones for every score."""
        term = Term(1.0, self.arrays["block_errors"], self.arrays["block_totals"], self.arrays["supported"])
        return drawn(term, block_counts(len(term.errors), generator=seeds.stream(0, "row bootstrap")))


@dataclass(frozen=True)
class Trained:
    """A network of the store: its run, its weights at "initial" and "final", an entry of its history for each epoch."""

    run: Run
    weights: Callable[[str], Mapping[str, Tensor]]
    history: Sequence[Mapping[str, Any]]


def accuracy_score(correct: Bool[Tensor, " rows"], joint: Joint, **values: Any) -> Score:
    """Return the share of scored rows that are correct, with Wilson's interval and counts by row block."""
    block = joint.split.block
    scored = block >= 0
    over = wilson(int(correct[scored].sum()), int(scored.sum()))
    wrong, rows = (torch.zeros(joint.split.blocks, 1, dtype=torch.float64) for _ in range(2))
    wrong[:, 0].index_add_(0, block[scored], (~correct[scored]).to(torch.float64))
    rows[:, 0].index_add_(0, block[scored], torch.ones(int(scored.sum()), dtype=torch.float64))
    found = {"low": over.low, "high": over.high, "method": over.method, "rows": int(scored.sum())}
    return Score(over.value, found | values, {"block_wrong": wrong, "block_rows": rows})
