"""An unrolled fusion can be asked for other steps, and a fusion posed without a second look."""

import pytest
import torch

from deq_fusion.fusions.analysis import solved_with
from deq_fusion.fusions.deq import DEQFusion


def test_an_unrolled_fusion_takes_the_steps_that_are_asked_for_and_its_own_again():
    fusion, other = (DEQFusion([4, 6], 8, unroll=steps).eval() for steps in (3, 2))
    other.load_state_dict(fusion.state_dict())
    features = [torch.randn(5, 4), torch.randn(5, 6)]
    own = fusion(features)
    with solved_with(fusion, unroll=2) as same:
        assert same is fusion and torch.equal(fusion(features), other(features))
    assert fusion.unroll == 3 and torch.equal(fusion(features), own)
    with pytest.raises(KeyError), solved_with(fusion, unroll=2):
        raise KeyError
    assert fusion.unroll == 3


@pytest.mark.parametrize(
    ("unroll", "settings", "message"),
    [
        (None, {"unroll": 2}, "got one that solves"),
        (3, {"unroll": 2, "tol": 0.1}, "got one of 3 steps, and joint=None, {'tol': 0.1}"),
        (3, {"unroll": 2, "joint": True}, "must be given alone"),
        (3, {"unroll": 0}, "unroll must be"),
    ],
)
def test_steps_that_make_no_sense_are_refused(unroll, settings, message):
    fusion = DEQFusion([4], 8, unroll=unroll)
    with pytest.raises(ValueError, match=message), solved_with(fusion, **settings):
        pass
    assert fusion.unroll == unroll


def test_usual_features_are_posed_alike_with_and_without_a_second_look():
    fusion, features = DEQFusion([4, 6], 8), [torch.randn(5, 4), torch.randn(5, 6)]
    looked, quick = fusion.pose(features), fusion.pose(features, careful=False)
    for name in ("x", "x_fuse"):
        assert torch.equal(getattr(looked.constants, name), getattr(quick.constants, name))


def test_odd_features_are_not_a_number_without_a_second_look():
    fusion = DEQFusion([4, 6], 8)
    features = [torch.full((5, 4), 1e30), torch.randn(5, 6)]
    assert fusion.pose(features).constants.x.isfinite().all()
    assert not fusion.pose(features, careful=False).constants.x.isfinite().all()
