"""What a measure is: a question asked of a pair of feature groups on the same rows.

A member is a file with

    VERSION        an integer that rises when its numbers change
    NEEDS          what of a pair it reads: a subset of {"moments", "features", "labels", "logits"}
    INVARIANT_TO   what leaves its value alone: a subset of `TRANSFORMATIONS`; it must change under the others
    measure(pair, *, option=default, ...) -> Score

The source is what explains, the target what is explained, always in that order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

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
