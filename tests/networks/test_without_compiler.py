"""A network computes the same whether thin layers are ours, compiled, or PyTorch's own."""

import pytest
import torch
from fleets import fleet, learn, samples

from widthwise import lanes


@pytest.mark.skipif(lanes.compiled() is None, reason="no C++ compiler (CXX, c++)")
@pytest.mark.parametrize(
    ("kind", "shape", "width"),
    [
        ("resnet18", (3, 16, 16), "1/16"),
        ("vgg16", (3, 32, 32), "1/32"),
        ("transformer", (8, 13), "1/8"),
    ],
)
def test_gradients_and_features_are_the_same_without_a_compiler(kind, shape, width, seed, monkeypatch):
    x, labels = samples(shape, [seed], torch.float64, 20)
    options = {"dropout": 0.0} if kind == "vgg16" else {}
    found = []
    for present in (True, False):
        if not present:
            monkeypatch.setattr(lanes, "compiled", lambda: None)
        network = fleet(kind, shape, width, [seed], torch.float64, **options)
        learn(network, x, labels)
        gradients = {name: p.grad for name, p in network.named_parameters()}
        with torch.no_grad():
            features = network.eval().features(x)
        found.append({**gradients, "features": features, **dict(network.named_buffers())})
    for name, ours in found[0].items():
        scale = float(found[1][name].abs().max())
        torch.testing.assert_close(ours, found[1][name], rtol=0, atol=1e-10 * scale, msg=name)
