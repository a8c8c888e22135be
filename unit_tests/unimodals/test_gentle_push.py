"""Encoders and heads of Gentle Push, against their formulas."""

import pytest
import torch
from torch import nn

from deq_fusion.unimodals.gentle_push import head, layers


@pytest.mark.parametrize(
    "build, width",
    [
        (layers.control_layers, 7),
        (layers.observation_pos_layers, 3),
        (layers.observation_sensors_layers, 7),
    ],
)
def test_a_vector_goes_through_a_layer_and_a_residual_block(build, width):
    encoder, x = build(8), torch.randn(4, 2, width)
    linear, _, block = encoder
    out = linear(x).relu()
    wanted = (block.block2(block.block1(out).relu()) + out).relu()
    torch.testing.assert_close(encoder(x), wanted)
    assert wanted.shape == (4, 2, 8)
    names = ["0", "2.block1", "2.block2"]  # as with the package fannypack
    assert list(encoder.state_dict()) == [f"{n}.{k}" for n in names for k in ("weight", "bias")]


def test_every_position_of_an_image_is_kept():
    encoder, x = layers.observation_image_layers(8), torch.randn(3, 1, 32, 32)
    first, _, block, second, _, third, flat, linear, _, last = encoder
    out = first(x).relu()
    out = (block.block2(block.block1(out).relu()) + out).relu()
    out = third(second(out).relu()).reshape(3, -1)
    assert out.shape[1] == 8 * 32 * 32
    torch.testing.assert_close(encoder(x), last(linear(out).relu()))
    assert isinstance(flat, nn.Flatten)


def test_or_pairs_of_rows_and_of_columns_are_averaged():
    encoder = layers.observation_image_layers(8, spanning_avg_pool=True)
    pool, x = encoder[6], torch.randn(3, 2, 32, 32)
    columns = x.mean(dim=2).view(3, 2, 16, 2).mean(dim=3).flatten(1)
    rows = x.mean(dim=3).view(3, 2, 16, 2).mean(dim=3).flatten(1)
    torch.testing.assert_close(pool(x), torch.cat([columns, rows], 1))
    assert encoder(torch.randn(3, 1, 32, 32)).shape == (3, 8)


def test_the_head_is_an_lstm_and_an_mlp():
    model, x = head.Head(8), torch.randn(5, 2, 8)
    states = model.lstm(x)[0]
    hidden, _, last = model.output_layers
    torch.testing.assert_close(model(x), last(hidden(states).relu()))
    assert model(x).shape == (5, 2, 2)
    assert model.lstm.num_layers == 2 and model.lstm.hidden_size == 512


def test_the_late_lstm_gives_every_step():
    model, x = head.GentlePushLateLSTM(4, 6), torch.randn(5, 2, 4)
    out = model(x)
    assert out.shape == (5, 2, 6)
    torch.testing.assert_close(model(x[:3]), out[:3])  # causal: earlier steps see no later ones
