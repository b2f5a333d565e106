"""The layers of fleets against the ordinary ones, and that members do not know of each other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from small import DEVICE, on_a_processor
from widthwise import layers, seeds
from widthwise.dropout import Dropout, give_streams
from widthwise.layers import BatchNorm2d, Conv2d, Linear


@pytest.fixture(autouse=True)
def one_thread():
    """Compute on one thread: on more, kernels divide a batch by the size of the fleet."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CONVOLUTIONS = [
    dict(inputs=3, outputs=4, kernel=3, padding=1),
    dict(inputs=2, outputs=3, kernel=3, padding=1, stride=2, bias=False),
    dict(inputs=4, outputs=2, kernel=1, stride=2, bias=False),
    dict(inputs=1, outputs=2, kernel=1),
]


def convolution(members, inputs, outputs, kernel, **options):
    return Conv2d(members, inputs, outputs, kernel, **options)


def drawn(layer, *names):
    """Return the layer with every number drawn, so that none is 0 or 1 by chance."""
    generator = seeds.stream(*names)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return layer


def images(seed, name, batch, channels, size, dtype=torch.float64):
    x = torch.randn(batch, channels, size, size, generator=seeds.stream(seed, name)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


def assert_each_member_is(plain, layer, x, split):
    """Compare outputs, gradients, statistics and evaluation of every member with an ordinary layer."""
    before = [layers.unstack(layer.state_dict(), k) for k in range(layer.members)]
    plain, layer, x = plain.to(DEVICE), layer.to(DEVICE), x.to(DEVICE).requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    for k, state in enumerate(before):
        own = split(x.detach(), k).clone().requires_grad_()
        plain.load_state_dict(state, strict=True)
        z = plain.train().zero_grad() or plain(own)
        z.square().sum().backward()
        pairs = [(split(y, k), z), (split(x.grad, k), own.grad)]
        pairs += [(p.grad[k], q.grad) for p, q in zip(layer.parameters(), plain.parameters(), strict=True)]
        pairs += [(p[k], q) for p, q in zip(layer.buffers(), plain.buffers(), strict=True)]
        pairs += [(split(layer.eval()(x), k), plain.eval()(own))]
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("members", [1, 2, 3])
def test_linear_is_the_ordinary_layer_member_by_member(members, seed):
    layer = drawn(Linear(members, 5, 3), seed, "weights").double()
    x = torch.randn(members, 4, 5, generator=seeds.stream(seed, "x")).double()
    assert_each_member_is(nn.Linear(5, 3).double(), layer, x, lambda t, k: t[k])


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolution_is_the_ordinary_layer_member_by_member(members, shape, seed):
    layer = drawn(convolution(members, **shape), seed, "weights").double()
    plain = {**shape, "in_channels": shape["inputs"], "out_channels": shape["outputs"]}
    plain = nn.Conv2d(kernel_size=plain.pop("kernel"), **{k: v for k, v in plain.items() if k[-3:] != "uts"})
    x = images(seed, "x", 3, members * shape["inputs"], 6)
    assert_each_member_is(plain.double(), layer, x, lambda t, k: t.chunk(members, 1)[k])


@pytest.mark.parametrize("members", [1, 2, 3])
def test_batch_norm_is_the_ordinary_layer_member_by_member(members, seed):
    layer = drawn(BatchNorm2d(members, 3), seed, "weights").double()
    x = images(seed, "x", 4, members * 3, 5)
    assert_each_member_is(nn.BatchNorm2d(3).double(), layer, x, lambda t, k: t.chunk(members, 1)[k])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_float32_gradients_of_small_1x1_convolutions_are_right(channels, stride, seed):
    exact = drawn(Conv2d(1, channels, 8, 1, stride=stride, bias=False), seed, "weights").double()
    x = images(seed, "x", 32, channels, 32)
    exact(x).square().sum().backward()
    rounded = drawn(Conv2d(1, channels, 8, 1, stride=stride, bias=False), seed, "weights")
    rounded(x.float()).square().sum().backward()
    torch.testing.assert_close(rounded.weight.grad.double(), exact.weight.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_bfloat16_gradients_of_strided_convolutions_of_small_images_are_right(size, members, seed):
    layer = drawn(Conv2d(members, 16, 32, 3, stride=2, padding=1, bias=False), seed, "weights").to(DEVICE)
    x = images(seed, "x", 32, 16 * members, size, torch.float32).to(DEVICE)
    layer(x).sum().backward()
    exact, layer.weight.grad = layer.weight.grad, None
    for size in (1, 2, 4):  # memory that is free now, and holds no numbers, shows what is left unwritten
        _ = [torch.full((size * exact.numel() // 2,), torch.nan) for _ in range(4)]
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, exact, rtol=0.05, atol=0.3)


def trained(layer, x, place, g):
    """Return what a step leaves of one member: output, gradients, statistics."""
    m, g = layer.members, g.to(DEVICE)
    layer, x = layer.to(DEVICE), x.to(DEVICE).requires_grad_()
    y = layer(x)
    y.backward(g.contiguous(memory_format=torch.channels_last) if g.ndim == 4 else g)
    split = (lambda t: t.chunk(m, 1)[place]) if x.ndim == 4 else (lambda t: t[place])
    states = [*(p.grad[place] for p in layer.parameters()), *(b[place] for b in layer.buffers())]
    return [split(y.detach()), split(x.grad), *states]


def placed(own, members, place, dim, names):
    """Return what fills a fleet: `own` at its place, drawn numbers elsewhere."""
    parts = [torch.randn(own.shape, generator=seeds.stream(*names, k)) for k in range(members)]
    parts[place] = own
    return torch.cat(parts, 1) if dim == 1 else torch.stack(parts)


FLEETS = ((2, 0), (2, 1), (3, 1), (4, 3), (5, 2), (8, 5), (9, 8))
LAYERS = {
    "linear 37 to 10": (lambda m: Linear(m, 37, 10), (29, 37), (29, 10)),
    "linear 3 to 5": (lambda m: Linear(m, 3, 5), (128, 3), (128, 5)),
    "linear 64 to 64": (lambda m: Linear(m, 64, 64), (17, 64), (17, 64)),
    "3 to 1, 3x3": (lambda m: Conv2d(m, 3, 1, 3, padding=1), (16, 3, 8, 8), (16, 1, 8, 8)),
    "1 to 1, 3x3": (lambda m: Conv2d(m, 1, 1, 3, padding=1), (16, 1, 8, 8), (16, 1, 8, 8)),
    "1 to 2, 3x3": (lambda m: Conv2d(m, 1, 2, 3, padding=1), (16, 1, 8, 8), (16, 2, 8, 8)),
    "1 to 2, 1x1": (lambda m: Conv2d(m, 1, 2, 1, stride=2), (16, 1, 8, 8), (16, 2, 4, 4)),
    "3 to 6, strided": (lambda m: Conv2d(m, 3, 6, 3, padding=1, stride=2), (16, 3, 8, 8), (16, 6, 4, 4)),
    "4 to 8, 1x1": (lambda m: Conv2d(m, 4, 8, 1, stride=2), (16, 4, 8, 8), (16, 8, 4, 4)),
    "12 to 12, 3x3": (lambda m: Conv2d(m, 12, 12, 3, padding=1), (16, 12, 4, 4), (16, 12, 4, 4)),
    "batch norm of 1": (lambda m: BatchNorm2d(m, 1), (16, 1, 8, 8), (16, 1, 8, 8)),
    "batch norm of 3": (lambda m: BatchNorm2d(m, 3), (16, 3, 8, 8), (16, 3, 8, 8)),
    "batch norm of 12": (lambda m: BatchNorm2d(m, 12), (16, 12, 4, 4), (16, 12, 4, 4)),
}


@on_a_processor
@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_no_bit_of_a_member_depends_on_its_companions_its_place_or_their_number(case, seed):
    make, inputs, outputs = case
    own = torch.randn(inputs, generator=seeds.stream(seed, "own"))
    gradient = torch.randn(outputs, generator=seeds.stream(seed, "gradient"))
    state = layers.unstack(drawn(make(1), seed, "weights").state_dict(), 0)
    found = []
    for members, place in FLEETS:
        others = [layers.unstack(drawn(make(1), seed, "others", members, k).state_dict(), 0) for k in range(members)]
        layer = make(members)
        layer.load_state_dict(layers.stack([*others[:place], state, *others[place + 1 :]]))
        dim = 1 if len(inputs) == 4 else 0
        x = placed(own, members, place, dim, (seed, "x", members, place))
        g = placed(gradient, members, place, dim, (seed, "g", members, place))
        x = x.contiguous(memory_format=torch.channels_last) if dim else x
        found.append(trained(layer, x, place, g))
    for fleet, other in zip(FLEETS, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True)), fleet


def test_pooling_and_taking_apart_give_each_member_its_own(seed):
    x = torch.randn(3, 2, 4, 5, 5, generator=seeds.stream(seed, "x"))
    joined = layers.side_by_side(x)
    assert joined.shape == (2, 12, 5, 5)
    assert joined.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layers.by_member(joined[:, :, 0, 0], 3), x[:, :, :, 0, 0])


def test_stack_and_unstack_undo_each_other(seed):
    states = [drawn(BatchNorm2d(1, 4), seed, k).state_dict() for k in range(3)]
    plain = [layers.unstack(state, 0) for state in states]
    fleet = layers.stack(plain)
    assert {name: tuple(t.shape) for name, t in fleet.items()} == {
        "weight": (3, 4),
        "bias": (3, 4),
        "running_mean": (3, 4),
        "running_var": (3, 4),
        "num_batches_tracked": (3,),
    }
    for k in range(3):
        assert all(torch.equal(t, plain[k][name]) for name, t in layers.unstack(fleet, k).items())
    layers.unstack(fleet, 0)["weight"].zero_()
    assert torch.equal(fleet["weight"][0], plain[0]["weight"])


def test_states_of_different_architectures_do_not_stack():
    with pytest.raises(AssertionError, match="different architectures"):
        layers.stack([Linear(1, 2, 3).state_dict(), Conv2d(1, 2, 3, 1, bias=False).state_dict()])


def body():
    return nn.Sequential(Conv2d(3, 16, 32, 3), BatchNorm2d(3, 32), Linear(3, 256, 64))


def test_initial_weights_are_he_normal_and_the_rest_is_zero_or_one(seed):
    network = drawn(body(), seed, "before")
    layers.initialise(network, [seeds.stream(seed, k) for k in range(3)])
    for layer, fan_in in ((network[0], 16 * 9), (network[2], 256)):
        for weight in layer.weight.detach().flatten(1):
            n, std = weight.numel(), (2 / fan_in) ** 0.5
            assert abs(weight.mean()) < 5 * std / n**0.5
            assert abs(weight.std() / std - 1) < 5 / (2 * n) ** 0.5
            assert abs((weight / std).pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
        assert not layer.bias.any()
    norm = network[1].state_dict()
    assert all((norm[name] == 1).all() for name in ("weight", "running_var"))
    assert not any(norm[name].any() for name in ("bias", "running_mean", "num_batches_tracked"))


def test_initial_weights_of_a_member_do_not_depend_on_companions_or_dtype(seed):
    one, other = body(), body().double()
    layers.initialise(one, [seeds.stream(seed, k) for k in (0, 1, 2)])
    layers.initialise(other, [seeds.stream(seed, k) for k in (3, 0, 4)])
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p[0].double(), q[1])
    assert not torch.equal(one[0].weight[0].double(), other[0].weight[0])


def test_initialisation_wants_one_stream_a_member():
    with pytest.raises(AssertionError, match="2 streams, 3 members"):
        layers.initialise(body(), [seeds.stream(0, k) for k in range(2)])


def test_dropout_keeps_a_share_and_the_mean(seed):
    layer = Dropout(0.25)
    give_streams(layer, [seeds.stream(seed, "mask")])
    y = layer(torch.ones(1, 100, 200))
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert abs((y == 0).float().mean() - 0.25) < 5 * (0.25 * 0.75 / 20_000) ** 0.5


def test_a_mask_is_its_members_alone_and_goes_on_from_call_to_call(seed):
    masks = []
    for members, place in ((1, 0), (3, 2)):
        layer, x = Dropout(0.5), torch.ones(members, 8, 16)
        streams = [seeds.stream(seed, "other", k) for k in range(members)]
        streams[place] = seeds.stream(seed, "own")
        give_streams(nn.Sequential(layer), streams)
        masks.append(torch.stack([layer(x)[place], layer(x)[place]]))
    assert torch.equal(*masks)
    assert not torch.equal(*masks[0])


def test_dropout_is_the_identity_in_evaluation_and_at_zero():
    x = torch.ones(2, 3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_dropout_does_not_train_without_streams():
    with pytest.raises(AssertionError, match="give_streams"):
        Dropout(0.5)(torch.ones(2, 3, 4))


def test_layers_keep_to_autocast(seed):
    x = images(seed, "x", 4, 6, 4, torch.float32)
    network = nn.Sequential(Conv2d(2, 3, 3, 3, padding=1), BatchNorm2d(2, 3))
    layers.initialise(network, [seeds.stream(seed, k) for k in range(2)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(x)
        z = Linear(2, 3, 5)(layers.by_member(F.avg_pool2d(y, 4).flatten(1), 2))
    assert y.dtype == z.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())
