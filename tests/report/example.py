"""Realistic results that nobody trained for: seeded, with everything a report can show."""

import dataclasses
import random

from widthwise.results import FeatureErrors, Finding, Results, Row, TrainedNetwork

WIDTHS = ("1", "1/2", "1/4", "1/8")
BY_PARAMETERS = {"1/2": 4, "1/4": 16, "1/8": 64}
BY_FEATURES = {"1/2": 2, "1/4": 4, "1/8": 8}
NETWORKS = {"1": 3, "1/2": 8, "1/4": 16, "1/8": 64}
SPLITS = ("validation", "test", "unseen")
SUMMARIES = (
    "mean_all",
    "median",
    "variance_weighted",
    "worst",
    "mean_standardized",
    "mean_within_class",
    "mean_logits",
)


def example(seed: int = 0, networks: int | None = None) -> Results:
    """Return the results of a small study of both gaps, of trained and untrained networks."""
    draw = random.Random(seed)
    rows = [row for trained in (True, False) for row in _rows(draw, trained)]
    return Results(
        title="ResNet-18 on CIFAR-10, small",
        study=STUDY,
        rows=tuple(rows),
        findings=FINDINGS,
        feature_errors=tuple(_feature_errors(draw)),
        networks=tuple(_networks(draw))[:networks],
        provenance=PROVENANCE,
    )


def small() -> Results:
    """Return one trained study of the example and a few of its networks: quick to draw."""
    full = example(networks=12)
    rows = tuple(row for row in full.rows if row.study == "width_gap" and row.trained)
    errors = tuple(found for found in full.feature_errors if found.study == "width_gap")
    return dataclasses.replace(full, rows=rows, feature_errors=errors)


def empty(title: str = "Nothing yet") -> Results:
    """Return results without a single number."""
    return Results(title=title, study={}, rows=())


def _rows(draw, trained):
    for split in SPLITS:
        yield from _width_gap(draw, split, trained)
        yield from _reverse_gap(draw, split, trained)
    if trained:
        yield from _performance(draw)


def _width_gap(draw, split, trained):
    base = {"validation": 0.036, "test": 0.049, "unseen": 0.052}[split] * (1 if trained else 4)
    common = {"study": "width_gap", "split": split, "trained": trained, "target": "1", "n": 9000}
    yield from _span(draw, base, width="1", source="1", p=128, **common)
    for step, width in enumerate(WIDTHS[1:], 1):
        for matching, counts in (("parameters", BY_PARAMETERS), ("features", BY_FEATURES)):
            gap = (0.004 * step - 0.006 if matching == "parameters" else 0.012 * step) + draw.gauss(0, 3e-4)
            source = f"{counts[width]} x {width}"
            p = counts[width] * 128 // 2**step
            yield from _span(draw, base + gap, width=width, source=source, matching=matching, p=p, **common)
            verdict = ("not confirmed here", "below resolution", "confirmed")[step - 1]
            yield from _gap(draw, gap, verdict if matching == "parameters" and trained else None, width=width,
                            matching=matching, source=source, **common)  # fmt: skip


def _reverse_gap(draw, split, trained):
    for step, width in enumerate(WIDTHS[1:], 1):
        base = (0.05 + 0.02 * step) * (1 if trained else 3) + draw.gauss(0, 1e-3)
        common = {"study": "reverse_gap", "split": split, "trained": trained, "target": width, "n": 9000}
        common |= {"width": width, "matching": "features"}
        other = f"{BY_FEATURES[width]} x {width}"
        yield from _span(draw, base, source=other, p=128, **common)
        yield from _span(draw, base - 0.008 * step, source="1", p=128, **common)
        yield from _gap(draw, -0.008 * step, "opposite" if trained else None, source="1", **common)


