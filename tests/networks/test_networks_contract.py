"""What every network promises, whichever file it is: a new file in the folder is tested with no edit here."""

from fractions import Fraction
from functools import cache

import pytest
import torch
from fleets import fleet, learn, samples

from small import DEVICE, on_a_processor
from widthwise import family, layers
from widthwise.errors import UsageError
from widthwise.networks import base
from widthwise.networks.base import Network, Single

NAMES = family.names("networks")
SHAPES = ((3, 32, 32), (1, 8, 8), (64,), (5, 16))
SCALES = tuple(Fraction(1, k) for k in (16, 8, 4, 2, 1))


@cache
def small(kind):
    """Return a shape that the network takes and the smallest scale that gives whole numbers."""
    scales = (Fraction(256),) if by_neurons(kind) else SCALES
    for shape in SHAPES:
        for scale in scales:
            try:
                base.build(kind, shape, 10, scale)
            except UsageError:
                continue
            return shape, scale
    raise AssertionError(f"{kind} builds for none of the shapes {SHAPES} and scales {SCALES}")


def by_neurons(kind):
    """Return whether a network's width is a number of neurons: of one layer, which is not its features."""
    return hasattr(family.member("networks", kind), "NEURONS")


def taken(kind, scale):
    """Return whether all widths are whole at a scale, and the heads divide the narrowest."""
    module = family.member("networks", kind)
    heads = family.options(module.build).get("heads", 1)
    textbook = module.widths(Fraction(1))
    return all((scale * width).denominator == 1 for width in (*textbook, Fraction(min(textbook), heads)))


@pytest.fixture(params=NAMES)
def kind(request):
    return request.param


def test_the_file_says_what_it_is(kind):
    module = family.member("networks", kind)
    assert isinstance(module.VERSION, int)
    assert module.__doc__
    assert family.options(module.widths) == family.options(module.build)


def test_forward_is_the_head_of_the_features(kind, seed):
    shape, scale = small(kind)
    network = fleet(kind, shape, scale, [seed, seed + 1]).eval()
    inputs, _ = samples(shape, [seed, seed + 1], batch=3)
    features = network.features(inputs)
    assert isinstance(network, Network)
    assert features.shape == (2, 3, network.n_features)
    assert features.isfinite().all()
    assert network(inputs).shape == (2, 3, 10)
    assert torch.equal(network(inputs), network.head(features))


def test_widths_are_those_of_the_network_and_follow_the_scale(kind):
    shape, scale = small(kind)
    module = family.member("networks", kind)
    state = base.build(kind, shape, 10, scale).state_dict()
    outputs = {size for t in state.values() for size in t.shape[1:]}
    assert set(module.widths(scale)) <= outputs
    assert by_neurons(kind) or base.feature_count(kind, shape, 10, scale) in module.widths(scale)
    assert module.widths(scale) == tuple(scale * width for width in module.widths(Fraction(1)))


@pytest.mark.parametrize("scale", [Fraction(1, 64), Fraction(3, 64), Fraction(1, 7), Fraction(1, 10_007)])
def test_any_scale_gives_a_network_or_one_clear_refusal(kind, scale):
    shape, _ = small(kind)
    module = family.member("networks", kind)
    if taken(kind, scale):
        assert base.feature_count(kind, shape, 10, scale) in module.widths(scale)
        return
    for door in (lambda: module.widths(scale), lambda: base.build(kind, shape, 10, scale)):
        with pytest.raises(UsageError, match=f"at scale {scale} would have .* the nearest scales"):
            door()


def test_the_state_of_a_fleet_is_the_stack_of_its_members_plain_states(kind, seed):
    shape, scale = small(kind)
    member_seeds = [seed, seed + 1, seed + 2]
    state = fleet(kind, shape, scale, member_seeds).state_dict()
    plain = [Single(fleet(kind, shape, scale, [s])).state_dict() for s in member_seeds]
    stacked = layers.stack(plain)
    assert list(stacked) == list(state)
    for name, tensor in state.items():
        assert torch.equal(tensor, stacked[name]), name
    for k in range(3):
        assert all(torch.equal(t, plain[k][name]) for name, t in layers.unstack(state, k).items())


