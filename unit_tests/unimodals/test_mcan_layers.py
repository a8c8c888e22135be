"""MCAN's layers against loops over heads and tokens; what padding holds changes nothing."""

import math

import pytest
import torch
from torch import nn

from deq_fusion.unimodals.mcan_layers import (
    AttentionFlattening,
    AttentionLayer,
    LayerNorm,
    MultiHeadAttention,
    Tokens,
)

pytestmark = pytest.mark.usefixtures("double")

DIM, HEADS = 8, 2
KEPT = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0]]).bool()
GUIDE_KEPT = torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()


def tokens(kept=KEPT):
    return Tokens(torch.randn(*kept.shape, DIM), kept)


def elsewhere_noise(tokens):
    """The same tokens, with large numbers in the places of padding."""
    noise = 100 * torch.randn_like(tokens.states)
    return Tokens(torch.where(tokens.kept[:, :, None], tokens.states, noise), tokens.kept)


def test_layer_norm_divides_by_the_unbiased_deviation():
    norm, x = LayerNorm(DIM), torch.randn(3, 5, DIM) * 1e-5  # so small that eps is seen
    nn.init.normal_(norm.gain)
    nn.init.normal_(norm.bias)
    for row, result in zip(x.flatten(0, 1), norm(x).flatten(0, 1), strict=True):
        mean = sum(row) / DIM
        std = math.sqrt(sum((v - mean) ** 2 for v in row) / (DIM - 1))
        torch.testing.assert_close(result, norm.gain * (row - mean) / (std + 1e-6) + norm.bias)


def test_attention_is_a_mean_of_what_is_there_for_each_head():
    attention, states, context = MultiHeadAttention(DIM, HEADS).eval(), tokens(), tokens(GUIDE_KEPT)
    results, width = attention(states.states, context), DIM // HEADS
    for sample in range(len(results)):
        there = context.states[sample, context.kept[sample]]
        keys, values = attention.key(there), attention.value(there)
        for x, result in zip(states.states[sample], results[sample], strict=True):
            query, found = attention.query(x), torch.empty(DIM)
            for first in range(0, DIM, width):
                head = slice(first, first + width)
                weights = [(query[head] @ k[head] / math.sqrt(width)).exp() for k in keys]
                parts = zip(weights, values, strict=True)
                found[head] = sum(w * v[head] for w, v in parts) / sum(weights)
            torch.testing.assert_close(result, attention.merge(found))


def test_flattening_is_a_weighted_mean_of_what_is_there():
    flatten, x = AttentionFlattening(DIM, 3, hidden=5).eval(), tokens()
    first, last = flatten.score[0], flatten.score[3]
    for sample, result in enumerate(flatten(x)):
        there = x.states[sample, x.kept[sample]]
        scores = [(last(first(t).clamp(min=0))).exp() for t in there]
        mean = sum(s * t for s, t in zip(scores, there, strict=True)) / sum(scores)
        torch.testing.assert_close(result, flatten.merge(mean))


@pytest.mark.parametrize("guided", [False, True])
def test_what_padding_holds_changes_nothing(guided):
    layer, flatten = AttentionLayer(DIM, HEADS, guided=guided).eval(), AttentionFlattening(DIM, 3)
    x, guide = tokens(), tokens(GUIDE_KEPT) if guided else None
    before = layer(x, guide)
    after = layer(elsewhere_noise(x), elsewhere_noise(guide) if guided else None)
    assert not torch.allclose(before.states, after.states)  # there is something to be hidden
    torch.testing.assert_close(before.states[KEPT], after.states[KEPT])
    torch.testing.assert_close(flatten.eval()(before), flatten(after))


def test_a_guided_layer_reads_its_guide():
    layer, x = AttentionLayer(DIM, HEADS, guided=True).eval(), tokens()
    first, second = (layer(x, tokens(GUIDE_KEPT)).states for _ in range(2))
    assert (first - second).abs().amax(2)[KEPT].min() > 1e-3


@pytest.mark.parametrize(
    "module, inputs",
    [
        (MultiHeadAttention(DIM, HEADS, dropout=0.5), lambda x: (x.states, x)),
        (AttentionLayer(DIM, HEADS, dropout=0.5), lambda x: (x,)),
        (AttentionFlattening(DIM, 3, dropout=0.5), lambda x: (x,)),
    ],
)
def test_dropout_is_for_training_alone(module, inputs):
    module.double()  # made before the fixture
    x = tokens()

    def run():
        result = module(*inputs(x))
        return result.states if isinstance(result, Tokens) else result

    assert not torch.allclose(run(), run())
    module.eval()
    torch.testing.assert_close(run(), run(), rtol=0, atol=0)


def test_messages_say_what_must_hold():
    with pytest.raises(ValueError, match="heads must divide .* got 3 heads of 8"):
        MultiHeadAttention(DIM, 3)
    with pytest.raises(ValueError, match="dim must be at least 2, got 1"):
        LayerNorm(1)
    with pytest.raises(ValueError, match="a guide must be given .* got none"):
        AttentionLayer(DIM, HEADS, guided=True)(tokens())
    with pytest.raises(ValueError, match="a guide must be given .* got one"):
        AttentionLayer(DIM, HEADS)(tokens(), tokens())
