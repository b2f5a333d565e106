"""Are the span errors of a report those that scikit-learn finds on the stored features, at the same penalties?

    python benchmarks/against_sklearn.py STORE recipes/paper-resnet18.yaml small

Three pairs of a study that was run: narrow networks together to a wide one, another wide one to it, a wide one to a
narrow one. Ours with interpolate=False on the study's grid and folds; scikit-learn's `Ridge`, fold by fold and penalty
by penalty, on the feature files. Prints the largest difference of a feature's error.
"""

import sys

import numpy as np
from sklearn.linear_model import Ridge

from widthwise import features, samples, scoring
from widthwise.columns import Concatenation
from widthwise.config import load_study
from widthwise.design import Design, Net, described
from widthwise.linalg.penalty_path import HALF_DECADES
from widthwise.measures.span_error import between
from widthwise.pairs import Joint
from widthwise.store import Store


def main(folder: str, file: str, preset: str) -> None:
    study, store = load_study(file, preset=preset), Store(folder)
    rows = samples.load(study.data, store)
    design = Design(study, rows.shape, rows.classes)
    chosen, split = scoring.split_rows("validation", rows)
    fold = split.cell.numpy() // 3

    def read(nets: tuple[Net, ...]) -> np.ndarray:
        found = [features.find(store, design.run(net, rows.checksum), "final") for net in nets]
        parts = [entries["train"].tensors("features")["features"][chosen].numpy() for entries in found if entries]
        return np.hstack(parts).astype(np.float64)

    width, wide = design.widths[-1], design.wide
    together = design.concatenations(width, "parameters")[0]
    for source, target in ((together, wide[:1]), (wide[1:2], wide[:1]), (wide[:1], together[:1])):
        X, Y = read(source), read(target)
        groups = {"source": Concatenation([X]), "target": Concatenation([Y])}
        ours = between(Joint(groups, split), interpolate=False, row_interval=False)
        theirs = by_sklearn(X, Y, fold)
        apart = np.nanmax(np.abs(np.array(ours.per_feature) - theirs))
        print(f"{described(source)} -> {described(target)}: mean {ours.mean:.6f}, largest difference {apart:.1e}")


def by_sklearn(X: np.ndarray, Y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return every target feature's error: of each fold at the penalty that is best on the other folds."""
    total = ((Y - Y.mean(0)) ** 2).sum(0)
    squared = np.zeros((5, len(HALF_DECADES) + 1, Y.shape[1]))  # the last penalty is infinite: the mean
    for k in range(5):
        fit, held = fold != k, fold == k
        centred = X[fit] - X[fit].mean(0)
        scale = (centred**2).sum() / (np.ptp(X[fit], axis=0) > 0).sum()
        for q, penalty in enumerate(HALF_DECADES):
            model = Ridge(alpha=penalty * scale, solver="svd").fit(X[fit], Y[fit])
            squared[k, q] = ((Y[held] - model.predict(X[held])) ** 2).sum(0)
        squared[k, -1] = ((Y[held] - Y[fit].mean(0)) ** 2).sum(0)
    errors = np.zeros(Y.shape[1])
    for k in range(5):
        best = (squared.sum(0) - squared[k]).argmin(0)
        errors += squared[k, best, np.arange(Y.shape[1])]
    return np.where(total > 0, errors / np.where(total > 0, total, 1), np.nan)


if __name__ == "__main__":
    main(*sys.argv[1:])
