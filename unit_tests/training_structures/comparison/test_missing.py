"""A modality that is missing at test time: `present` where a fusion knows it, zeros otherwise."""

import pytest
import torch
from torch import nn

from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.missing import knows_absence, without
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.comparison.sized import sized
from unit_tests.training_structures.comparison import toy


class Present(nn.Module):
    """The mean of the features that are there."""

    def __init__(self, input_dims, dim):
        super().__init__()
        self.seen = []

    def forward(self, features, present=None):
        self.seen.append(present)
        x = torch.stack(features, 1)
        weight = torch.ones(x.shape[:2]) if present is None else present.to(x)
        return (weight.unsqueeze(-1) * x).sum(1) / weight.sum(1, keepdim=True)


def test_a_fusion_that_knows_absence_is_told_and_gets_the_features_as_they_are():
    fusion, features = Present([3, 3], 3), list(torch.randn(2, 4, 3))
    assert knows_absence(fusion) and not knows_absence(toy.Concat())
    for modality in range(2):
        with without([fusion], modality):
            torch.testing.assert_close(fusion(features), features[1 - modality])
        told = fusion.seen[-1]
        assert told.dtype == torch.bool and told.shape == (4, 2)
        assert not told[:, modality].any() and told[:, 1 - modality].all()


@pytest.mark.parametrize("by_keyword", [True, False])
def test_what_the_model_tells_of_absent_modalities_is_kept(by_keyword):
    fusion, features = Present([3] * 3, 3), list(torch.randn(3, 4, 3))
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    before = mask.clone()
    with without([fusion], 1):
        fused = fusion(features, present=mask) if by_keyword else fusion(features, mask)
    left = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 1]], dtype=torch.bool)
    assert torch.equal(fusion.seen[-1], left) and torch.equal(mask, before)
    expected = [(features[0][0] + features[2][0]) / 2, features[2][1], features[0][2]]
    torch.testing.assert_close(fused[:3], torch.stack(expected))


def test_a_sample_that_has_nothing_else_keeps_it_as_zeros():
    fusion, features = Present([3, 3], 3), list(torch.randn(2, 2, 3) + 9)
    with without([fusion], 0):
        fused = fusion(features, present=torch.tensor([[True, False], [True, True]]))
    assert fusion.seen[-1].tolist() == [[True, False], [False, True]]
    torch.testing.assert_close(fused, torch.stack([torch.zeros(3), features[1][1]]))


def test_any_other_fusion_gets_zeros():
    fusion, features = toy.Concat(), list(torch.randn(2, 4, 3))
    for modality in range(2):
        expected = [x * (i != modality) for i, x in enumerate(features)]
        with without([fusion], modality):
            torch.testing.assert_close(fusion(features), torch.cat(expected, 1))


def test_the_callers_features_are_not_changed():
    features = list(torch.randn(2, 4, 3))
    before, same = [x.clone() for x in features], list(features)
    for fusion in (toy.Concat(), Present([3, 3], 3)):
        with without([fusion], 0):
            fusion(features)
    for x, old, copy in zip(features, same, before, strict=True):
        assert x is old
        torch.testing.assert_close(x, copy, rtol=0, atol=0)


def test_afterwards_the_modality_is_back_also_after_an_error():
    fusion, features = toy.Concat(), list(torch.randn(2, 4, 3))
    whole = fusion(features)
    with without([fusion], 0):
        assert not torch.equal(fusion(features), whole)
    torch.testing.assert_close(fusion(features), whole, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError), without([fusion], 1):
        1 / 0  # noqa: B018
    torch.testing.assert_close(fusion(features), whole, rtol=0, atol=0)
    assert not fusion._forward_pre_hooks


@pytest.mark.parametrize("fusion", [toy.concat, Present])
def test_the_scores_are_those_of_the_trained_model_without_the_modality(fusion):
    hosts = []

    def build(*args):
        hosts.append(toy.build(*args))
        return hosts[-1]

    result = run_fusion(Method("it", toy.recipe(build=build), fusion), 0, drop_modality=True)
    views = next(iter(torch.utils.data.DataLoader(toy.load(0, "ab")[2].dataset, batch_size=99)))
    head, (a, b, truth) = hosts[0].head, views
    if fusion is Present:
        left = {"a": b, "b": a}
    else:
        left = {"a": torch.cat([0 * a, b], 1), "b": torch.cat([a, 0 * b], 1)}
    assert result["missing"].keys() == {"a", "b"}
    with torch.no_grad():
        for name, fused in left.items():
            expected = {k: float(v) for k, v in toy.metrics(head(fused), truth).items()}
            assert result["missing"][name] == pytest.approx(expected)


def test_a_single_modality_is_not_taken_away():
    recipe = toy.recipe().restricted(["a"])
    assert "missing" not in run_fusion(Method("it", recipe, toy.concat), 0, drop_modality=True)


def test_a_model_may_tell_any_fusion_what_is_absent():
    fusion, width = sized((toy.Concat(), 6), 4)
    features = [torch.randn(3, 2), torch.randn(3, 4)]
    present = torch.tensor([[True, True], [False, True], [True, False]])
    expected = torch.cat(features, 1)
    expected[1, :2] = expected[2, 2:] = 0
    torch.testing.assert_close(fusion(features, present=present), expected)
    torch.testing.assert_close(fusion(features, present=None), torch.cat(features, 1))
    with without([fusion], 0):
        expected[:, :2] = 0
        torch.testing.assert_close(fusion(features, present=present), expected)
    assert not knows_absence(fusion) and width == 6


def test_a_fusion_that_may_take_it_is_left_alone():
    class Passing(nn.Module):
        def forward(self, features, **options):
            return features[0] * options["present"][:, :1]

    (fusion, _), present = sized(Passing(), 3), torch.tensor([[False, True], [True, True]])
    x = torch.randn(2, 3)
    torch.testing.assert_close(fusion([x, x], present=present), x * present[:, :1])
