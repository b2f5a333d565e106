"""Every study, from made-up scores alone: no disk, no training, no network."""

import math
import re
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from small import study
from widthwise import family
from widthwise.config import load_study
from widthwise.design import Comparison, Design
from widthwise.measures.base import Score
from widthwise.results import COLUMNS
from widthwise.studies import base as studies

FEATURES = 6
NEURONS = {
    "data": {"kind": "signals", "reserve": 0},
    "network": {"kind": "threshold_mlp", "hidden": 6},
    "neurons": {"50": 40, "100": 30, "5000": 3, "9000": 2},
    "training": {"optimiser": "normalised_sgd"},
    "studies": [{"kind": "toy", "together": 5, "wide": 5000}],
}


def by_neurons(name):
    """Return whether a study compares networks by their number of neurons."""
    return hasattr(family.member("studies", name), "NEURONS")


def design(name, concatenations_of_a_quarter=2, **over):
    if by_neurons(name):
        return Design(load_study(NEURONS | over), (6, 16), 2)
    concatenations = {"1/2": 3, "1/4": concatenations_of_a_quarter}
    return Design(
        study(studies=[name], widths=["1", "1/2", "1/4"], concatenations=concatenations, **over), (1, 8, 8), 10
    )


def made_up(comparison: Comparison, narrow: float = 0.3, wide: float = 0.2) -> Score:
    """Return a score that depends on whether the source is wide or narrow, and a little on its seeds."""
    source = comparison.source
    if comparison.measure == "signals_learned":
        return learned(len(source), source[0].width >= 5000)
    level = wide if source[0].width == 1 or source[0].width >= 5000 else narrow
    noise = 1e-3 * math.sin(sum(net.seed * 7 + 1 for net in comparison.networks) + len(source))
    e = level + noise
    values = dict.fromkeys(("mean_all", "median", "variance_weighted", "worst"), e)
    values |= {"constant": 0, "unsupported": 0, "outlying": 0, "rows": 100, "rows_fit": 80, "p_live": 4, "df": 3.0}
    values |= {"extrapolated": {"quarter": e + 0.03, "half": e + 0.01, "fit": e}, "penalty": 1e-3, "p": 4}
    values |= {"scale": 1.0, "columns": 8, "spanned": 1, "majority": 0.1}
    generator = torch.Generator().manual_seed(len(source))
    totals = torch.rand(50, FEATURES, dtype=torch.float64, generator=generator) + 1
    arrays = {
        "per_feature": torch.full((FEATURES,), e, dtype=torch.float64),
        "supported": torch.ones(FEATURES, dtype=torch.bool),
        "block_errors": e * totals,
        "block_totals": totals,
        "block_wrong": e * totals[:, :1],
        "block_rows": totals[:, :1],
    }
    if comparison.truths:  # six signs and products behind the features
        arrays |= {name: torch.cat([arrays[name]] * 2, -1) for name in arrays}
    if comparison.measure == "growth_curve":
        arrays["per_feature"] = arrays["per_feature"].expand(len(source), -1)
    value = 1 - e if "accuracy" in comparison.measure else e
    return Score(value, values, arrays)


def learned(networks: int, wide: bool) -> Score:
    """Return what networks have learned: all signals if they are wide, the first now and then if not."""
    generator = torch.Generator().manual_seed(networks)
    draws = torch.rand(networks, 5, dtype=torch.float64, generator=generator)
    knows = torch.ones_like(draws) if wide else (draws < torch.tensor([0.3, 0.3, 0, 0, 0])).double()
    each = torch.rand(networks, dtype=torch.float64, generator=generator)
    arrays = {"learned": knows, "activated": torch.stack([knows + 1, knows]), "kept": knows, "new": 0 * knows}
    arrays |= {"best": torch.stack([knows * 0.5, knows * 0.95]), "cosines": torch.ones(2, 5, 20, dtype=torch.float64)}
    arrays |= {"noise": torch.rand(2, networks, dtype=torch.float64, generator=generator)}
    arrays |= dict.fromkeys(("train_accuracy", "test_accuracy", "train_loss", "length"), each.round())
    return Score(float(knows.all(1).double().mean()), {"networks": networks, "cosine": 0.9}, arrays)


