import pytest

from widthwise import verdicts

CLEAR = {"elsewhere": [0.02, 0.02], "extrapolated": [0.02, 0.015], "standardized": 0.02, "wide": 4}


def test_a_gap_is_confirmed_if_everything_agrees():
    assert verdicts.gap(low=0.01, high=0.03, margin=0.002, **CLEAR) == "confirmed"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"wide": 2}, "below resolution"),
        ({"elsewhere": [0.02, -0.001]}, "not confirmed here"),
        ({"extrapolated": [0.001, None]}, "below resolution"),
        ({"extrapolated": [0.02, None]}, "confirmed"),
        ({"extrapolated": [None, None]}, "below resolution"),
        ({"standardized": -0.01}, "below resolution"),
    ],
)
def test_one_thing_that_does_not_agree_is_enough(change, word):
    assert verdicts.gap(low=0.01, high=0.03, margin=0.002, **CLEAR | change) == word


@pytest.mark.parametrize(
    ("low", "high", "elsewhere", "word"),
    [
        (-0.03, -0.01, [-0.01, -0.02], "opposite"),
        (-0.03, -0.01, [-0.01, 0.02], "not confirmed here"),
        (-0.001, 0.001, [0.0, 0.0], "not confirmed here"),
        (-0.001, 0.01, [0.01, 0.01], "below resolution"),
        (float("nan"), float("nan"), [0.01, 0.01], "below resolution"),
        (0.01, 0.03, [None, None], "below resolution"),
        (0.01, 0.03, [None, -0.01], "not confirmed here"),
        (-0.03, -0.01, [-0.01, None], "not confirmed here"),
        (-0.001, 0.001, [None, None], "not confirmed here"),
    ],
)
def test_an_interval_is_read_against_the_margin(low, high, elsewhere, word):
    assert verdicts.gap(low=low, high=high, margin=0.002, **CLEAR | {"elsewhere": elsewhere}) == word


def test_the_finding_needs_the_two_smallest_widths_and_estimates_that_do_not_fall():
    yes, no, dim = verdicts.CONFIRMED, verdicts.NOT_CONFIRMED, verdicts.BELOW_RESOLUTION
    assert verdicts.gap_overall([no, yes, yes], [-0.01, 0.01, 0.02]) == yes
    assert verdicts.gap_overall([yes, yes, yes], [0.01, 0.03, 0.02]) == no
    assert verdicts.gap_overall([yes, no], [0.02, 0.03]) == no
    assert verdicts.gap_overall([yes], [0.02]) == dim
    assert verdicts.gap_overall([no], [-0.02]) == no
    assert verdicts.gap_overall([dim], [0.01]) == dim
    assert verdicts.gap_overall([], []) == dim
    assert verdicts.gap_overall([dim, yes], [0.01, 0.02]) == dim
    assert verdicts.gap_overall(["opposite"] * 2, [-0.01, -0.02]) == "opposite"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.05, -0.01, "confirmed"), (-0.004, 0.01, "not confirmed here"), (-0.01, 0.01, "below resolution")],
)
def test_performance_is_read_against_its_margin(low, high, word):
    assert verdicts.performance(low=low, high=high, margin=0.005, wide=3) == word