@on_a_processor
@pytest.mark.parametrize("scale", [None, Fraction(1, 64), Fraction(3, 64)], ids=str)
def test_no_bit_of_a_member_depends_on_its_companions_its_place_or_their_number(kind, scale, seed):
    shape, smallest = small(kind)
    scale = scale or smallest
    if not taken(kind, scale):
        pytest.skip(f"{kind} has no whole widths at scale {scale}")
    found = []
    for others, place in ((1, 0), (1, 1), (2, 2), (4, 3), (7, 0), (15, 9)):
        member_seeds = list(range(seed + 1, seed + 1 + others))
        member_seeds.insert(place, seed)
        network = fleet(kind, shape, scale, member_seeds)
        learn(network, *samples(shape, member_seeds, batch=16))
        gradients = {f"gradient of {n}": p.grad[place] for n, p in network.named_parameters()}
        states = layers.unstack(network.state_dict(), place)
        with torch.no_grad():
            logits = {"logits": network.eval()(samples(shape, member_seeds)[0])[place]}
        found.append(gradients | states | logits)
    for other in found[1:]:
        unequal = [name for name, tensor in found[0].items() if not torch.equal(tensor, other[name])]
        assert not unequal


def test_the_loss_of_one_member_moves_no_other(kind, seed):
    shape, scale = small(kind)
    network = fleet(kind, shape, scale, [seed, seed + 1, seed + 2])
    network(samples(shape, [seed, seed + 1, seed + 2])[0])[1].square().sum().backward()
    for name, parameter in network.named_parameters():
        moved = parameter.grad.flatten(1).abs().sum(1) != 0
        assert not moved[0], name
        assert not moved[2], name


def test_a_member_that_is_not_a_number_changes_no_bit_of_the_others(kind, seed):
    shape, scale = small(kind)
    member_seeds, found = [seed, seed + 1, seed + 2], []
    for poisoned in (False, True):
        network = fleet(kind, shape, scale, member_seeds)
        if poisoned:
            for parameter in network.parameters():
                parameter.data[1] = torch.nan
        learn(network, *samples(shape, member_seeds, batch=8))
        found.append([t[[0, 2]] for p in network.parameters() for t in (p.grad, p.detach())])
        found[-1] += [buffer[[0, 2]] for buffer in network.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(t.isfinite().all() for t in found[1])


def test_one_step_changes_every_parameter(kind, seed):
    shape, scale = small(kind)
    member_seeds = range(seed, seed + 4)
    network = fleet(kind, shape, scale, member_seeds)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    learn(network, *samples(shape, member_seeds, batch=8))
    optimizer.step()
    unmoved = [name for name, p in network.named_parameters() if torch.equal(p, before[name])]
    assert not unmoved


def test_a_sample_in_evaluation_does_not_depend_on_its_batch(kind, seed):
    shape, scale = small(kind)
    network = fleet(kind, shape, scale, [seed, seed + 1], torch.float64).eval()
    inputs, _ = samples(shape, [seed, seed + 1], torch.float64)
    whole = network.features(inputs)
    torch.testing.assert_close(network.features(inputs[:, :2]), whole[:, :2], rtol=1e-9, atol=1e-9)
    assert torch.equal(network.features(inputs), whole)


def test_a_batch_that_all_members_share_may_be_one_view(kind, seed):
    shape, scale = small(kind)
    network = fleet(kind, shape, scale, [seed, seed + 1, seed + 2]).eval()
    one = samples(shape, [seed])[0][0]
    shared = one.expand(3, *one.shape)
    assert torch.equal(network(shared), network(shared.contiguous()))


def test_bfloat16_autocast_is_the_same_network_to_bfloat16(kind, seed):
    shape, scale = small(kind)
    network = fleet(kind, shape, scale, [seed, seed + 1]).eval()
    inputs, labels = samples(shape, [seed, seed + 1])
    exact = network(inputs)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        rounded = network(inputs)
        assert rounded.dtype == torch.bfloat16
        learn(network.train(), inputs, labels)
    assert (rounded.float() - exact).norm() < 0.2 * exact.norm()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in network.parameters())


def test_an_unknown_option_is_refused(kind):
    shape, scale = small(kind)
    with pytest.raises(UsageError, match=f'{kind} has no option "no_such_option"'):
        base.build(kind, shape, 10, scale, no_such_option=1)
