"""The parts of the multimodal transformer: masks, positions, layers, computed a second time."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.fusions.mult import (
    LayerNorm,
    Linear,
    SinusoidalPositionalEmbedding,
    TransformerEncoder,
    TransformerEncoderLayer,
    buffered_future_mask,
    fill_with_neg_inf,
    make_positions,
)
from unit_tests.fusions.transformer_reference import affine, attention, layer_norm


def sinusoids(position, width):
    """The embedding of one position; that of padding is zero."""
    if position == 0:
        return torch.zeros(width)
    half = width // 2
    angles = [position * 10000 ** (-i / (half - 1)) for i in range(half)]
    odd = [0.0] * (width % 2)
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles), *odd])


def pre_norm_layer(layer, x, k, v, causal):
    """Attention and a network, each normalised before its residual, without dropout."""
    first, second = layer.layer_norms
    q, k, v = (layer_norm(first, y) for y in (x, k, v))
    x = x + attention(layer.self_attn, q, k, v, causal)
    return x + affine(layer.fc2, affine(layer.fc1, layer_norm(second, x)).clamp_min(0))


def embed(x):
    """sqrt(E) x plus the position, counted from 1, of every step; x is (T, B, E)."""
    width = x.shape[2]
    positions = torch.stack([sinusoids(t + 1, width) for t in range(len(x))])
    return width**0.5 * x + positions[:, None]


def scatter(model):
    """Makes all parameters differ, biases and norms too."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_fill_with_neg_inf_follows_shape_and_dtype():
    x = torch.randn(2, 3, dtype=torch.float64)
    filled = fill_with_neg_inf(x)
    assert filled.dtype == torch.float64 and filled.shape == (2, 3)
    assert (filled == -math.inf).all() and x.isfinite().all()


@pytest.mark.parametrize("queries, keys", [(4, None), (3, 5), (5, 3)])
def test_the_mask_hides_what_is_later(queries, keys):
    other = None if keys is None else torch.randn(keys, 2)
    mask = buffered_future_mask(torch.randn(queries, 2), other)
    keys = queries if keys is None else keys
    assert mask.shape == (queries, keys)
    for t in range(queries):
        for s in range(keys):
            assert mask[t, s] == (-math.inf if s - t > abs(keys - queries) else 0)


def test_linear_has_glorots_uniform_weights_and_no_bias_at_the_start():
    layer = Linear(300, 100)
    bound = (6 / 400) ** 0.5
    assert (layer.bias == 0).all() and layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert Linear(3, 2, bias=False).bias is None
    assert isinstance(LayerNorm(5), nn.LayerNorm)


def test_positions_count_from_after_the_padding_index():
    right, left = torch.tensor([[7.0, 5, 1, 1]]), torch.tensor([[1.0, 1, 7, 5]])
    assert make_positions(right, 1, 0).tolist() == [[2, 3, 1, 1]]
    assert make_positions(left, 1, 1).tolist() == [[1, 1, 2, 3]]
    assert make_positions(left, 1, 0).tolist() == [[1, 1, 4, 5]]


@pytest.mark.parametrize("width", [9, 8])
def test_embeddings_are_sinusoids_and_zero_for_padding(double, width):
    model = SinusoidalPositionalEmbedding(width)
    embedded = model(torch.tensor([[0.5, -1.0, 0.0], [3.0, 2.0, 1.0]]))
    expected = [[sinusoids(p, width) for p in row] for row in ([1, 2, 0], [1, 2, 3])]
    assert_close(embedded, torch.stack([torch.stack(row) for row in expected]))


