"""Losses of reconstructions against numpy and against Gaussian integrals."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm
from torch import nn
from torch.testing import assert_close

from deq_fusion.objective_functions.recon import (
    elbo_loss,
    kl_to_standard_normal,
    nosigmloss1d,
    recon_weighted_sum,
    sigmloss1d,
    sigmloss1dcentercrop,
)


def cross_entropy(x, y):
    return np.mean(-y * np.log(x) - (1 - y) * np.log(1 - x), axis=1)


def per_sample(x, y):
    return (x - y).square().flatten(1).sum(1)


def test_cross_entropies(double):
    a, b = torch.randn(2, 3, 7)
    assert_close(sigmloss1d(a, b).numpy(), cross_entropy(expit(a.numpy()), expit(b.numpy())))
    a, b = torch.rand(2, 3, 7)
    assert_close(nosigmloss1d(a, b).numpy(), cross_entropy(a.numpy(), b.numpy()))
    whole = torch.randint(0, 2, (3, 7))
    assert_close(nosigmloss1d(a, whole).numpy(), cross_entropy(a.numpy(), whole.numpy()))


def test_cross_entropies_of_certainties_are_finite():
    a = torch.tensor([[80.0, -80.0, 80.0]], requires_grad=True)
    loss = sigmloss1d(a, torch.tensor([[80.0, -80.0, -80.0]]))
    assert_close(loss.item(), 80 / 3)  # the logit that is wrong
    p = torch.tensor([[1.0, 0.0, 1.0]], requires_grad=True)
    sure = nosigmloss1d(p, torch.tensor([[1.0, 0.0, 0.0]]))
    assert_close(sure.item(), float(-np.log(np.finfo(np.float32).eps) / 3), rtol=1e-5, atol=0)
    (loss + sure).sum().backward()
    assert a.grad.isfinite().all() and p.grad.isfinite().all()


@pytest.mark.parametrize("made, real", [(6, 10), (10, 6), (6, 6)])
def test_the_larger_image_is_cut_whichever_it_is(double, made, real):
    a, b = torch.randn(2, 3, made, made), torch.randn(2, 3, real, real)
    cut = [x[:, :, 2:8, 2:8] if x.shape[2] == 10 else x for x in (a, b)]
    x, y = (c.flatten(1).numpy() for c in cut)
    if made == real == 6:
        with pytest.raises(ValueError, match=r"cut to \(2, 3, 4, 4\).*bdim of 10"):
            sigmloss1dcentercrop(5, 10)(a, b)
        return
    loss = sigmloss1dcentercrop(5, 10)(a, b)
    assert_close(loss.numpy(), cross_entropy(expit(x), expit(y)))


@pytest.mark.parametrize("made, real", [(3, 5), (5, 3)])
def test_no_cut_image_is_better_than_the_original(double, made, real):
    original = torch.randn(1, 1, real, real)
    inside = slice(1, 4)
    best = torch.zeros(1, 1, made, made)
    if made > real:
        best[:, :, inside, inside] = original
    else:
        best = original[:, :, inside, inside].clone()
    best.requires_grad_()
    loss = sigmloss1dcentercrop(3, 5)(best, original)
    (slope,) = torch.autograd.grad(loss.sum(), best)
    assert slope.abs().max() < 1e-12
    other = sigmloss1dcentercrop(3, 5)(best + 0.1, original)
    assert (other > loss).all()


def test_the_divergence_is_an_integral(double):
    mu, logvar = torch.randn(2, 2, 3)
    z = np.linspace(-20, 20, 40001)
    for sample in range(2):
        total = 0
        for m, log in zip(mu[sample].numpy(), logvar[sample].numpy(), strict=True):
            scale = np.exp(log / 2)
            ratio = norm.logpdf(z, m, scale) - norm.logpdf(z)
            total += (norm.pdf(z, m, scale) * ratio).sum() * (z[1] - z[0])
        assert kl_to_standard_normal(mu, logvar)[sample].item() == pytest.approx(total, rel=1e-6)


def test_a_huge_log_variance_counts_itself():
    logvar = torch.tensor([[1e6, 0.0], [0.0, 0.0]], requires_grad=True)
    divergence = kl_to_standard_normal(torch.zeros(2, 2), logvar)
    assert_close(divergence, torch.tensor([1e6, 0.0]))
    (slope,) = torch.autograd.grad(divergence.sum(), logvar)
    assert_close(slope, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_elbo_is_the_mean_of_weighted_losses_and_divergences(double):
    mu, logvar = torch.randn(2, 4, 3)
    x, y = [torch.randn(4, 5), torch.randn(4, 6)], [torch.randn(4, 5), torch.randn(4, 2, 3)]
    losses, weights = [per_sample, nn.MSELoss()], [0.5, 2.0]
    elbo = elbo_loss(losses, weights, annealing=0.3)(x, y, mu, logvar)
    total = []
    square = np.mean((x[1] - y[1].reshape(4, 6)).numpy() ** 2)  # one number for the batch
    for b in range(4):
        m, log = mu[b].numpy(), logvar[b].numpy()
        divergence = 0.5 * np.sum(np.exp(log) + m**2 - 1 - log)
        own = np.sum((x[0][b] - y[0][b]).numpy() ** 2)
        total.append(0.5 * own + 2.0 * square + 0.3 * divergence)
    assert elbo.item() == pytest.approx(np.mean(total))
    total = recon_weighted_sum(losses, weights)(x, y)
    assert elbo_loss(losses, weights, annealing=0)(x, y, mu, logvar).item() == total.item()


def test_a_modality_that_is_not_made_takes_no_part(double):
    mu, logvar = torch.zeros(2, 4, 3)
    x, y = torch.randn(2, 4, 5)
    alone = elbo_loss([per_sample], [2.0])([x], [y], mu, logvar)
    both = elbo_loss([per_sample] * 2, [3.0, 2.0])([None, x], [None, y], mu, logvar)
    assert_close(both, alone)


def test_what_does_not_fit_is_named():
    x = torch.zeros(4, 5)
    with pytest.raises(ValueError, match="one of each for every modality.*'weights': 1"):
        elbo_loss([per_sample, per_sample], [1.0])
    with pytest.raises(ValueError, match="'reconstructions': 1, 'originals': 2"):
        recon_weighted_sum([per_sample] * 2, [1.0] * 2)([x], [x, x])
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(4, 2, 3\)"):
        recon_weighted_sum([per_sample], [1.0])([x], [torch.zeros(4, 2, 3)])
    with pytest.raises(ValueError, match="bdim must be at least adim, got 3 and 5"):
        sigmloss1dcentercrop(5, 3)
