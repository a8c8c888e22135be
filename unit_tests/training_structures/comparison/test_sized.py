"""A fusion whose result has another width than its head was built for says so, in one sentence."""

import copy
import pickle
import re

import pytest
import torch
from torch import nn

from deq_fusion import FusionClassifier
from deq_fusion.training_structures.comparison.sized import sized
from unit_tests.package.models import VIEWS, Y
from unit_tests.training_structures.comparison import toy

WRONG = (
    r"Wide must return \(batch, {wanted}\), the width that it was built for, but returned "
    r"\({batch}, {came}\); .* a function \(input_dims, dim\) returns both: \(Wide\(...\), width\)"
)


class Wide(nn.Module):
    """A concatenation that does not tell its width."""

    def __init__(self, input_dims, dim):
        super().__init__()
        self.count = len(input_dims)

    def forward(self, features):
        return torch.cat(features, 1)


def told(input_dims, dim):
    return Wide(input_dims, dim), sum(input_dims)


def test_in_a_comparison(tmp_path):
    found = toy.run(tmp_path, {"silent": Wide, "told": told}, runs=range(1))
    assert {result["method"] for result in found.results} == {"majority", "told"}
    (failure,) = found.failures
    assert re.search(WRONG.format(wanted=3, batch=20, came=6), failure["error"])


def test_in_an_estimator():
    with pytest.raises(ValueError, match=WRONG.format(wanted=64, batch=r"\d+", came=128)):
        FusionClassifier(Wide, epochs=1).fit(VIEWS, Y)
    FusionClassifier(told, epochs=1).fit(VIEWS, Y)


@pytest.mark.parametrize("result", [None, (torch.ones(2, 3), torch.ones(2, 3)), torch.tensor(1.0)])
def test_what_is_no_feature_is_told_as_what_it_is(result):
    class Odd(nn.Module):
        def forward(self, features):
            return result

    came = "NoneType|tuple" if not isinstance(result, torch.Tensor) else r"\(\)"
    fusion, _ = sized(Odd(), 3)
    with pytest.raises(ValueError, match=rf"must return \(batch, 3\), .* but returned ({came});"):
        fusion([])


@pytest.mark.parametrize("built", [3, (nn.Identity(),), (3, nn.Identity()), None])
def test_what_is_no_fusion_is_refused(built):
    with pytest.raises(ValueError, match="must be an nn.Module, or .* but is a"):
        sized(built, 3)


def test_results_of_the_right_width_pass_in_copies_too():
    fusion, width = sized(nn.Identity(), 3)
    assert width == 3
    for module in (fusion, copy.deepcopy(fusion), pickle.loads(pickle.dumps(fusion))):
        for _ in range(2):
            assert module(torch.ones(2, 3)).shape == (2, 3)
        with pytest.raises(ValueError, match=r"Identity must return \(batch, 3\)"):
            module(torch.ones(2, 4))
    alone, none = sized((nn.Identity(), None), 3)  # it predicts on its own
    assert none is None and alone(torch.ones(2, 4)).shape == (2, 4)


def test_models_with_such_a_look_are_compiled_and_exported():
    fusion, _ = sized(told([3, 3], 6)[0], 6)
    views = torch.randn(4, 3), torch.randn(4, 3)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fusion = fusion

        def forward(self, *views):
            return 2 * self.fusion(views)

    expected = 2 * torch.cat(views, 1)
    compiled = torch.compile(Model(), backend="eager", fullgraph=True)
    exported = torch.export.export(Model(), views).module()
    for module in (compiled, exported):
        torch.testing.assert_close(module(*views), expected, rtol=0, atol=0)
