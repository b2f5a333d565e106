from fractions import Fraction

from small import study
from widthwise.design import Design, Net, described, left_out

HALF = Fraction(1, 2)


def design(**over):
    return Design(study(**over), (1, 8, 8), 10)


def test_concatenations_are_disjoint_and_the_smaller_is_the_first_of_the_larger():
    d = design(concatenations={"1/2": 3})
    larger, smaller = d.concatenations(HALF, "parameters"), d.concatenations(HALF, "features")
    assert len(larger) == 3
    nets = [net for concatenation in larger for net in concatenation]
    assert len(nets) == len(set(nets))
    assert all(len(c) == d.matching(HALF, "features") for c in smaller)
    assert {net.seed for net in d.narrow(HALF)} == set(range(3 * max(len(larger[0]), len(smaller[0]))))
    assert all(set(s) <= set(d.narrow(HALF)) for s in smaller)


def test_the_number_of_concatenations_follows_the_default_rule():
    d = design(network={"kind": "mlp", "hidden": 256, "depth": 3}, widths=["1", "1/2", "1/16"], concatenations={})
    assert d.repeats(HALF) == 4
    m = d.matching(Fraction(1, 16), "parameters")
    assert d.repeats(Fraction(1, 16)) == min(4, max(1, 128 // m))


def test_narrow_networks_match_the_wide_one():
    d = design()
    m = d.matching(HALF, "features")
    assert m * d.features(HALF) >= d.features(Fraction(1)) > (m - 1) * d.features(HALF)


def test_at_most_sixteen_groups_are_left_out_in_turn_each_network_once():
    nets = tuple(Net(HALF, seed) for seed in range(37))
    kept = list(left_out(nets))
    assert len(kept) == 16
    dropped = [set(nets) - set(k) for k in kept]
    assert set().union(*dropped) == set(nets)
    assert sum(map(len, dropped)) == 37
    assert len(list(left_out(nets[:3]))) == 3
    assert list(left_out(nets[:1])) == []


def test_networks_are_described_in_words():
    assert described([Net(HALF, 3)]) == "1/2"
    assert described([Net(HALF, 0), Net(HALF, 1)]) == "2 x 1/2"


def test_networks_with_more_features_together_than_a_fit_has_rows_are_named_with_the_rows():
    made = design(widths=["1", "1/2"])
    p = made.matching(HALF, "parameters") * made.features(HALF)
    assert made.crowded(p * 5 // 4 + 5, p * 5 // 4 + 5) == []
    (told,) = made.crowded(p * 5 // 4 + 5, p)
    assert f"width 1/2: {p:,} features of networks together for {p * 4 // 5:,} unseen rows of a fit" in told
    assert len(made.crowded(p, p)) == 2
