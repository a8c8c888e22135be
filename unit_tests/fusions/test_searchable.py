"""The fusions that an architecture search chooses among, against loops over their definition."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.fusions import searchable
from deq_fusion.fusions.searchable import (
    Alphas,
    Searchable,
    get_possible_layer_configurations,
)
from deq_fusion.training_structures import candidates
from deq_fusion.utils.aux_models import AlphaScalarMultiplication

SIZES = [(3, 5), (4, 2, 6), (2,)]
CONF = [[1, 2, 0, 0], [0, 1, 0, 2], [1, 0, 0, 1]]


class Layers(nn.Module):
    """An encoder that returns the outputs of its layers, after one to drop."""

    def __init__(self, indim, sizes):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip((indim, *sizes), sizes, strict=False)
        )

    def forward(self, x):
        outputs = [None]
        for layer in self.layers:
            outputs.append(x := layer(x).tanh())
        return outputs


def model(alphas=False, conf=CONF, sizes=SIZES, seed=3):
    encoders = [Layers(7, widths) for widths in sizes]
    torch.manual_seed(seed)
    return Searchable(encoders, 8, 2, np.array(conf), sizes, alphas)


def by_hand(fusion, inputs, weights):
    """The prediction, a fusion layer after the other; `weights` (layers, modalities)."""
    relu, leaky = (lambda x: x * (x > 0)), (lambda x: torch.where(x > 0, x, 0.01 * x))
    nonlinearities = [relu, lambda x: 1 / (1 + (-x).exp()), leaky]
    features = [f(x) for f, x in zip(fusion.encoders, inputs, strict=True)]
    hidden = None
    for number, row in enumerate(CONF):
        taken = [weights[number][m] * features[m][1 + row[m]] for m in range(3)]
        joined = torch.cat(taken if hidden is None else [*taken, hidden], dim=1)
        linear = fusion.fusion_layers[number][0]
        hidden = nonlinearities[row[3]](joined @ linear.weight.T + linear.bias)
    return hidden @ fusion.head.weight.T + fusion.head.bias


def test_the_prediction_is_that_of_the_configuration(double):
    fusion, inputs = model(), torch.randn(3, 4, 7)
    torch.testing.assert_close(fusion(inputs), by_hand(fusion, inputs, torch.ones(3, 3)))
    assert not torch.allclose(fusion(inputs), model(conf=CONF[::-1])(inputs))


def test_alphas_weigh_the_modalities_of_every_layer(double):
    fusion, inputs = model(alphas=True), torch.randn(3, 4, 7)
    scores = torch.stack([layer.alpha_x for layer in fusion.alphas])
    powers = torch.cat([scores, torch.zeros(3, 1)], 1).exp()
    weights = powers / powers.sum(1, keepdim=True)
    torch.testing.assert_close(fusion(inputs), by_hand(fusion, inputs, weights))
    assert scores.std() > 0
    fusion(inputs).square().sum().backward()
    assert all(layer.alpha_x.grad.abs().min() > 0 for layer in fusion.alphas)


def test_alphas_of_two_are_the_authors_module():
    features = list(torch.randn(2, 4, 5))
    ours, theirs = Alphas(2), AlphaScalarMultiplication(5, 5)
    ours.alpha_x.data.fill_(-0.3)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(features), list(theirs(*features)))
    (alone,) = Alphas(1)(features[:1])
    assert torch.equal(alone, features[0])


def test_parameters_are_drawn_layer_by_layer_then_the_head_then_alphas():
    plain, weighed = model(), model(alphas=True)
    torch.manual_seed(3)
    widths = [5 + 6 + 2, 3 + 2 + 2 + 8, 5 + 4 + 2 + 8]
    linears = [nn.Linear(width, 8) for width in widths] + [nn.Linear(8, 2)]
    alphas = [torch.empty(2).normal_(0, 0.1) for _ in range(3)]
    for fusion in (plain, weighed):
        own = [layer[0] for layer in fusion.fusion_layers] + [fusion.head]
        for drawn, linear in zip(own, linears, strict=True):
            assert torch.equal(drawn.weight, linear.weight) and torch.equal(drawn.bias, linear.bias)
    for drawn, alpha in zip(weighed.alphas, alphas, strict=True):
        assert torch.equal(drawn.alpha_x, alpha)


def test_central_parameters_are_all_but_the_encoders():
    for alphas, groups in ((False, 2), (True, 3)):
        fusion = model(alphas)
        central = [list(group["params"]) for group in fusion.central_params()]
        assert len(central) == groups
        inside = {id(p) for p in fusion.encoders.parameters()}
        expected = [id(p) for p in fusion.parameters() if id(p) not in inside]
        assert sorted(id(p) for group in central for p in group) == sorted(expected)


def test_names_of_the_state_are_multibenchs():
    names = {name.rsplit(".", 1)[0] for name in model(alphas=True).state_dict()}
    own = {f"fusion_layers.{i}.0" for i in range(3)} | {f"alphas.{i}" for i in range(3)} | {"head"}
    assert {name for name in names if not name.startswith("encoders.")} == own


@pytest.mark.parametrize("labels", [(3,), (2, 3), (3, 5, 2), (2, 1, 4, 3)])
def test_the_configurations_of_a_layer_by_brute_force(labels):
    everything = product(range(max(labels)), repeat=len(labels))
    fitting = [list(x) for x in everything if all(a < b for a, b in zip(x, labels, strict=True))]
    assert get_possible_layer_configurations(labels) == sorted(fitting)
    assert len(fitting) == np.prod(labels)


@pytest.mark.parametrize(
    "conf",
    [
        [],
        [0, 0, 0, 0],  # no rows
        [[0, 0, 0]],
        [[2, 0, 0, 0]],
        [[-1, 0, 0, 0]],
        [[0, 0, 0, 3]],
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(conf):
    with pytest.raises(ValueError, match=r"less than \[2, 3, 1, 3\], got"):
        model(conf=conf)


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="each of the 2 encoders"):
        Searchable([Layers(7, (3,)), Layers(7, (3,))], 8, 2, CONF, SIZES)
    fusion = model()
    fusion.subs = [(3, 5), (4, 2, 9), (2,)]
    with pytest.raises(ValueError, match=r"encoder 1 must .* layer 2 \(batch, 9\)"):
        fusion(torch.randn(3, 4, 7))


def test_the_training_of_candidates_is_found_here():
    for name in searchable.TRAINING:
        assert getattr(searchable, name) is getattr(candidates, name)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = searchable.train
