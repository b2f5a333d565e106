"""Images become inputs as written down, by the compiled library and by PyTorch to the same bits."""

import pytest
import torch

from widthwise import images as module
from widthwise import native, seeds
from widthwise.images import crop_and_flip, normalise


def images(seed, n=64, channels=3, h=6, w=5):
    return torch.randint(1, 256, (n, channels, h, w), generator=seeds.stream(seed, "images"), dtype=torch.uint8)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_and_flip_is_the_plain_loop_over_documented_draws(padding, seed):
    x = images(seed)
    generator = seeds.stream(seed, "crop")
    down = torch.randint(2 * padding + 1, (64, 1), generator=generator).flatten().tolist()
    across = torch.randint(2 * padding + 1, (64, 1), generator=generator).flatten().tolist()
    mirror = torch.randint(2, (64, 1), generator=generator).flatten().tolist()
    padded = torch.zeros(64, 3, 6 + 2 * padding, 5 + 2 * padding, dtype=torch.uint8)
    padded[:, :, padding : padding + 6, padding : padding + 5] = x
    ours = crop_and_flip(x, seeds.stream(seed, "crop"), padding)
    for n in range(64):
        one = padded[n, :, down[n] : down[n] + 6, across[n] : across[n] + 5]
        assert torch.equal(ours[n], one.flip(2) if mirror[n] else one)


def test_crop_and_flip_draws_every_offset_and_side_alike(seed):
    n, padding = 20_000, 2
    x = torch.zeros(n, 1, 7, 7, dtype=torch.uint8)
    x[:, 0, 3, 3] = 1
    place = crop_and_flip(x, seeds.stream(seed, "crop"), padding).flatten(2).argmax(2).flatten()
    share = torch.bincount(place, minlength=49).view(7, 7)[1:6, 1:6] / n
    assert (share - 1 / 25).abs().max() < 5 * (1 / 25 / n) ** 0.5
    x = torch.tensor([[[[1, 2]]]], dtype=torch.uint8).expand(n, 1, 1, 2)
    mirrored = crop_and_flip(x, seeds.stream(seed, "flip"), 0)[:, 0, 0, 0] == 2
    assert abs(mirrored.float().mean() - 0.5) < 5 * (0.25 / n) ** 0.5


def test_crop_and_flip_leaves_its_input_and_the_global_stream_alone(seed):
    x, before = images(seed), torch.random.get_rng_state()
    kept = x.clone()
    once, again = (crop_and_flip(x, seeds.stream(seed, "crop")) for _ in range(2))
    assert torch.equal(once, again)
    assert once.dtype == torch.uint8
    assert torch.equal(x, kept)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_normalise_scales_to_one_centres_and_divides_by_channel(seed):
    x = images(seed)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    exact = torch.stack([(x[:, c].double() / 255 - mean[c]) / std[c] for c in range(3)], 1)
    ours = normalise(x, mean, std)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(normalise(x.view(4, 16, 3, 6, 5), mean, std).view_as(ours), ours)


@pytest.mark.parametrize("shape", [(64, 3, 32, 32), (1, 2, 3, 5), (17, 1, 9, 11)])
def test_images_may_be_last_in_memory(shape, seed):
    x, how = images(seed, *shape), ((0.1, 0.2, 0.3)[: shape[1]], (0.5, 1.0, 2.0)[: shape[1]])
    found = normalise(x, *how, last=True)
    assert torch.equal(found, normalise(x, *how))
    if native.load(module.SOURCE) is not None:
        assert found.permute(1, 2, 3, 0).is_contiguous()
    assert torch.equal(normalise(x[None], *how, last=True)[0], found)


@pytest.mark.skipif(native.load(module.SOURCE) is None, reason="no C++ compiler (CXX, c++)")
@pytest.mark.parametrize("shape", [(64, 3, 32, 32), (1, 1, 1, 1), (6, 2, 3, 17)])
def test_the_compiled_library_has_the_bits_of_pytorch(shape, seed, monkeypatch):
    x, found = images(seed, *shape), []
    for compiled in (True, False):
        monkeypatch.setattr(module, "_compiled", lambda _, compiled=compiled: compiled)
        moved = crop_and_flip(x, [seeds.stream(seed, "crop", k) for k in range(1 + (len(x) > 1))])
        found.append((moved, normalise(moved, (0.49, 0.48, 0.45)[: shape[1]], (0.25, 0.24, 0.26)[: shape[1]])))
    assert all(map(torch.equal, *found))


def test_images_that_lie_otherwise_are_the_same(seed):
    x = images(seed).contiguous(memory_format=torch.channels_last)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    assert torch.equal(normalise(x, mean, std), normalise(x.contiguous(), mean, std))
    ours, plain = (crop_and_flip(each, seeds.stream(seed, "crop")) for each in (x, x.contiguous()))
    assert torch.equal(ours, plain)


def test_levels_that_are_whole_numbers_or_one_for_all_channels_are_taken(seed):
    x = images(seed)
    whole = normalise(x, (0, 1, 0), (1, 1, 2))
    assert torch.equal(whole, normalise(x, (0.0, 1.0, 0.0), (1.0, 1.0, 2.0)))
    torch.testing.assert_close(normalise(x, (0.5,), (0.25,)), normalise(x, (0.5,) * 3, (0.25,) * 3))
    assert normalise(x[:, 0], (0.5,), (0.25,)).shape == (64, 6, 5)


def test_samples_that_are_no_images_are_not_moved(seed):
    for shape in ((4, 3, 2, 6, 5), (4, 6, 5)):
        with pytest.raises(ValueError, match="unpack"):
            crop_and_flip(torch.zeros(shape, dtype=torch.uint8), seeds.stream(seed, "crop"))
