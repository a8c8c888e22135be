"""MMPareto: the least norm against a grid, the gradients by autograd and arithmetic."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.training_structures.gradient_modulation import parameters_behind
from deq_fusion.training_structures.pareto import meeting, weights


def pair(seed, sign):
    """Two gradients of two tensors each, whose product has that sign."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (3, 4), (5,)
    draw = lambda: [torch.randn(*s, generator=generator, dtype=torch.float64) for s in sizes]  # noqa: E731
    a, b = draw(), draw()
    product = sum((x * y).sum() for x, y in zip(a, b, strict=True))
    return a, [x * torch.sign(product) * sign * 0.7 for x in b]


def flat(tensors):
    return torch.cat([x.flatten() for x in tensors]).numpy()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_where_they_do_not_agree_it_is_the_shortest_combination(seed, gamma):
    joint, own = pair(seed, -1)
    a, b = (float(x) for x in weights(joint, own, gamma))
    g, u = flat(joint), flat(own)
    grid = np.linspace(0, 1, 20001)
    norms = [np.linalg.norm(w * g + (1 - w) * u) for w in grid]
    assert a / (a + b) == pytest.approx(grid[np.argmin(norms)], abs=1e-4)
    found = a * g + b * u
    assert found @ g > 0 and found @ u > 0
    length = max(2 * min(norms), np.linalg.norm(g + u))
    assert np.linalg.norm(found) == pytest.approx(gamma * length, rel=1e-6)


def test_where_they_agree_it_is_the_sum():
    joint, own = pair(0, 1)
    assert [float(x) for x in weights(joint, own, 1.5)] == pytest.approx([1.5, 1.5])


def test_without_one_of_them_it_is_the_other():
    joint, _ = pair(0, 1)
    nothing = [torch.zeros_like(x) for x in joint]
    for given in ((joint, nothing), (nothing, joint), (nothing, nothing)):
        assert [float(x) for x in weights(*given, 1.0)] == pytest.approx([1.0, 1.0])


def test_opposites_cancel_and_are_not_lengthened():
    joint, _ = pair(0, 1)
    for share in (1.0, 0.25):
        a, b = weights(joint, [-share * x for x in joint], 1.0)
        assert torch.isfinite(a) and torch.isfinite(b)
        found = np.linalg.norm((float(a) - share * float(b)) * flat(joint))
        assert found == pytest.approx(0, abs=1e-6)


def network(seed):
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5)).double()
    return encoder, nn.Linear(5, 2).double(), nn.Linear(5, 2).double(), torch.randn(6, 3).double()


@pytest.mark.parametrize("seed", range(6))
def test_gradients_of_a_backward_are_those_by_hand(seed):
    encoder, after, head, x = network(seed)
    truth = torch.arange(6) % 2
    labels = truth, 1 - truth if seed % 2 else truth  # opposite ones, so that gradients differ

    def losses(joint, own):
        return [
            F.cross_entropy(f(z), y)
            for f, z, y in zip((after, head), (joint, own), labels, strict=True)
        ]  # noqa: E501

    joint, own = losses(encoder(x), encoder(x))
    parameters = list(encoder.parameters())
    g, u = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (joint, own))
    others = [*after.parameters(), *head.parameters()]
    plain = torch.autograd.grad(joint + own, others)
    a, b = weights(g, u, 1.5)
    expected = [a * i + b * j for i, j in zip(g, u, strict=True)]
    feature = encoder(x)
    behind = parameters_behind(feature)
    assert set(behind) == set(parameters)
    (3 * sum(losses(*meeting(feature, behind, 1.5)))).backward()
    for parameter, gradient in zip([*parameters, *others], [*expected, *plain], strict=True):
        torch.testing.assert_close(parameter.grad, 3 * gradient)


@pytest.mark.parametrize("used", [0, 1])
def test_what_leads_to_one_loss_alone_is_as_ever(used):
    encoder, after, _, x = network(0)
    expected = torch.autograd.grad(after(encoder(x)).square().sum(), list(encoder.parameters()))
    feature = encoder(x)
    both = meeting(feature, parameters_behind(feature))
    after(both[used]).square().sum().backward()
    torch.testing.assert_close([p.grad for p in encoder.parameters()], list(expected))


def test_a_feature_without_parameters_stays():
    x = torch.randn(3)
    assert all(y is x for y in meeting(x, []))
