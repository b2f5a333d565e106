"""The accuracy of networks' own heads: of one network, or of several averaged over logits or probabilities.

It stands beside every probe of the same features: mean logits are one linear readout of them.
"""

import torch

from widthwise.errors import UsageError
from widthwise.measures.base import TRANSFORMATIONS, Score, accuracy_score
from widthwise.pairs import Pair

VERSION = 1
NEEDS = frozenset({"logits", "labels"})
INVARIANT_TO = frozenset(TRANSFORMATIONS)  # It reads no features.
MEANS = ("logits", "probabilities")


def measure(pair: Pair, *, mean: str = "logits") -> Score:
    """Return the share of scored rows whose largest averaged output is their label.

    Args:
        mean: what is averaged over the source's networks: "logits" or "probabilities".

    Raises:
        UsageError: if `mean` is neither.
    """
    if mean not in MEANS:
        raise UsageError(f'networks are averaged over "logits" or "probabilities", not "{mean}".')
    joint = pair.joint
    assert joint.labels is not None, "an accuracy needs labels"
    outputs = torch.stack([pair.rows_of([name]).to(torch.float64) for name in pair.logits])
    if mean == "probabilities":
        outputs = outputs.softmax(2)
    correct = outputs.mean(0).argmax(1) == joint.labels
    return accuracy_score(correct, joint)
