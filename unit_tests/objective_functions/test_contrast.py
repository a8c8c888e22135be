"""Contrastive losses: draws by counting, scores and losses by loops over their definitions."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.objective_functions.contrast import (
    AliasMethod,
    MultiSimilarityLoss,
    NCEAverage,
    NCECriterion,
    NCESoftmaxLoss,
)

SHARES = [[3.0, 1.0, 2.0], [0.1, 0.2, 0.05], [1.0] * 7, [5.0], [0.0, 1.0, 9.0, 0.0]]


@pytest.mark.parametrize("shares", SHARES)
def test_the_columns_hold_the_distribution(shares):
    given = torch.tensor(shares)
    table = AliasMethod(given)
    held = np.zeros(len(shares))
    for column, (own, alias) in enumerate(zip(table.prob, table.alias, strict=True)):
        held[column] += own
        held[alias] += 1 - own
    assert held / len(shares) == pytest.approx(np.array(shares) / sum(shares), abs=1e-6)
    assert given.tolist() == pytest.approx(shares)  # the caller's is left alone


def test_draws_are_as_frequent_as_they_should_be():
    drawn = AliasMethod([3.0, 1.0, 0.0, 2.0]).draw(60000, generator=torch.Generator())
    assert drawn.dtype == torch.long
    counts = np.bincount(drawn.numpy(), minlength=4)
    expected = np.array([30000, 10000, 0, 20000])
    assert counts[2] == 0
    used = expected > 0
    assert ((counts - expected)[used] ** 2 / expected[used]).sum() < 20  # chi^2, 2 degrees


def test_draws_follow_the_seed():
    table = AliasMethod(torch.ones(9))
    drawn = [table.draw(50, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("shares", [[0.0, 0.0], [1.0, -0.5], [[1.0]]])
def test_what_is_no_distribution_is_an_error(shares):
    with pytest.raises(ValueError, match="probs must be numbers of at least 0"):
        AliasMethod(shares)


def features(batch=4, width=3):
    x, y = nn.functional.normalize(torch.randn(2, batch, width), dim=2)
    return x, y, torch.tensor([5, 0, 3, 1])[:batch]


@pytest.mark.parametrize("use_softmax", [False, True])
def test_scores_meet_the_other_modalitys_memory(double, use_softmax):
    average = NCEAverage(3, 8, 2, T=0.5, use_softmax=use_softmax)
    left, right, y = features()
    idx = torch.randint(0, 8, (4, 3))
    memory_l, memory_ab = average.memory_l.numpy().copy(), average.memory_ab.numpy().copy()
    out_l, out_ab = average(left, right, y, idx)
    for out, memory, x in ((out_l, memory_ab, left), (out_ab, memory_l, right)):
        expected = np.zeros((4, 3))
        for b, k in np.ndindex(4, 3):
            expected[b, k] = memory[idx[b, k]] @ x[b].numpy() / 0.5
        if not use_softmax:
            expected = np.exp(expected) / (np.exp(expected).mean() * 8)
        assert_close(out.squeeze(2).numpy(), expected)
    for memory, before, x in (
        (average.memory_l, memory_l, left),
        (average.memory_ab, memory_ab, right),
    ):
        for sample, feature in zip(y, x, strict=True):
            moved = 0.5 * before[sample] + 0.5 * feature.numpy()
            before[sample] = moved / np.linalg.norm(moved)
        assert_close(memory.numpy(), before)


def test_the_constant_is_that_of_the_first_batch():
    average = NCEAverage(3, 8, 2)
    left, right, y = features()
    average(left.requires_grad_(), right, y)
    first = average.params.clone()
    assert (first[2:4] > 0).all() and not average.params.requires_grad
    average(left, right, y)
    assert torch.equal(average.params, first)
    copy.deepcopy(average)


def test_in_evaluation_nothing_moves():
    average = NCEAverage(3, 8, 2).eval()
    before = {name: value.clone() for name, value in average.state_dict().items()}
    out, _ = average(*features())
    assert_close(average.state_dict(), before, rtol=0, atol=0)
    assert out.mean().item() == pytest.approx(1 / 8)


def test_the_drawn_samples_follow_the_true_one():
    average = NCEAverage(3, 8, 50)
    left, right, y = features()
    memory = average.memory_ab.clone()
    out_l, _ = average(left, right, y)
    expected = ((memory[y] * left).sum(1) / 0.07).exp()
    ratio = out_l[:, 0, 0] / expected
    assert_close(ratio, ratio[:1].expand(4), rtol=1e-4, atol=0)  # one constant for all
    assert out_l.shape == (4, 51, 1)


def test_memory_is_drawn_and_named_as_in_multibench():
    torch.manual_seed(1)
    average = NCEAverage(3, 8, 2)
    assert set(average.state_dict()) == {"params", "memory_l", "memory_ab"}
    torch.manual_seed(1)
    for memory in (average.memory_l, average.memory_ab):  # uniform, of variance 1 / width
        assert_close(memory, (torch.rand(8, 3) * 2 - 1) / np.sqrt(3 / 3))
    assert_close(average.params, torch.tensor([2, 0.07, -1, -1, 0.5]))


@pytest.mark.parametrize("last", [(), (1,)])
def test_noise_contrastive_estimation(double, last):
    scores = torch.rand(4, 6)
    noise, total = 5 / 9, 0.0
    for row in scores.numpy():
        total += np.log(row[0] / (row[0] + noise + 1e-7))
        for p in row[1:]:
            total += np.log(noise / (p + noise + 1e-7))
    loss = NCECriterion(9)(scores.reshape(4, 6, *last))
    assert loss.shape == (1,) and loss.item() == pytest.approx(-total / 4)


def test_noise_contrastive_estimation_finds_the_probabilities(double):
    """With samples counted as often as they are drawn, it is least at their true shares."""
    shares, m = torch.tensor([0.5, 0.3, 0.15, 0.05]), 4
    counts = (shares * 100).round().long()
    true = torch.arange(4).repeat_interleave(counts)  # 100 of them
    drawn = torch.arange(4).expand(100, m)  # uniform, each outcome as often
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10)

    def closure():
        optimizer.zero_grad()
        scores = logits.exp()[torch.cat([true[:, None], drawn], 1)]
        loss = NCECriterion(4)(scores)
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    assert_close(logits.exp().detach(), shares, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (1, 6)])
def test_softmax_loss(double, shape):
    scores = torch.randn(shape)
    rows = scores.reshape(shape[0], -1).numpy()
    expected = np.mean([np.log(np.exp(row - row[0]).sum()) for row in rows])
    assert NCESoftmaxLoss()(scores).item() == pytest.approx(expected)


def similarity_loss(loss, feats, labels):
    """By loops over samples, labels and pairs, as the definition says."""
    total, count = 0.0, 0
    for i in range(len(feats)):
        similar = [feats[i] @ other for other in feats]
        for k in range(labels.shape[1]):
            if labels[i, k] != 1:
                continue
            count += 1
            has = [s for s, row in zip(similar, labels, strict=True) if row[k] == 1]
            has = [s for s in has if s < 1 - 1e-5]
            not_has = [s for s, row in zip(similar, labels, strict=True) if row[k] == 0]
            if not has or not not_has:
                continue
            positive = [s for s in has if s - loss.margin < max(not_has)]
            negative = [s for s in not_has if s + loss.margin > min(has)]
            if positive and negative:
                a, b = loss.scale_pos, loss.scale_neg
                pull = np.sum([np.exp(-a * (s - loss.thresh)) for s in positive])
                push = np.sum([np.exp(b * (s - loss.thresh)) for s in negative])
                total += np.log1p(pull) / a + np.log1p(push) / b
    return total / count


@pytest.mark.parametrize("scales", [(5e-2, 2e-3), (2.0, 50.0)])
def test_multi_similarity(double, scales):
    loss = MultiSimilarityLoss()
    loss.scale_pos, loss.scale_neg = scales
    feats = nn.functional.normalize(torch.randn(12, 3), dim=1)
    labels = (torch.rand(12, 4) < 0.4).long()
    labels[:, 3] = 1  # what all have tells nobody apart
    found = loss(feats, labels).item()
    assert found == pytest.approx(similarity_loss(loss, feats.numpy(), labels.numpy()))
    assert found > 0


def test_multi_similarity_is_differentiated(double):
    feats = nn.functional.normalize(torch.randn(6, 3), dim=1).requires_grad_()
    labels = torch.tensor([[1, 0]] * 3 + [[0, 1]] * 3)
    assert torch.autograd.gradcheck(lambda x: MultiSimilarityLoss()(x, labels), [feats])


@pytest.mark.parametrize("labels", [torch.zeros(4, 2), torch.ones(4, 2)])
def test_without_pairs_the_loss_is_zero(labels):
    feats = nn.functional.normalize(torch.randn(4, 3), dim=1).requires_grad_()
    loss = MultiSimilarityLoss()(feats, labels)
    loss.backward()
    assert loss.item() == 0 and (feats.grad is None or (feats.grad == 0).all())


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 2\)"):
        MultiSimilarityLoss()(torch.zeros(4, 3), torch.zeros(5, 2))
