"""What a network is: features, then a linear head, for m members at once; and the one door that builds it.

A member of this family is a file with

    VERSION = 1                                          rises when the network's numbers change
    def widths(scale, *, <options>) -> tuple[int, ...]   the hidden widths; they enter a run's key
    def build(shape, classes, scale, members, *, <options with defaults>) -> Network

and, where it takes texts, TEXTS = True; where the paper's samples are not CIFAR-10's, SHAPE and CLASSES of its own.

`shape` is one sample's, `scale` the factor on every hidden width of the textbook network (base times width).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from fractions import Fraction
from math import ceil, floor
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from widthwise import family
from widthwise.errors import UsageError
from widthwise.layers import Linear

# Inputs (m, batch, ...) and targets (m, batch) -> every member's mean cross entropy (m,) and right samples (m,)
Learner = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
SIZES = tuple(Fraction(1, k) for k in (1, 2, 4, 8, 16))  # the widths that `sizes` tells


class Network(nn.Module, ABC):
    """`members` networks of one architecture; forward is the head of the features.

    Attributes:
        images_last: whether it would have images last in memory, on a processor and in its own precision.
    """

    head: Linear
    images_last = False

    def __init__(self, members: int, classes: int, n_features: int):
        super().__init__()
        self.members, self.classes, self.n_features = members, classes, n_features

    @abstractmethod
    def features(self, x: Float[Tensor, "m batch ..."]) -> Float[Tensor, "m batch d"]:
        """Return what enters the head."""

    def forward(self, x: Float[Tensor, "m batch ..."]) -> Float[Tensor, "m batch classes"]:
        """Return every member's logits of its own samples."""
        return self.head(self.features(x))

    def learner(self, gradients: Mapping[str, Tensor], shape: tuple[int, ...]) -> Learner | None:
        """Return what goes forward, in training, and back without autograd, while all tensors stay where they are.

        None where autograd is better, as it is unless a network says otherwise.

        Args:
            gradients: where each parameter's is written.
            shape: of a batch, (batch, ...).
        """
        return None


