"""The rate and weight decay of every width, chosen on rows that no network trains on: the paper's A.2.

A grid of ordinary runs of one seed, the same for narrow networks as for wide ones; that seed is none of the reported
ones. What is chosen enters the keys of the reported runs as numbers.
"""

from collections.abc import Mapping
from fractions import Fraction
from itertools import product

import torch

from widthwise import config, features
from widthwise.design import FINAL, Design
from widthwise.errors import UsageError
from widthwise.results import Row
from widthwise.samples import Samples
from widthwise.store import Store

STUDY = "tuning"
SEED = 10_000  # of the trials; reported networks are numbered from 0
Trials = dict[Fraction, list[config.Run]]
Losses = dict[Fraction, list[float]]


def trials(design: Design, checksum: str) -> Trials:
    """Return the runs of every width's grid, in the order of the file; none without `tuning`."""
    study, grid = design.study, design.study.tuning
    if grid is None:
        return {}
    decays = grid.weight_decays or (study.training.weight_decay,)
    each = [
        study.training.model_copy(update={"rate": rate, "weight_decay": decay})
        for rate, decay in product(grid.rates, decays)
    ]
    return {
        width: [config.Run(study.data, checksum, study.network, training, width, SEED) for training in each]
        for width in (Fraction(1), *design.widths)
    }


def losses(runs: Trials, samples: Samples, store: Store) -> Losses | None:
    """Return the log-loss of every trial on the reserve; infinite of one that diverged, None if one is missing.

    Raises:
        UsageError: if all trials of a width diverged.
    """
    held_out, labels = ~samples.trained, samples.labels[~samples.trained]
    found: Losses = {}
    for width, grid in runs.items():
        for run in grid:
            entry, read = store.get("runs", run.key), features.find(store, run, FINAL)
            if entry is None or (read is None and not entry.facts["diverged"]):
                return None
            loss = float("inf")
            if read is not None:
                logits = read["train"].tensors("features")["logits"][held_out].double()
                loss = float(torch.nn.functional.cross_entropy(logits, labels))
            found.setdefault(width, []).append(loss if loss == loss else float("inf"))
    for width, each in found.items():
        if min(each) == float("inf"):
            raise UsageError(
                f"tuning: every trial of width {width} diverged, at rates of {runs[width][0].training.rate:g} to "
                f"{runs[width][-1].training.rate:g}; give tuning.rates lower ones."
            )
    return found


def chosen(runs: Trials, found: Losses) -> Mapping[Fraction, config.Training]:
    """Return how each width is trained: as its trial of least loss, the earlier one of equals."""
    return {width: grid[found[width].index(min(found[width]))].training for width, grid in runs.items()}


def rows(runs: Trials, found: Losses) -> list[Row]:
    """Return the loss of every trial, and what was chosen."""
    table = []
    for width, training in chosen(runs, found).items():
        for run, loss in zip(runs[width], found[width], strict=True):
            name = f"rate {run.training.rate:g}, weight decay {run.training.weight_decay:g}"
            table.append(Row(STUDY, "log_loss", name, "reserve", width=str(width), seed=SEED, value=loss))
        for name in ("rate", "weight_decay"):
            table.append(Row(STUDY, "chosen", name, "reserve", width=str(width), value=getattr(training, name)))
    return table
