"""How well every width has learned its task: training and test accuracy. The paper's Table 2.

Without it a span gap can be a difference of training in disguise.
"""

from collections.abc import Iterator

from widthwise import accuracies
from widthwise.design import Comparison, Design, Net, Scores
from widthwise.gap_rows import interval_fields
from widthwise.results import FeatureErrors, Finding, Row

STUDY = "training"
SPLITS = {"train": "validation", "test": "probe"}  # rows by the statistic's name: those that trained, and test rows


def comparisons(design: Design, scores: Scores) -> Iterator[Comparison]:
    """Yield the accuracy of every network on the rows that trained it, un-augmented, and on test rows."""
    for nets in _by_width(design):
        yield from (_accuracy(net, split) for net in nets for split in SPLITS.values())


def rows(design: Design, scores: Scores) -> list[Row]:
    """Return the mean accuracies of every width, with intervals over networks."""
    table = []
    for nets in _by_width(design):
        width = str(nets[0].width)
        for name, split in SPLITS.items():
            over = accuracies.over_networks([scores[_accuracy(net, split)].value for net in nets])
            n = scores[_accuracy(nets[0], split)].values["rows"]
            where = (split if name == "train" else "test", True, width, None, width)
            table.append(Row(STUDY, "accuracy", name, *where, **interval_fields(over), n=n))
    return table


def findings(design: Design, scores: Scores) -> list[Finding]:
    """Return nothing: it is what the other claims are read against."""
    return []


def errors(design: Design, scores: Scores) -> list[FeatureErrors]:
    """Return nothing: an accuracy has no error feature by feature."""
    return []


def _by_width(design: Design) -> list[tuple[Net, ...]]:
    return [design.wide, *(design.narrow(width) for width in design.widths)]


def _accuracy(net: Net, split: str) -> Comparison:
    return Comparison("ensemble_accuracy", (net,), (), split, together=f"{STUDY} {net.width} {split}")
