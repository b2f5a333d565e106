"""Solutions in a Krylov space against dense ones: exact where the space is all, and no further off than they say."""

import numpy as np
import pytest
import scipy.linalg
import torch

from widthwise.errors import UsageError
from widthwise.linalg import krylov, ridge
from widthwise.linalg.moments import Moments
from widthwise.linalg.strata import second_about, strata

SHIFTS = torch.tensor([1e-6, 1e-2, 3.0], dtype=torch.float64)
GRID = torch.logspace(-9, 1, 11, dtype=torch.float64)
P, T = 60, 4


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


def matrix(random, size, values=None) -> torch.Tensor:
    Q = np.linalg.qr(random.normal(size=(size, size)))[0]
    return torch.from_numpy(Q * (np.linspace(0.5, 2, size) if values is None else values) @ Q.T)


def targets(random, size, count=3) -> torch.Tensor:
    return torch.from_numpy(random.normal(size=(size, count)))


def reduced(S, C, rank=None, smallest=1e-6) -> krylov.Krylov:
    return krylov.reduce(lambda V: S @ V, C, smallest, len(S) if rank is None else rank)


def left(form, C) -> torch.Tensor:
    """Return the residuals of every shift and column."""
    inside = form.rotate(C)
    return torch.stack([form.residuals(inside, shift.expand(C.shape[1])) for shift in SHIFTS])


def solved(form, C) -> list[torch.Tensor]:
    return [form.back(Z) for Z in form.solve(form.rotate(C), SHIFTS).unbind(1)]


# The form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 64, 130])
def test_a_space_of_all_dimensions_solves_exactly(size, random, monkeypatch):
    monkeypatch.setattr(krylov, "space", lambda size, targets, rank: size)
    S, C = matrix(random, size), targets(random, size)
    form = reduced(S, C)
    for shift, W in zip(SHIFTS, solved(form, C), strict=True):
        truth = torch.linalg.solve(S + shift * torch.eye(size, dtype=torch.float64), C)
        assert torch.allclose(W, truth, rtol=0, atol=1e-11 * float(truth.abs().max()))
    assert float(left(form, C).max()) < 1e-11


def test_the_residual_is_that_of_the_weights_and_falls_with_the_space(random, monkeypatch):
    S, C, worst = matrix(random, 300, np.logspace(0, -7, 300)), targets(random, 300), []
    for most in (30, 90, 150):
        monkeypatch.setattr(krylov, "space", lambda size, targets, rank, most=most: most)
        form = reduced(S, C)
        assert form.basis.shape == (300, most)
        found = left(form, C)
        truth = [C - S @ W - shift * W for shift, W in zip(SHIFTS, solved(form, C), strict=True)]
        assert torch.allclose(found, torch.stack(truth).norm(dim=1), rtol=1e-6, atol=1e-12)
        worst.append(found[1].max())
    assert worst[0] > 10 * worst[1] > 100 * worst[2]


def test_a_fit_lies_no_further_above_the_least_than_its_certificate(random):
    S, C = matrix(random, 300, np.logspace(0, -7, 300)), targets(random, 300)
    form = reduced(S, C)
    r = left(form, C)
    for shift, W, own in zip(SHIFTS, solved(form, C), r, strict=True):
        least = (C * torch.linalg.solve(S + shift * torch.eye(300, dtype=torch.float64), C)).sum(0)
        above = least - (C * W).sum(0)
        assert bool((above >= -1e-12 * least).all())
        assert bool((above <= own.square() / shift + 1e-12 * least).all())


def test_the_basis_is_orthonormal_and_the_form_is_the_matrix_in_it(random):
    S, C = matrix(random, 200, np.logspace(0, -9, 200)), targets(random, 200)
    form = reduced(S, torch.cat([C, C[:, :2], torch.zeros(200, 1).double()], 1))
    V = form.basis
    assert torch.allclose(V.T @ V, torch.eye(V.shape[1]).double(), rtol=0, atol=1e-13)
    inside = form.inner.back(form.inner.rotate(V.T @ S @ V))  # through the coordinates of the band and back
    assert torch.allclose(inside, V.T @ S @ V, rtol=0, atol=1e-13)
    turned, Q = form.turned(lambda V: S @ V), form.rotate(V)
    assert torch.allclose(turned.tril(), (Q @ V.T @ S @ V @ Q.T).tril(), rtol=0, atol=1e-13)
    assert torch.allclose(V @ (V.T @ C), C, rtol=0, atol=1e-12)