def _span(draw, value, **common):
    half = 0.02 * value + 3e-4
    over = {"interval_over": "rows", "method": "block bootstrap, fits held fixed"}
    yield Row(measure="span_error", statistic="mean", value=value, low=value - half, high=value + half,
              df=round(draw.uniform(300, 700), 2), **over, **common)  # fmt: skip
    for statistic in SUMMARIES:
        yield Row(measure="span_error", statistic=statistic, value=value * draw.uniform(0.8, 1.3), **common)
    for statistic, count in (("constant", 0), ("unsupported", 2), ("outlying", 0)):
        yield Row(measure="span_error", statistic=statistic, value=float(count), **common)


def _gap(draw, value, verdict, **common):
    half = 0.0022 + abs(draw.gauss(0, 3e-4))
    networks = {"interval_over": "networks", "method": "jackknife", "df": 7.25}
    rows = {"interval_over": "rows", "method": "block bootstrap, fits held fixed"}
    yield Row(measure="span_gap", statistic="mean", value=value, low=value - half, high=value + half,
              verdict=verdict if common["split"] == "validation" else None, **networks, **common)  # fmt: skip
    yield Row(measure="span_gap", statistic="mean", value=value, low=value - half / 3, high=value + half / 3,
              **rows, **common)  # fmt: skip
    for statistic, factor in (("extrapolated_richardson", 0.9), ("extrapolated_aitken", None),
                              ("standardized", 1.1), ("within_class", 0.7)):  # fmt: skip
        shifted = None if factor is None and common["width"] == "1/2" else value * (factor or 0.8)
        yield Row(measure="span_gap", statistic=statistic, value=shifted, **common)


def _performance(draw):
    own = {"1": 0.812, "1/2": 0.774, "1/4": 0.716, "1/8": 0.633}
    for width in WIDTHS:
        for matching, counts in (("parameters", BY_PARAMETERS), ("features", BY_FEATURES)):
            if width == "1" and matching == "features":
                continue
            count = counts.get(width, 1)
            lift = 0.018 * (count > 1) + 0.0005 * min(count, 16)
            common = {
                "study": "width_gap",
                "measure": "probe_accuracy",
                "split": "test",
                "width": width,
                "n": 10000,
            }
            common |= {"source": "1" if count == 1 else f"{count} x {width}"}
            common |= {"matching": None if width == "1" else matching}
            for statistic, shift in (("probe", -0.004), ("probe_unseen", -0.02), ("ensemble_logits", 0.002),
                                     ("ensemble_probabilities", 0.0)):  # fmt: skip
                value = own[width] + lift + shift + draw.gauss(0, 1e-3)
                yield Row(statistic=statistic, value=value, low=value - 0.008, high=value + 0.008,
                          interval_over="rows", method="Wilson", **common)  # fmt: skip
            yield Row(statistic="own", value=own[width], **common)
        for seed in range(NETWORKS[width]):
            value = own[width] + draw.gauss(0, 0.004)
            row = Row("width_gap", "probe_accuracy", "own", split="test", width=width, source=width, seed=seed)
            yield dataclasses.replace(row, value=value, n=10000)


def _feature_errors(draw):
    for split in ("validation", "test"):
        for study, width, matching, source, target, centre in (
            ("width_gap", "1", None, "1", "1", 0.03),
            ("width_gap", "1/2", "parameters", "4 x 1/2", "1", 0.028),
            ("width_gap", "1/4", "parameters", "16 x 1/4", "1", 0.034),
            ("width_gap", "1/8", "parameters", "64 x 1/8", "1", 0.04),
            ("width_gap", "1/2", "features", "2 x 1/2", "1", 0.04),
            ("width_gap", "1/4", "features", "4 x 1/4", "1", 0.06),
            ("width_gap", "1/8", "features", "8 x 1/8", "1", 0.09),
            ("reverse_gap", "1/2", "features", "1", "1/2", 0.05),
            ("reverse_gap", "1/2", "features", "2 x 1/2", "1/2", 0.06),
            ("reverse_gap", "1/4", "features", "1", "1/4", 0.06),
            ("reverse_gap", "1/4", "features", "4 x 1/4", "1/4", 0.08),
        ):
            errors = [centre * draw.lognormvariate(0, 0.6) for _ in range(126)]
            yield FeatureErrors(study, "span_error", split, True, width, matching, source, target, (*errors, None, 0.0))