class Single(nn.Module):
    """One network as an ordinary module: no member dimension in its inputs, outputs and state dict."""

    def __init__(self, network: Network):
        super().__init__()
        assert network.members == 1, f"a fleet of {network.members} is not one network"
        self.network = network
        self.register_state_dict_post_hook(_to_plain)
        self.register_load_state_dict_pre_hook(_from_plain)
        self.register_load_state_dict_post_hook(_plain_names)

    def features(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch d"]:
        """Return what enters the head."""
        return self.network.features(x.unsqueeze(0))[0]

    def head(self, features: Float[Tensor, "batch d"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of features."""
        return self.network.head(features.unsqueeze(0))[0]

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Return the logits of samples."""
        return self.network(x.unsqueeze(0))[0]


def build(
    kind: str, shape: tuple[int, ...], classes: int, scale: Fraction, members: int = 1, **options: Any
) -> Network:
    """Return `members` networks of one kind, their weights not drawn yet (see `layers.initialise`).

    Raises:
        UsageError: if there is no such network or option, or a width is not a whole number.
    """
    return _member(kind, options).build(shape, classes, scale, members, **options)


def parameter_count(kind: str, shape: tuple[int, ...], classes: int, scale: Fraction, **options: Any) -> int:
    """Return the number of one network's parameters, running statistics not among them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(kind, shape, classes, scale, **options).parameters())


def feature_count(kind: str, shape: tuple[int, ...], classes: int, scale: Fraction, **options: Any) -> int:
    """Return the number of one network's features."""
    with torch.device("meta"):
        return build(kind, shape, classes, scale, **options).n_features


def count_matching(
    kind: str,
    width: Fraction | float | str,
    *,
    by: Literal["features", "parameters"],
    base: Fraction | float | str = 1,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    **options: Any,
) -> int:
    """Return the smallest m with m * size(narrow) >= size(wide), size being features or parameters.

    The wide network has the textbook widths times `base`, the narrow one those times `width`. Samples are those of the
    textbook, if `shape` and `classes` do not tell others.

    Raises:
        UsageError: if `width` is not in (0, 1], `by` is neither, or `build` refuses.
    """
    counts = {"features": feature_count, "parameters": parameter_count}
    if by not in counts:
        raise UsageError(f'networks are matched by "features" or "parameters", not by "{by}".')
    narrowing, base = _fraction("width", width), _fraction("base", base)
    if narrowing > 1:
        raise UsageError(f"a width is a fraction above 0 and at most 1, such as 1/4, not {width}.")
    usual = textbook(kind)
    of = (kind, shape or usual[0], classes or usual[1])
    wide, narrow = (counts[by](*of, scale, **options) for scale in (base, base * narrowing))
    return ceil(Fraction(wide, narrow))


def textbook(kind: str) -> tuple[tuple[int, ...], int]:
    """Return one sample's shape and the number of classes in the paper: CIFAR-10's, or what the network says."""
    module = family.member("networks", kind)
    return getattr(module, "SHAPE", (3, 32, 32)), getattr(module, "CLASSES", 10)


def sizes(
    kind: str, *, base: Fraction = Fraction(1), shape: tuple[int, ...] | None = None, classes: int | None = None
) -> dict[str, dict[str, int]]:
    """Return parameters, features and both matching counts of a network, each by width.

    A width that would give a fraction of a channel is left out.
    """
    member, usual = family.member("networks", kind), textbook(kind)
    shape, classes = shape or usual[0], classes or usual[1]
    counts: dict[str, dict[str, int]] = {
        "parameters": {},
        "features": {},
        "match_features": {},
        "match_parameters": {},
    }
    for width in SIZES:
        try:
            member.widths(base * width)
        except UsageError:
            continue
        of = (kind, shape, classes, base * width)
        counts["parameters"][str(width)] = parameter_count(*of)
        counts["features"][str(width)] = feature_count(*of)
        for by in ("parameters", "features"):
            m = count_matching(kind, width, by=by, base=base, shape=shape, classes=classes)
            counts[f"match_{by}"][str(width)] = m
    return counts


def scaled(n: int, scale: Fraction) -> int:
    """Return n * scale.

    Raises:
        UsageError: if that is not a whole number of at least 1, with the nearest scales where it is.
    """
    exact = n * scale
    if exact.denominator == 1 and exact >= 1:
        return int(exact)
    wholes = sorted({max(1, floor(exact)), max(1, ceil(exact))})
    nearest = " and ".join(f"{Fraction(whole, n)} ({whole})" for whole in wholes)
    raise UsageError(
        f"a layer of {n} at scale {scale} would have {exact} channels, not a whole number of at least 1; "
        f"the nearest scales that give one: {nearest}."
    )


def image_shape(kind: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return `shape` as (channels, height, width).

    Raises:
        UsageError: if samples of that shape are not images.
    """
    if len(shape) != 3:
        raise UsageError(f"{kind} takes images of shape (channels, height, width), not samples of {shape}.")
    return shape


def _fraction(name: str, value: Fraction | float | str) -> Fraction:
    try:
        fraction = Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError):
        fraction = Fraction(0)
    if fraction <= 0:
        raise UsageError(f"a {name} is a fraction above 0, such as 1/4, not {value}.")
    return fraction


def _member(kind: str, options: dict[str, Any]) -> ModuleType:
    module = family.member("networks", kind)
    problems = family.check_options(kind, module.build, options)
    if problems:
        raise UsageError("\n".join(problems))
    return module


def _to_plain(module: nn.Module, state: MutableMapping[str, Tensor], prefix: str, _metadata: Any) -> None:
    inner = f"{prefix}network."
    for name in [name for name in state if name.startswith(inner)]:
        state[prefix + name.removeprefix(inner)] = state.pop(name)[0]


def _from_plain(module: nn.Module, state: MutableMapping[str, Tensor], prefix: str, *_reports: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name).unsqueeze(0)


def _plain_names(module: nn.Module, incompatible: Any) -> None:
    for names in incompatible:
        names[:] = [name.replace("network.", "", 1) for name in names]