def test_a_space_that_is_invariant_ends_and_leaves_nothing_undone(random, monkeypatch):
    monkeypatch.setattr(krylov, "space", lambda size, targets, rank: size)
    values = np.repeat([0.0, 1.0, 3.0], 50)  # three eigenvalues: C, S C, S S C are all there is
    S, C = matrix(random, 150, values), targets(random, 150)
    form = reduced(S, C)
    assert form.basis.shape == (150, 9)
    assert not left(form, C).any()


def test_no_block_is_added_once_the_smallest_shift_is_solved(random):
    S, C = matrix(random, 400), targets(random, 400, 1)
    form = reduced(S + 9 * torch.eye(400).double(), C, smallest=1.0)
    assert form.basis.shape[1] < 40
    r = form.residuals(form.rotate(C), torch.ones(1).double())
    assert float(r.max()) < 1e-12 * float(C.norm())


def test_targets_of_nothing_have_weights_of_nothing(random):
    S, C = matrix(random, 30), torch.zeros(30, 2).double()
    form = reduced(S, C)
    assert not any(W.any() for W in solved(form, C))
    assert not left(form, C).any()


@pytest.mark.parametrize("values", [np.ones(400), np.logspace(0, -4, 400)], ids=["equal", "decaying"])
def test_degrees_of_freedom_are_those_of_the_eigenvalues_but_for_chance(values, random):
    form = reduced(matrix(random, 400, values), targets(random, 400))
    truth = torch.from_numpy((values / (values + SHIFTS[1:, None].numpy())).sum(1))
    assert bool(((form.degrees(SHIFTS[1:]) - truth).abs() <= 5 * 0.5 * truth.sqrt()).all())


def test_a_space_grows_with_the_targets_and_is_all_there_is_where_rows_are_few():
    assert krylov.space(16_384, 512, 50_000) == 4096
    assert krylov.space(32_768, 2048, 50_000) == 16_384
    assert krylov.space(32_768, 10, 50_000) == 8192
    assert krylov.space(30_000, 512, 2000) == 2000


# In a fit ------------------------------------------------------------------------------------------------