def solved(d: Design, **levels) -> dict[Comparison, Score]:
    scores: dict[Comparison, Score] = {}
    for _ in range(10):
        missing = studies.missing(d, scores)
        if not missing:
            return scores
        scores |= {c: made_up(c, **levels) for c in missing}
    raise AssertionError("a study never has enough")


@pytest.mark.parametrize("name", family.names("studies"))
def test_a_study_asks_in_finitely_many_phases_for_things_that_exist(name):
    d = design(name)
    scores = solved(d)
    assert scores
    assert studies.comparisons(d, {}) == studies.comparisons(design(name), {})
    for c in scores:
        member = family.member("measures", c.measure)
        assert not family.check_options(c.measure, member.measure, dict(c.options))
        assert not set(c.source) & set(c.target), "a network spans itself"


@pytest.mark.parametrize("name", family.names("studies"))
def test_a_studys_rows_are_complete_and_its_findings_have_one_of_four_words(name):
    d = design(name)
    scores = solved(d)
    rows, findings = studies.rows(d, scores), studies.findings(d, scores)
    assert rows == studies.rows(d, scores)
    assert rows
    for row in rows:
        assert row.study == name
        assert row.width in ((*NEURONS["neurons"], None) if by_neurons(name) else ("1", "1/2", "1/4"))
        assert (row.low is None) == (row.interval_over is None), row
        if row.low is not None and math.isfinite(row.low):
            assert row.low - 1e-9 <= row.value <= row.high + 1e-9, row
    words = {"confirmed", "opposite", "not confirmed here", "below resolution"}
    assert all(f.verdict in words and f.sentence and f.decided_by for f in findings)
    assert {row.verdict for row in rows} <= words | {None}
    assert all(e.study == name for e in studies.errors(d, scores))


@pytest.mark.parametrize("name", family.names("studies"))
def test_a_study_has_the_same_options_in_all_its_functions(name):
    member = family.member("studies", name)
    declared = family.options(member.comparisons)
    assert all(family.options(getattr(member, f)) == declared for f in ("rows", "findings", "errors"))


@pytest.mark.parametrize(("narrow", "word"), [(0.6, "confirmed"), (0.05, "not confirmed here")])
def test_the_toy_says_what_networks_learned_and_what_can_be_read_out_of_them(narrow, word):
    d = design("toy")
    counted, *read = studies.findings(d, solved(d, narrow=narrow, wide=0.2))
    assert counted.verdict == "confirmed"
    assert [finding.verdict for finding in read] == [word] * 2
    rows = studies.rows(d, solved(d, narrow=narrow))
    shares = {(r.width, r.statistic): r.value for r in rows if r.measure == "signal_learned"}
    assert shares["9000", "v4"] == 1.0
    assert shares["50", "multiplied"] == 0.0
    half = {r.statistic: r.value for r in rows if r.measure == "half_width"}
    assert half["multiplied"] == pytest.approx(math.sqrt(100 * 5000))
    assert (1 - math.exp(-2 * half["expected"] * 6.8714e-4)) ** 3 == pytest.approx(0.5, rel=1e-4)
    expected = [r.value for r in rows if r.measure == "activated_neurons" and r.statistic == "expected"]
    assert expected == pytest.approx([2 * m * 6.8714e-4 for m in (9000, 5000, 100, 50)], rel=1e-4)


@pytest.mark.parametrize(("narrow", "word"), [(0.3, "confirmed"), (0.1, "opposite"), (0.2, "not confirmed here")])
def test_width_gap_says_what_the_scores_say(narrow, word):
    d = design("width_gap")
    (finding,) = studies.findings(d, solved(d, narrow=narrow, wide=0.2))
    assert finding.verdict in (word, "not confirmed here" if word == "confirmed" else word)
    gaps = [r for r in studies.rows(d, solved(d, narrow=narrow)) if r.measure == "span_gap" and r.verdict]
    assert [r.verdict for r in gaps if r.matching == "parameters"] == [word] * 2
    assert all(abs(r.value - (narrow - 0.2)) < 5e-3 for r in gaps)


