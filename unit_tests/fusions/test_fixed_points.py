"""Fixed points from several starts: those of maps that have a known number, and of fusions."""

import math
import sys

import pytest
import torch

from deq_fusion.fusions.analysis import ends, fixed_points
from deq_fusion.fusions.deq import DEQFusion
from unit_tests.fusions.deq_reference import WIDTHS, make, make_features

STARTS = torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0], dtype=torch.float64)


def test_a_map_with_three_fixed_points_of_which_iteration_finds_two_from_beside_zero():
    def f(z):
        return torch.tanh(2 * z)

    found = ends(f, STARTS[[0, 1, 3, 4]].view(4, 1, 1), solver="picard", radius=True)
    away = 0.9575040240772687  # of z = tanh(2 z)
    assert away == pytest.approx(math.tanh(2 * away))
    assert found.count.tolist() == [2] and found.label.T.tolist() == [[0, 0, 1, 1]]
    torch.testing.assert_close(found.of(0).flatten(), torch.tensor([-away, away]).double())
    assert found.spread.item() == pytest.approx(2)
    slope = 2 * (1 - away**2)
    torch.testing.assert_close(found.radius, torch.full((4, 1), slope).double(), rtol=1e-5, atol=0)
    # zero is one as well, and iteration leaves it: its slope is 2
    with_zero = ends(f, STARTS.view(5, 1, 1), solver="picard", radius=True)
    assert with_zero.count.tolist() == [3] and with_zero.radius[2].item() == pytest.approx(2)


def test_samples_have_fixed_points_of_their_own():
    slope = torch.tensor([[0.5], [2.0], [2.0]], dtype=torch.float64)
    shift = torch.tensor([[0.3], [0.0], [0.0]], dtype=torch.float64)
    starts = torch.stack([STARTS[[0, 4]], STARTS[[0, 4]], STARTS[[3, 4]]], 1).unsqueeze(2)
    found = ends(lambda z: torch.tanh(slope * z + shift), starts, solver="picard")
    assert found.count.tolist() == [1, 2, 1]
    assert [len(found.of(k)) for k in range(3)] == [1, 2, 1]
    assert found.spread[1].item() == pytest.approx(2) and found.spread[2] < 1e-6


def test_what_does_not_converge_counts_for_nothing():
    found = ends(lambda z: -z, STARTS[[1, 2, 3]].view(3, 1, 1), solver="picard", max_steps=20)
    assert found.label.flatten().tolist() == [-1, 0, -1] and found.count.tolist() == [1]
    assert found.spread.tolist() == [0] and found.residual[0].item() == pytest.approx(2)
    nothing = ends(lambda z: -z, STARTS[[1]].view(1, 1, 1), solver="picard", max_steps=20)
    assert nothing.count.tolist() == [0] and len(nothing.of(0)) == 0


@pytest.mark.parametrize("options", [{}, {"f_theta": False}, {"f_fuse": False}, {"gate": False}])
def test_a_contraction_has_one_the_one_that_is_fused(options):
    fusion, _ = make("default", WIDTHS[:3], tol=1e-10, max_steps=100, **options)
    features = make_features(fusion.input_dims, batch=3)
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    before = [p.clone() for p in fusion.parameters()]
    found = fixed_points(fusion, features, present=present, starts=4, radius=True)
    assert found.count.tolist() == [1, 1, 1] and found.spread.max() < 1e-5
    assert found.radius.max() < 1 and found.residual.max() <= 1e-7
    fused = fusion(features, present=present)
    states = found.states[0]
    got = states.sum(1) if fusion.fuse is None else states.view(3, -1, fused.shape[1])[:, -1]
    torch.testing.assert_close(got, fused, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(before, [*fusion.parameters()], rtol=0, atol=0)
    assert fusion.training


def test_the_default_start_has_one_and_a_recurrence_as_large_as_the_injection_several():
    counts = {}
    for scale in (0.1, 1.0):
        torch.manual_seed(0)
        fusion = DEQFusion([16, 12], 32, start=scale)
        features = [torch.randn(8, 16), torch.randn(8, 12)]
        found = fixed_points(fusion, features, starts=4, max_steps=150)
        counts[scale] = found.count
        if scale == 1.0:  # they are fixed points indeed, and far from each other
            k = int(found.count.argmax())
            ends_ = found.of(k)
            system = fusion.double().pose([x.double()[[k] * len(ends_)] for x in features])
            whole = system.maps(ends_[:, :-1].transpose(0, 1), ends_[:, -1], joint=True)[0]
            torch.testing.assert_close(whole(ends_), ends_, rtol=1e-5, atol=1e-5)
            assert found.spread[k] > 0.05
    assert (counts[0.1] == 1).all() and counts[1.0].max() > 1


def test_starts_are_of_the_seed_alone():
    fusion, _ = make("default", WIDTHS[:2])
    features = make_features(fusion.input_dims)
    first, second, other = (fixed_points(fusion, features, seed=s).states for s in (1, 1, 2))
    assert first.equal(second) and not first.equal(other) and len(first) == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": 0}, "starts must be an integer of at least 1, got 0"),
        ({"distance": 0}, "distance must be above 0 and at most 1, got 0"),
        ({"tol": -1.0}, "tol must be at least 0"),
        ({"radius": 1}, "radius must be True or False, got 1"),
        ({"solver": "newton"}, "unknown solver 'newton'"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fixed_points(DEQFusion([4], 4), [torch.randn(2, 4)], **settings)


def test_random_starts_are_as_large_as_the_fixed_point_sample_by_sample(monkeypatch):
    asked = []

    def keeping(f, starts, **settings):
        asked.append(starts)
        return ends(f, starts, **settings)

    monkeypatch.setattr(sys.modules[fixed_points.__module__], "ends", keeping)
    fusion, _ = make("default", WIDTHS[:2])
    for name, parameter in fusion.named_parameters():
        if name.endswith("norm_weight"):
            parameter.data.mul_(4)  # states are some four times as large, and not of size 1
    found = fixed_points(fusion, make_features(fusion.input_dims, batch=3), starts=50, seed=3)
    assert found.radius is None  # which was not asked for
    size = found.states[0].flatten(1).square().mean(1).sqrt()
    drawn = asked[-1][1:].flatten(2)
    assert size.min() > 2
    assert asked[-1][0].abs().max() == 0 and len(drawn) == 50
    torch.testing.assert_close(drawn.square().mean((0, 2)).sqrt(), size, rtol=0.1, atol=0)
