"""The product of experts is the normalised product of their densities."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.testing import assert_close

from deq_fusion.fusions.MVAE import ProductOfExperts, ProductOfExperts_Zipped


def experts(count=3, batch=2, latent=4):
    return [(torch.randn(batch, latent), torch.randn(batch, latent)) for _ in range(count)]


@pytest.mark.parametrize("priors", [0, 1, 2])
def test_is_the_normalised_product_of_the_densities(double, priors):
    pairs = experts()
    mu, logvar = ProductOfExperts((priors, 40, 4))(*zip(*pairs, strict=True))
    z = np.linspace(-15, 15, 20001)
    for sample, column in np.ndindex(2, 4):
        density = norm.pdf(z) ** priors
        for mean, log in pairs:
            deviation = np.exp(log[sample, column].item() / 2)
            density = density * norm.pdf(z, mean[sample, column].item(), deviation)
        density /= density.sum()
        mean = (z * density).sum()
        variance = ((z - mean) ** 2 * density).sum()
        assert mu[sample, column].item() == pytest.approx(mean, abs=1e-6)
        assert logvar[sample, column].exp().item() == pytest.approx(variance, rel=1e-6)


def test_eps_widens_every_expert(double):
    pairs, eps = experts(), 0.3
    mu, logvar = ProductOfExperts_Zipped((1, 40, 4))(pairs, eps)
    precisions = [1 / (1 + eps), *(1 / (log.exp() + eps) for _, log in pairs)]
    assert_close(logvar, -sum(precisions).log())
    weighted = sum(t * mean for t, (mean, _) in zip(precisions[1:], pairs, strict=True))
    assert_close(mu, weighted / sum(precisions))


def test_pairs_and_stacked_tensors_are_taken_alike():
    pairs = experts()
    mus, logvars = (torch.stack(list(part)) for part in zip(*pairs, strict=True))
    expected = ProductOfExperts((1, 40, 4))(mus, logvars)
    assert type(expected) is tuple  # of which an MMDL's head gets the first item
    zipped = ProductOfExperts_Zipped((1, 40, 4))
    assert_close(zipped(pairs), expected)
    assert_close(zipped(torch.stack([torch.stack(pair) for pair in pairs])), expected)


def test_gradients(double):
    inputs = [x.requires_grad_() for pair in experts() for x in pair]
    product = ProductOfExperts((1, 40, 4))
    assert torch.autograd.gradcheck(lambda *x: product(x[::2], x[1::2]), inputs)


def test_very_sure_and_very_unsure_experts_stay_finite():
    mus = [torch.full((1, 1), mean, requires_grad=True) for mean in (2.0, -3.0)]
    logvars = [torch.full((1, 1), log, requires_grad=True) for log in (-300.0, 300.0)]
    mu, logvar = ProductOfExperts((1, 40, 1))(mus, logvars)
    assert_close(mu.item(), 2.0, rtol=1e-6, atol=0)  # the sure one decides, by 1 / eps to 1
    assert_close(logvar.item(), float(np.log(1e-8)), rtol=1e-6, atol=0)
    (mu + logvar).sum().backward()
    assert all(x.grad.isfinite().all() for x in (*mus, *logvars))


def test_follows_the_dtype():
    pairs = [(mu.double(), log.double()) for mu, log in experts()]
    assert all(x.dtype == torch.float64 for x in ProductOfExperts_Zipped((1, 40, 4))(pairs))


def test_mistakes_are_named():
    pairs = experts()
    with pytest.raises(ValueError, match=r"\(batch, 5\).*\(2, 4\)"):
        ProductOfExperts_Zipped((1, 40, 5))(pairs)
    with pytest.raises(ValueError, match="every expert must have a mean and a log variance"):
        ProductOfExperts((1, 40, 4))([mu for mu, _ in pairs], [log for _, log in pairs[1:]])
    with pytest.raises(ValueError, match="pair"):
        ProductOfExperts_Zipped((1, 40, 4))([torch.zeros(3, 4)])
    with pytest.raises(ValueError, match="pair"):
        ProductOfExperts_Zipped((1, 40, 4))([])
    with pytest.raises(ValueError, match="size must be"):
        ProductOfExperts((1, 40))