DESIGNS = {
    "well-conditioned": lambda X, random: X,
    "dead, duplicated and collinear": lambda X, random: np.hstack(
        [X, X[:, :9], X[:, :6] @ random.normal(size=(6, 5)), np.ones((len(X), 3))]
    ),
    "scales over 1e12": lambda X, random: X * np.logspace(6, -6, X.shape[1]),
    "fewer rows than columns": lambda X, random: X[: P * 3 // 4],
    "a steep spectrum": lambda X, random: X @ np.diag(np.logspace(0, -5, P)) @ random.normal(size=(P, P)),
}


@pytest.fixture(params=DESIGNS)
def design(request, random):
    """Rows of which two thirds fit: moments of those and of the others, and the columns of source and target."""
    X = random.normal(size=(6 * P, P)) + 3
    X = DESIGNS[request.param](X, random)
    deviation = X.std(0) + (X.std(0) == 0)
    Y = X / deviation @ random.normal(size=(X.shape[1], T)) * [1, 1e-3, 1e3, 1] + 100 + random.normal(size=(len(X), T))
    n, Z = len(X) * 2 // 3, torch.from_numpy(np.hstack([X, Y]))
    fit, held = Moments(Z.shape[1]), Moments(Z.shape[1], Z[:n].mean(0))
    fit.update(Z[:n])
    held.update(Z[n:])
    return fit, held.about(fit.shift), torch.arange(X.shape[1]), X.shape[1] + torch.arange(T)


def fits(design, monkeypatch, **options) -> tuple[ridge.Ridge, ridge.Ridge]:
    fit, _, source, target = design
    exact = ridge.fit(fit, source, target, smallest=float(GRID[0]), **options)
    monkeypatch.setattr(krylov, "FROM", 0)
    found = ridge.fit(fit, source, target, smallest=float(GRID[0]), **options)
    assert isinstance(found.form, krylov.Krylov)
    assert exact.certificate(GRID[:T], torch.arange(T)) is None
    assert not isinstance(exact.form, krylov.Krylov)
    return exact, found


@pytest.mark.parametrize("standardize", [False, True])
def test_held_out_errors_are_those_of_the_exact_form_within_the_certificate(design, standardize, monkeypatch):
    exact, found = fits(design, monkeypatch, standardize=standardize)
    _, held, source, target = design
    ours, theirs = (ridge.held_out(f, held, source, target, penalties=len(GRID)) for f in (found, exact))
    own = [strata(moments) for moments in design[:2]]
    f = exact.factors
    S, H = (
        second_about(m, s, own[0].means, source[exact.live], source[exact.live]) * f * f[:, None]
        for m, s in zip(design[:2], own, strict=True)
    )
    errors, truth = ours.errors(GRID), theirs.errors(GRID)
    for k, shift in enumerate(exact.absolute(GRID)):
        # |X d|^2 of what weights are off, d'(S + shift) d <= |r|^2 / shift
        certificate = found.certificate(GRID[k].expand(T), torch.arange(T))
        share = scipy.linalg.eigh(H.numpy(), (S + shift * torch.eye(len(S))).numpy(), eigvals_only=True)[-1]
        off = (share * certificate.excess * found.n).sqrt()
        assert bool(((errors[k].sqrt() - truth[k].sqrt()).abs() <= off + 1e-6 * theirs.squares.sqrt()).all())


def test_a_space_of_all_dimensions_has_the_exact_errors(design, monkeypatch):
    monkeypatch.setattr(krylov, "space", lambda size, targets, rank: min(size, rank))
    exact, found = fits(design, monkeypatch)
    _, held, source, target = design
    ours, theirs = (ridge.held_out(f, held, source, target) for f in (found, exact))
    assert torch.allclose(ours.squares, theirs.squares, rtol=1e-12)
    off = (ours.errors(GRID) - theirs.errors(GRID)).abs() / theirs.squares
    assert float(off.max()) < 1e-6
    each = GRID[torch.tensor([0, 4, 8, 10])], torch.arange(T)
    rows = design[0].centred_squares[source].sqrt()[:, None]
    assert torch.allclose(found.weights(*each) * rows, exact.weights(*each) * rows, rtol=0, atol=1e-4 * 1e3 * 1e3)


def test_within_classes_and_at_no_weights_it_is_the_exact_form(random, monkeypatch):
    labels = np.eye(3)[random.integers(3, size=400)]
    X = random.normal(size=(400, 20)) + labels @ random.normal(size=(3, 20))
    Z = torch.from_numpy(np.hstack([X, labels, X @ random.normal(size=(20, T)) + random.normal(size=(400, T))]))
    moments = Moments(Z.shape[1], torch.zeros(Z.shape[1]).double())
    moments.update(Z)
    columns = {"source": torch.arange(20), "target": 23 + torch.arange(T), "labels": 20 + torch.arange(3)}
    exact = ridge.fit(moments, **columns, smallest=1e-9)
    monkeypatch.setattr(krylov, "FROM", 0)
    monkeypatch.setattr(krylov, "space", lambda size, targets, rank: size)
    found = ridge.fit(moments, **columns, smallest=1e-9)
    ours, theirs = (ridge.held_out(f, moments, *columns.values()).errors(GRID) for f in (found, exact))
    assert torch.allclose(ours, theirs, rtol=1e-9)
    assert not found.weights(torch.full((T,), torch.inf), torch.arange(T)).any()


def test_penalties_that_ask_for_ranks_are_refused(design, monkeypatch):
    fit, _, source, target = design
    monkeypatch.setattr(krylov, "FROM", 0)
    with pytest.raises(
        UsageError, match=r"a penalty of 0 asks for the ranks of \d+ features.*pass penalties= of 1e-09"
    ):
        ridge.fit(fit, source, target, smallest=0.0)
