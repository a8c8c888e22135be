"""HEALNet with tied weights, sample by sample and round by round."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.fusions.healnet import HEALNet
from deq_fusion.fusions.tokens import sinusoids
from unit_tests.fusions.transformer_reference import affine, attention, layer_norm

WIDTHS, DIM = [3, 5, 2], 8
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
KINDS = {"vectors": [(), (), ()], "sequences": [(4,), (2,), (3,)], "both": [(), (3,), (1,)]}
kinds = pytest.mark.parametrize("steps", KINDS.values(), ids=KINDS)


def make(steps, **options):
    fusion = HEALNet(WIDTHS, DIM, **{"heads": 2, "latents": 3, "rounds": 2, **options})
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.4)
    return fusion, [torch.randn(4, *time, w) for time, w in zip(steps, WIDTHS, strict=True)]


def network(module, x):
    a, g = affine(module.inner, layer_norm(module.norm, x)).split(4 * DIM, -1)
    return affine(module.outer, a * F.selu(g))


def attended(module, query, tokens):
    """Of queries and tokens (number, dim)."""
    q, k = query.unsqueeze(1), tokens.unsqueeze(1)
    return attention(module, q, k, k).squeeze(1)


def by_hand(fusion, sample, keep, rounds):
    latents = fusion.latents
    for _ in range(rounds):
        for i in keep:
            tokens = sample[i].reshape(-1, WIDTHS[i]) @ fusion.projections[i].weight.T
            if len(tokens) > 1:
                tokens = tokens + sinusoids(len(tokens), tokens)
            tokens = layer_norm(fusion.token_norms[i], tokens)
            query = layer_norm(fusion.query_norms[i], latents)
            latents = latents + attended(fusion.cross[i], query, tokens)
            latents = latents + network(fusion.cross_network, latents)
        normed = layer_norm(fusion.own_norm, latents)
        latents = latents + attended(fusion.own, normed, normed)
        latents = latents + network(fusion.own_network, latents)
    return layer_norm(fusion.norm, latents.mean(0))


@kinds
@pytest.mark.parametrize("present", [None, PRESENT])
@pytest.mark.parametrize("rounds", [1, 3])
def test_follows_the_formulas_over_those_present(double, steps, present, rounds):
    fusion, features = make(steps, rounds=rounds)
    fused = fusion(features, present=present)
    for b in range(4):
        keep = [i for i in range(3) if present is None or present[b, i]]
        expected = by_hand(fusion, [x[b] for x in features], keep, rounds)
        torch.testing.assert_close(fused[b], expected)


def test_rounds_cost_no_parameters():
    one, five = (make(KINDS["vectors"], rounds=k)[0] for k in (1, 5))
    five.load_state_dict(one.state_dict())


@kinds
def test_what_an_absent_modality_holds_gets_no_gradient(steps):
    fusion, features = make(steps)
    odd = []
    for i, x in enumerate(features):
        x[~PRESENT[:, i]] = torch.nan
        odd.append(x.requires_grad_())
    fused = fusion(odd, present=PRESENT)
    fused.backward(torch.randn_like(fused))
    for i, x in enumerate(odd):
        assert not x.grad[~PRESENT[:, i]].any() and x.grad[PRESENT[:, i]].any()
    assert all(p.grad.isfinite().all() for p in fusion.parameters())


def test_dropout_is_random_in_training_only():
    fusion, features = make(KINDS["sequences"], dropout=0.5)
    assert not torch.equal(fusion(features), fusion(features))
    torch.testing.assert_close(fusion.eval()(features), fusion(features), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"heads": 3}, r"dim \(=8\) must be divisible by heads \(=3\)"),
        ({"rounds": 0}, "rounds must be an integer of at least 1"),
        ({"latents": 0}, "latents must be an integer of at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_refuses_options_that_make_no_sense(option, message):
    with pytest.raises(ValueError, match=message):
        HEALNet(WIDTHS, DIM, **option)
