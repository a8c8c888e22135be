"""Encoders of questions and regions against plain loops; padding changes nothing."""

import pytest
import torch

from deq_fusion.unimodals.vqa import QuestionLSTM, RegionMean, WordBag, masked_mean

TOKENS = torch.tensor([[3, 1, 4, 0, 0], [2, 0, 0, 0, 0], [5, 6, 2, 1, 3]])
param = pytest.mark.parametrize


def test_masked_mean_is_the_mean_of_what_is_kept():
    values, kept = torch.randn(3, 4, 2), torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    expected = [values[0, [0, 2]].mean(0), torch.zeros(2), values[2].mean(0)]
    torch.testing.assert_close(masked_mean(values, kept.bool()), torch.stack(expected))


def test_word_bag_is_a_mean_of_vectors_and_a_layer():
    bag = WordBag(7, 4, embedding=6).eval()
    _, linear, _ = bag.head
    table = bag.embedding.weight
    for row, result in zip(TOKENS, bag(TOKENS), strict=True):
        mean = table[row[row > 0]].mean(0)
        torch.testing.assert_close(result, (linear.weight @ mean + linear.bias).relu())
    shuffled = TOKENS[:, [1, 0, 2, 3, 4]]
    torch.testing.assert_close(bag(shuffled), bag(TOKENS))


def test_the_state_is_that_after_the_last_word():
    encoder = QuestionLSTM(7, 4, embedding=6).eval()
    for row, result in zip(TOKENS, encoder(TOKENS), strict=True):
        words = encoder.embedding(row[row > 0])
        hidden = cell = torch.zeros(4)
        lstm = encoder.lstm
        for word in words:  # the equations of Hochreiter and Schmidhuber (1997), with forget gates
            gates = lstm.weight_ih_l0 @ word + lstm.bias_ih_l0
            gates = gates + lstm.weight_hh_l0 @ hidden + lstm.bias_hh_l0
            i, f, g, o = gates.chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        torch.testing.assert_close(result, hidden)


def test_regions_are_averaged_without_padding():
    encoder = RegionMean(5, 4).eval()
    _, linear, _ = encoder.head
    regions = torch.randn(2, 3, 5)
    regions[0, 1:] = 0
    alone = (regions[0, 0] @ linear.weight.T + linear.bias).relu()
    both = (regions[1] @ linear.weight.T + linear.bias).relu().mean(0)
    torch.testing.assert_close(encoder(regions), torch.stack([alone, both]))


@param("encoder", [WordBag(7, 4, embedding=6), QuestionLSTM(7, 4, embedding=6)])
def test_padding_and_batch_mates_change_nothing(encoder):
    encoder.eval()
    longer = torch.cat([TOKENS, torch.zeros(3, 2, dtype=torch.long)], dim=1)
    torch.testing.assert_close(encoder(longer), encoder(TOKENS))
    torch.testing.assert_close(encoder(TOKENS[:1]), encoder(TOKENS)[:1])
    empty = encoder(torch.zeros(1, 5, dtype=torch.long))  # a question without words
    assert torch.isfinite(empty).all()


@param("encoder", [WordBag(7, 4), QuestionLSTM(7, 4), RegionMean(5, 4)])
def test_dtype_follows_and_every_parameter_learns(encoder):
    encoder.double()
    x = torch.rand(3, 5, 5).double() if isinstance(encoder, RegionMean) else TOKENS
    out = encoder(x)
    assert out.dtype == torch.float64 and out.shape == (3, 4)
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())