def test_embeddings_follow_the_input_and_allow_every_width():
    model = SinusoidalPositionalEmbedding(3)
    assert model(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64
    for width in (1, 2, 3):
        table = SinusoidalPositionalEmbedding.get_embedding(5, width)
        assert table.shape == (5, width) and table.isfinite().all()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_a_layer_is_attention_and_a_network(double, causal, cross):
    layer = scatter(TransformerEncoderLayer(6, num_heads=2, attn_mask=causal))
    x, k, v = torch.randn(3, 4, 2, 6)
    arguments, sources = ((x, k, v), (k, v)) if cross else ((x,), (x, x))
    assert_close(layer(*arguments), pre_norm_layer(layer, x, *sources, causal))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_an_encoder_embeds_runs_its_layers_and_normalises(double, causal, cross):
    encoder = scatter(TransformerEncoder(9, 3, 2, attn_mask=causal))
    x, k, v = torch.randn(3, 4, 2, 9)
    expected = embed(x)
    keys, values = embed(k), embed(v)
    for layer in encoder.layers:
        sources = (keys, values) if cross else (expected, expected)
        expected = pre_norm_layer(layer, expected, *sources, causal)
    expected = layer_norm(encoder.layer_norm, expected)
    assert_close(encoder(x, k, v) if cross else encoder(x), expected)


def test_a_step_whose_first_feature_is_zero_gets_no_position(double):
    encoder = scatter(TransformerEncoder(6, 2, 1))
    x = torch.randn(4, 2, 6)
    x[2, 1, 0] = 0
    embedded = embed(x)
    embedded[2, 1] = 6**0.5 * x[2, 1]
    expected = pre_norm_layer(encoder.layers[0], embedded, embedded, embedded, False)
    assert_close(encoder(x), layer_norm(encoder.layer_norm, expected))


def test_an_encoder_can_attend_to_a_longer_sequence(double):
    encoder = scatter(TransformerEncoder(6, 2, 1))
    x, source = torch.randn(3, 2, 6), torch.randn(5, 2, 6)
    keys = embed(source)
    expected = pre_norm_layer(encoder.layers[0], embed(x), keys, keys, False)
    assert_close(encoder(x, source, source), layer_norm(encoder.layer_norm, expected))


def test_files_cross_to_and_from_multibench():
    encoder = TransformerEncoder(6, 2, 2)
    assert encoder.version.tolist() == [2]
    attention = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    affine_parts = ["fc1", "fc2", "layer_norms.0", "layer_norms.1"]
    names = [f"self_attn.{name}" for name in attention]
    names += [f"{part}.{name}" for part in affine_parts for name in ("weight", "bias")]
    expected = {f"layers.{i}.{name}" for i in range(2) for name in names}
    expected |= {"embed_positions._float_tensor", "version"}
    expected |= {"layer_norm.weight", "layer_norm.bias"}
    assert set(encoder.state_dict()) == expected


@pytest.mark.parametrize("option", ["attn_dropout", "relu_dropout", "res_dropout", "embed_dropout"])
def test_every_dropout_acts_in_training_only(option):
    encoder = scatter(TransformerEncoder(6, 2, 1, **{option: 0.5}))
    x = torch.randn(4, 2, 6)
    torch.testing.assert_close(encoder(x), encoder(x), rtol=0, atol=0)
    encoder.train()
    assert not torch.equal(encoder(x), encoder(x))


def test_every_dropout_is_off_unless_asked_for():
    encoder = scatter(TransformerEncoder(6, 2, 1)).train()
    x = torch.randn(4, 2, 6)
    torch.testing.assert_close(encoder(x), encoder(x), rtol=0, atol=0)


def test_attention_can_be_differentiated_twice():
    layer = scatter(TransformerEncoderLayer(4, 2, attn_mask=True)).double()
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_a_layers_draws_come_in_multibenchs_order():
    torch.manual_seed(1)
    layer = TransformerEncoderLayer(6, 2)
    torch.manual_seed(1)
    parts = nn.MultiheadAttention(6, 2), Linear(6, 24), Linear(24, 6), LayerNorm(6), LayerNorm(6)
    expected = [parameter for part in parts for parameter in part.parameters()]
    torch.testing.assert_close([*layer.parameters()], expected, rtol=0, atol=0)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of num_heads=4, got 6"):
        TransformerEncoderLayer(6)
