"""Attention over one token a modality, written out head by head from the layers' weights."""

import pytest
import torch
from torch import nn

from deq_fusion.fusions.token_attention import TokenAttention

WIDTHS, DIM, HEADS = [3, 5, 2], 8, 2
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)


def make(layers=2, **options):
    fusion = TokenAttention(WIDTHS, DIM, heads=HEADS, layers=layers, **options)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fusion, [torch.randn(4, width) for width in WIDTHS]


def norm(x, layer):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def attention(x, layer):
    """Multi-head self-attention of tokens (number, DIM)."""
    q, k, v = (x @ layer.in_proj_weight.T + layer.in_proj_bias).split(DIM, -1)
    width, heads = DIM // HEADS, []
    for start in range(0, DIM, width):
        part = slice(start, start + width)
        weights = (q[:, part] @ k[:, part].T / width**0.5).exp()
        heads.append(weights / weights.sum(-1, keepdim=True) @ v[:, part])
    return torch.cat(heads, -1) @ layer.out_proj.weight.T + layer.out_proj.bias


def by_hand(fusion, sample, keep):
    """The fused feature of one sample from the modalities in `keep` alone."""
    tokens = [fusion.token]
    tokens += [fusion.projections[i].weight @ sample[i] + fusion.positions[i] for i in keep]
    x = torch.stack(tokens)
    for layer in fusion.layers:
        x = x + attention(norm(x, layer.norm1), layer.self_attn)
        hidden = (norm(x, layer.norm2) @ layer.linear1.weight.T + layer.linear1.bias).clamp_min(0)
        x = x + hidden @ layer.linear2.weight.T + layer.linear2.bias
    return norm(x[0], fusion.norm)


@pytest.mark.parametrize("present", [None, PRESENT])
@pytest.mark.parametrize("evaluate", [False, True])
def test_follows_the_formulas_over_the_tokens_present(double, present, evaluate):
    fusion, features = make()
    expected = torch.stack(
        [
            by_hand(
                fusion,
                [x[b] for x in features],
                [i for i in range(3) if present is None or present[b, i]],
            )
            for b in range(4)
        ]
    )
    if evaluate:  # PyTorch has another kernel for this
        with torch.no_grad():
            torch.testing.assert_close(fusion.eval()(features, present=present), expected)
    else:
        torch.testing.assert_close(fusion(features, present=present), expected)


def test_the_hidden_layers_are_four_times_as_wide_and_each_is_drawn_on_its_own():
    fusion = TokenAttention(WIDTHS, DIM, layers=2)
    first, second = fusion.layers
    assert first.linear1.weight.shape == (4 * DIM, DIM)
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_dropout_is_random_in_training_only():
    fusion, features = make(dropout=0.5)
    assert not torch.equal(fusion(features), fusion(features))
    torch.testing.assert_close(fusion.eval()(features), fusion(features), rtol=0, atol=0)


@pytest.mark.parametrize(
    "option, message",
    [
        ({"heads": 3}, r"dim \(=8\) must be divisible by heads \(=3\)"),
        ({"layers": 0}, "layers must be an integer of at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_refuses_options_that_make_no_sense(option, message):
    with pytest.raises(ValueError, match=message):
        TokenAttention(WIDTHS, DIM, **option)