def test_two_wide_networks_give_no_interval_over_networks_and_one_gives_no_gap():
    two = design("width_gap", wide=2)
    rows = [r for r in studies.rows(two, solved(two)) if r.measure == "span_gap" and r.interval_over == "networks"]
    assert all(not math.isfinite(r.low) and "no interval over networks" in r.method for r in rows)
    assert all(f.verdict == "below resolution" for f in studies.findings(two, solved(two)))
    one = design("width_gap", wide=1)
    assert [r for r in studies.rows(one, solved(one)) if r.measure == "span_gap"] == []


def test_no_narrow_target_is_in_its_own_source_and_every_one_is_a_target():
    d = design("reverse_gap")
    asked = [c for c in studies.comparisons(d, {}) if c.target]
    for width in (Fraction(1, 2), Fraction(1, 4)):
        own = [c for c in asked if c.target[0].width == width]
        assert {c.target[0] for c in own} == set(d.narrow(width))
        assert all(c.target[0] not in c.source for c in own)


def test_feature_performance_compares_each_sides_best():
    d = design("feature_performance")
    (finding,) = studies.findings(d, solved(d, narrow=0.3, wide=0.2))
    assert finding.verdict == "confirmed"
    (finding,) = studies.findings(d, solved(d, narrow=0.2, wide=0.2))
    assert finding.verdict == "not confirmed here"


def test_a_study_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r'no study "width_gab"; there are .* Did you mean width_gap'):
        load_study({"studies": ["width_gab"]})


def test_the_table_has_the_columns_that_are_documented():
    assert COLUMNS[:6] == ("study", "measure", "statistic", "split", "trained", "width")


def test_networks_of_equal_training_accuracy_are_compared_at_the_highest_that_all_reached():
    d = design("width_gap")
    nets = [*d.wide, *(net for width in d.widths for net in d.narrow(width))]
    assert not [c for c in studies.comparisons(d, {}) if c.snapshot.startswith("at_")]
    reached = {net: frozenset({"at_0.5", "at_0.9"} if net.width > Fraction(1, 4) else {"at_0.5"}) for net in nets}
    known = replace(d, reached=reached)
    at = {(c.networks[0].width, c.snapshot) for c in studies.comparisons(known, {}) if c.snapshot.startswith("at_")}
    assert at == {(Fraction(1, 2), "at_0.9"), (Fraction(1, 4), "at_0.5"), (1, "at_0.9"), (1, "at_0.5")}
    rows = [r for r in studies.rows(known, solved(known)) if r.statistic == "equal_accuracy"]
    told = {r.method for r in rows if r.width == "1/4"}
    assert all(re.match(r"first epoch at a training accuracy of 0.5; .*: width 1 0\.\d+, width 1/4 0", t) for t in told)
    assert not [r for r in studies.rows(d, solved(d)) if "equal_accuracy" in r.statistic]


def test_residuals_stand_against_networks_that_are_not_in_the_concatenation():
    for repeats in (1, 2):
        d = design("residuals", concatenations_of_a_quarter=repeats)
        asked = [c for c in studies.comparisons(d, {}) if dict(c.options).get("columns")]
        assert len(asked) == repeats
        for c in asked:
            assert not set(c.source) & set(c.target)
            assert len(c.target) == d.matching(Fraction(1, 4), "features")


def test_without_outlying_features_a_mean_is_over_the_others():
    d = design("outliers")

    def wild(c):
        score = made_up(c)
        errors = torch.tensor([0.1, 0.3, 7.0, math.nan, 0.2, 0.2], dtype=torch.float64)
        return replace(score, arrays=score.arrays | {"per_feature": errors, "supported": errors < 1})

    scores = {c: wild(c) for c in studies.comparisons(d, {})}
    found = {r.statistic: r.value for r in studies.rows(d, scores) if r.width == "1/4" and r.split == "test"}
    targets = 2 * 3  # of each of two concatenations, every wide network
    assert found["outlying"] == targets
    assert found["features"] == 5 * targets
    assert found["mean_without_outlying"] == pytest.approx(0.2)
    assert found["mean_all"] == pytest.approx(7.8 / 5)
