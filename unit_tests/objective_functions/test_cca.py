"""Canonical correlations against scipy's square roots and singular values, and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power, svdvals
from sklearn.cross_decomposition import CCA

from deq_fusion.objective_functions.cca import CCALoss

R = 1e-3


def correlations(h1, h2):
    """The singular values of S11^(-1/2) S12 S22^(-1/2), by matrix powers."""
    first, second = (h - h.mean(0) for h in (h1.numpy(), h2.numpy()))
    n = len(first) - 1
    roots = [
        fractional_matrix_power(h.T @ h / n + R * np.eye(h.shape[1]), -0.5) for h in (first, second)
    ]
    return svdvals(roots[0] @ (first.T @ second / n) @ roots[1])


def pair(batch=30, widths=(4, 4)):
    shared = torch.randn(batch, 2)
    return [torch.randn(batch, d) + shared @ torch.randn(2, d) for d in widths]


@pytest.mark.parametrize("batch, widths", [(30, (4, 4)), (30, (3, 5)), (4, (6, 6)), (2, (1, 1))])
def test_all_singular_values(double, batch, widths):
    h1, h2 = pair(batch, widths)
    assert CCALoss(1, True)(h1, h2).item() == pytest.approx(-correlations(h1, h2).sum())


@pytest.mark.parametrize("k", [1, 3, 4])
def test_the_largest_smoothed(double, k):
    h1, h2 = pair()
    largest = np.sort(correlations(h1, h2))[::-1][:k]
    assert CCALoss(k, False)(h1, h2).item() == pytest.approx(-np.sqrt(largest**2 + R).sum())


def test_is_the_correlation_of_the_canonical_variates(double):
    h1, h2 = pair(batch=500, widths=(3, 3))
    variates = CCA(n_components=3, max_iter=5000, tol=1e-12).fit_transform(h1.numpy(), h2.numpy())
    variates = [v.T for v in variates]
    expected = sum(np.corrcoef(a, b)[0, 1] for a, b in zip(*variates, strict=True))
    assert -CCALoss(3, True)(h1, h2).item() == pytest.approx(expected, rel=5e-3)  # r is no part


@pytest.mark.parametrize("every", [True, False])
def test_gradients(double, every):
    inputs = [h.requires_grad_() for h in pair(batch=12)]
    assert torch.autograd.gradcheck(CCALoss(3, every), inputs)


@pytest.mark.parametrize("every", [True, False])
def test_gradients_are_finite_where_eigenvalues_coincide(every):
    h1, h2 = pair(batch=3, widths=(8, 8))  # of rank two
    h1 = torch.cat([h1, torch.zeros(3, 4)], 1).requires_grad_()  # dead units
    h2 = torch.cat([h2, torch.zeros(3, 4)], 1).requires_grad_()
    CCALoss(5, every)(h1, h2).backward()
    assert h1.grad.isfinite().all() and h2.grad.isfinite().all()
    assert h1.grad.abs().sum() > 0


def test_large_features_stay_exact_and_keep_their_dtype():
    h1, h2 = pair()
    loss = CCALoss(4, True)(h1 * 1e4, h2 * 1e4)
    assert loss.dtype == torch.float32
    expected = -correlations(h1.double() * 1e4, h2.double() * 1e4).sum()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_mistakes_are_named():
    h = torch.randn(5, 3)
    with pytest.raises(ValueError, match="at least two samples"):
        CCALoss(2, False)(h[:1], h[:1])
    with pytest.raises(ValueError, match="outdim_size must be at most.*got 4"):
        CCALoss(4, False)(h, h)
    with pytest.raises(ValueError, match=r"\(batch, d_1\).*\(4, 3\)"):
        CCALoss(2, False)(h, h[:4])
    with pytest.raises(ValueError, match="finite"):
        CCALoss(2, False)(h, h / 0)
