"""Every layout of a batch as aligned sequences; what is not aligned is refused."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.unimodals.aligned import AlignedModel, align, masked_mse, run_lstm
from unit_tests.unimodals.generative_reference import array, lstm, padded, weights_of

DIMS, LENGTHS = (4, 3), (3, 1, 5)


def test_vectors_are_sequences_of_one_step():
    x = [torch.randn(6, d) for d in DIMS]
    batch = align(x, DIMS)
    for given, value, mask in zip(x, batch.values, batch.masks, strict=True):
        assert torch.equal(value[:, 0], given) and value.shape[1] == 1
        assert mask.all() and mask.shape == (6, 1)
    assert torch.equal(batch.mask, batch.masks[0])


def test_sequences_with_and_without_masks():
    values, masks = padded(DIMS, LENGTHS)
    assert align(values, DIMS).mask.all()
    for inputs in ([values, masks], (values, masks)):
        batch = align(inputs, DIMS)
        assert torch.equal(batch.mask, masks[0])
        for x, given, mask in zip(batch.values, values, masks, strict=True):
            assert torch.equal(x[mask], given[mask]) and not x[~mask].any()


def test_absent_modalities_and_samples():
    values, masks = padded(DIMS, LENGTHS, absent=[(0, 1), (2, 0), (2, 1)])
    values[1][0] = torch.nan
    batch = align([values, masks], DIMS)
    assert not batch.values[1][0].any()
    assert batch.mask.sum(1).tolist() == [3, 1, 1]
    assert not batch.masks[0][2].any() and not batch.masks[1][2].any()


def changed(masks, *index, to):
    masks[index[0]][index[1:]] = to
    return masks


@pytest.mark.parametrize(
    "inputs, message",
    [
        ([torch.randn(2, 4)], "widths"),
        ([torch.randn(2, 4), torch.randn(2, 5)], "widths"),
        ([torch.randn(2, 4), torch.randn(3, 3)], "aligned"),
        ([torch.randn(2, 5, 4), torch.randn(2, 6, 3)], "aligned.*pool"),
        (torch.randn(2, 4), "list of tensors"),
        ([], "list of tensors"),
        ([[torch.randn(2, 5, 4)] * 2, torch.ones(2, 5)], "list of tensors"),
    ],
)
def test_what_is_no_batch_of_aligned_sequences(inputs, message):
    with pytest.raises(ValueError, match=message):
        align(inputs, DIMS)


def test_masks_that_are_not_aligned():
    values, masks = padded(DIMS, LENGTHS)
    with pytest.raises(ValueError, match="masks must be bool"):
        align([values, [mask.float() for mask in masks]], DIMS)
    with pytest.raises(ValueError, match="masks must be bool"):
        align([values, masks[:1]], DIMS)
    with pytest.raises(ValueError, match=r"sample 2 .*\[5, 4\] steps"):
        align([values, changed(masks, 1, 2, 4, to=False)], DIMS)
    values, masks = padded(DIMS, LENGTHS)
    for mask in masks:
        mask[0, 1] = False
    with pytest.raises(ValueError, match="without gaps"):
        align([values, masks], DIMS)


@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4)])
@pytest.mark.parametrize("both", [False, True])
def test_an_lstm_reads_no_padding(double, lengths, both):
    module = nn.LSTM(4, 3, batch_first=True, bidirectional=both)
    (x, _), (mask, _) = padded(DIMS, lengths)
    states, last = run_lstm(module, x, mask)
    for sample, steps in enumerate(lengths):
        row = array(x[sample])[:steps]
        ahead = lstm(weights_of(module, "_l0"), row)
        parts, ends = [ahead], [ahead[-1]]
        if both:
            back = lstm(weights_of(module, "_l0_reverse"), row[::-1])
            parts.append(back[::-1])
            ends.append(back[-1])
        expected = torch.from_numpy(np.concatenate(parts, 1))
        torch.testing.assert_close(states[sample, :steps], expected)
        torch.testing.assert_close(last[sample], torch.from_numpy(np.concatenate(ends)))
        assert not states[sample, steps:].any()


@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_lstm_runs_in_half_precision_where_autocast_says_so(lengths, dtype):
    module = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    (x, _), (mask, _) = padded(DIMS, lengths)
    expected = run_lstm(module, x, mask)
    for given in (x, x.to(dtype)):  # as a linear map before it leaves them
        with torch.autocast("cpu", dtype=dtype):
            found = run_lstm(module, given, mask)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.02)


def test_the_mean_square_of_what_is_there(double):
    (x, _), (mask, _) = padded(DIMS, LENGTHS)
    y = torch.randn_like(x)
    squares = [
        (x[b, t, i] - y[b, t, i]) ** 2
        for b in range(3)
        for t in range(LENGTHS[b])
        for i in range(4)
    ]
    torch.testing.assert_close(masked_mse(x, y, mask), torch.stack(squares).mean())
    assert masked_mse(x, y, torch.zeros_like(mask)) == 0


class Model(AlignedModel):
    def __init__(self):
        super().__init__((1,))
        self.map = nn.Linear(1, 1)
        self.map.weight.data.fill_(2)


def test_a_loss_of_its_own_is_not_copied():
    model = Model()
    assert model.auxiliary_loss == 0
    model._own_loss = model.map.weight.square().sum()
    assert model.auxiliary_loss == 4
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.auxiliary_loss == 0
    assert model.auxiliary_loss == 4