def _networks(draw, epochs=6):
    parameters = {"1": 701466, "1/2": 176530, "1/4": 44806, "1/8": 11578}
    for step, width in enumerate(WIDTHS):
        for seed in range(NETWORKS[width]):
            curve = [_epoch(draw, step, epoch, epochs) for epoch in range(1, epochs + 1)]
            end = curve[-1]
            key = f"resnet18-w{width.replace('/', '_')}-s{seed}-{draw.randrange(16**8):08x}"
            last = [end[name] for name in ("train_loss", "train_accuracy", "test_accuracy")]
            size = (parameters[width], 128 // 2**step)
            yield TrainedNetwork(key, "resnet18", width, seed, *size, *last, 57 / 2**step, tuple(curve))


def _epoch(draw, step, epoch, epochs):
    loss = (2.1 - 0.25 * (3 - step)) * 0.72**epoch + 0.12 * step + abs(draw.gauss(0, 0.02))
    train = min(1.0, 1 - 0.38 * loss + draw.gauss(0, 0.005))
    return {
        "epoch": epoch,
        "rate": 0.2 * (1 - epoch / epochs),
        "train_loss": loss,
        "train_accuracy": train,
        "test_accuracy": train - 0.03 * (3 - step) - 0.02,
        "seconds": 9.5 / 2**step,
    }


FINDINGS = (
    Finding(
        "width_gap",
        "Many narrow networks together do not span what one wide network represents.",
        "confirmed",
        "Sixty-four 1/8-width networks together miss 0.6 % [0.4, 0.8] more of the wide network's features "
        "than another wide one does.",
        (
            "1/8, FSG +0.0061 [+0.0038, +0.0084] over networks (jackknife, 98.3 %); margin 0.0036.",
            "1/4, FSG +0.0021 [-0.0001, +0.0043] over networks (jackknife, 98.3 %); margin 0.0036.",
            "Extrapolated in rows: Richardson +0.0055, Aitken +0.0049; standardised sources +0.0067.",
        ),
    ),
    Finding(
        "reverse_gap",
        "One wide network does not span what narrow networks represent.",
        "opposite",
        "One wide network spans a 1/8-width network better than eight of its own width do, by 2.4 %.",
        ("1/8, validation: gap -0.0240 [-0.0271, -0.0209] over networks (jackknife, 98.3 %).",),
    ),
    Finding(
        "width_gap",
        "A linear probe on many narrow networks stays below the wide network.",
        "below resolution",
        "At 1/2 the difference of accuracy is -0.4 % [-1.3, +0.5], wider than the margin of 0.5 %.",
        ("1/2: D -0.0041 [-0.0130, +0.0048] over networks.",),
    ),
)
STUDY = {
    "title": "ResNet-18 on CIFAR-10, small",
    "data": {"kind": "cifar10", "rows": 10000, "reserve": 0.1},
    "network": {"kind": "resnet18", "base": "1/4"},
    "training": {"epochs": 6, "schedule": "one_cycle", "rate": 0.2, "weight_decay": 5.0e-4},
    "widths": list(WIDTHS),
    "wide": 3,
    "concatenations": {"1/2": 2, "1/4": 1, "1/8": 1},
    "studies": ["width_gap", "reverse_gap"],
    "primary": {"study": "width_gap", "matching": "parameters"},
    "margins": {"span_gap": 0.002, "probe_accuracy": 0.005},
}
PROVENANCE = {
    "command": "widthwise run recipes/paper-resnet18.yaml",
    "versions": {"widthwise": "0.1.0", "python": "3.12.3", "torch": "2.13.0", "numpy": "2.3.4"},
    "machine": {"processor": "x86_64, 2 cores", "memory": "8 GiB", "accelerator": None},
    "seconds": 1612.4,
}
