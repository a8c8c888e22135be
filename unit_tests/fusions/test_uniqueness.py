"""One equilibrium or several, told apart by solvers and starts: against roots found by numpy."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch

from deq_fusion.fusions.analysis import Uniqueness, settle, spectral_radii, uniqueness
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.fixed_points import whole_map
from unit_tests.fusions.deq_reference import WIDTHS, make, make_features

SLOPES, SHIFTS = (0.5, 3.0, 3.0, 1.5), (0.3, 0.0, 0.2, -0.01)


def tanh_map():
    slope, shift = (torch.tensor(x, dtype=torch.float64).unsqueeze(1) for x in (SLOPES, SHIFTS))
    return lambda z: torch.tanh(slope * z + shift)


@cache
def roots(slope, shift):
    """All fixed points of tanh(slope z + shift), by the changes of sign on a fine grid."""
    grid = np.linspace(-1.5, 1.5, 30_002)  # of which zero is no point
    values = np.tanh(slope * grid + shift) - grid
    at = np.flatnonzero(np.sign(values[1:]) != np.sign(values[:-1]))
    return (grid[at] + grid[at + 1]) / 2


@pytest.fixture(scope="module")
def found():
    return settle(tanh_map(), torch.zeros(4, 1, dtype=torch.float64), starts=6, max_steps=100)


def nearest(found):
    """The root that each solve ended at, by numpy; -1 of what did not converge."""
    ends, there = found.states[..., 0].numpy(), (found.label >= 0).numpy()
    at = np.full(ends.shape, -1)
    for k, s, b in np.ndindex(ends.shape):
        gaps = np.abs(roots(SLOPES[b], SHIFTS[b]) - ends[k, s, b])
        if there[k, s, b]:
            assert gaps.min() < 1e-3
            at[k, s, b] = gaps.argmin()
    return at


def differing(solves):
    return len(set(solves) - {-1}) > 1


def test_ends_are_told_apart_as_their_roots_are(found):
    at = nearest(found)
    label = found.label.numpy()
    for b in range(4):
        for one, other in itertools.product(np.ndindex(at.shape[:2]), repeat=2):
            if at[(*one, b)] >= 0 and at[(*other, b)] >= 0:
                same = at[(*one, b)] == at[(*other, b)]
                assert same == (label[(*one, b)] == label[(*other, b)])
    several = [len(set(at[..., b].flat) - {-1}) for b in range(4)]
    assert found.count.tolist() == several and several[0] == 1 and max(several) > 1
    starts = [any(differing(at[k, :, b]) for k in range(3)) for b in range(4)]
    solvers = [any(differing(at[:, s, b]) for s in range(7)) for b in range(4)]
    zero = [differing(at[:, 0, b]) for b in range(4)]
    assert found.starts_differ.tolist() == starts
    assert found.solvers_differ.tolist() == solvers
    assert found.solvers_differ_from_zero.tolist() == zero
    assert found.share(found.several) == pytest.approx(np.mean([n > 1 for n in several]))


def test_the_radius_is_the_slope_at_the_end_from_zero(found):
    for b in range(4):
        z = found.states[0, 0, b].item()
        slope = SLOPES[b] * (1 - math.tanh(SLOPES[b] * z + SHIFTS[b]) ** 2)
        assert found.radius[b].item() == pytest.approx(slope, rel=1e-5)


def of_labels(label, **changes):
    label = torch.tensor(label)
    parts = {
        "solvers": ("anderson", "picard"),
        "states": torch.zeros(*label.shape, 1),
        "label": label,
        "radius": torch.tensor([0.5, 1.25, math.nan, 0.25]),
        "spread": torch.tensor([0.0, 0.875, 0.0, 0.0]),
    }
    return Uniqueness(**parts | changes)


def test_what_did_not_converge_is_not_judged_and_it_is_said_in_words():
    # samples: one point; two, by starts and solvers; one solve alone converged; none did
    found = of_labels([[[0, 0, 0, -1], [0, 1, -1, -1]], [[0, 1, -1, -1], [-1, -1, -1, -1]]])
    assert found.judged.tolist() == [True, True, False, False]
    assert found.count.tolist() == [1, 2, 1, 0]
    assert found.starts_differ.tolist() == [False, True, False, False]
    assert found.solvers_differ_from_zero.tolist() == [False, True, False, False]
    assert found.share(found.several) == 0.5
    assert found.converged == {"anderson": 5 / 8, "picard": 2 / 8}
    said = str(found)
    assert "4 samples, solved by anderson, picard, from zero and 1 random states" in said
    assert "for 2 of them two solves or more converged" in said
    assert "several fixed points: 1 of 2 samples (50.0%), up to 2 of a sample, up to 88%" in said
    assert "anderson 62.5%, picard 25.0%" in said and "no proof" not in said
    assert "median 0.50, largest 1.25, below 1 for 66.7%" in said
    nothing = of_labels(torch.full((2, 2, 4), -1).tolist(), radius=torch.full((4,), math.nan))
    assert "0 of 0 samples" in str(nothing) and "unknown" in str(nothing)
    assert math.isnan(nothing.share(nothing.several))
    assert "no proof" in str(of_labels([[[0, 0, 0, 0]] * 2] * 2))


@pytest.mark.parametrize("options", [{}, {"f_theta": False}, {"f_fuse": False}])
def test_of_a_contraction_all_solves_end_at_what_is_fused(options):
    fusion, _ = make("default", WIDTHS[:3], tol=1e-10, max_steps=100, **options)
    features = make_features(fusion.input_dims, batch=2)
    present = torch.tensor([[True, True, True], [True, False, True]])
    found = uniqueness(fusion, features, present=present, starts=1)
    assert not found.several.any() and found.judged.all()
    assert found.converged == {"anderson": 1.0, "broyden": 1.0, "picard": 1.0}
    fused = fusion(features, present=present)
    torch.testing.assert_close(found.fused, fused.expand_as(found.fused), rtol=1e-6, atol=1e-6)
    radii = torch.stack([*spectral_radii(fusion, features, present=present).values()])
    torch.testing.assert_close(found.radius, radii.amax(0), rtol=0.1, atol=1e-3)


def test_of_a_recurrence_as_large_as_the_injection_solves_differ_each_at_a_fixed_point():
    fusion = DEQFusion([16, 12], 32, start=1.0)
    features = [torch.randn(8, 16), torch.randn(8, 12)]
    found = uniqueness(fusion, features, starts=2, max_steps=60, tol=1e-8)
    assert found.several.any() and found.spread.max() > 0.05
    f, _ = whole_map(fusion, features)
    for k, s in np.ndindex(3, 3):
        arrived = found.label[k, s] >= 0
        z = found.states[k, s]
        torch.testing.assert_close(f(z)[arrived], z[arrived], rtol=1e-5, atol=1e-5)
        assert found.fused[k, s].equal(z[:, -1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": 0}, "starts must be an integer of at least 1, got 0"),
        ({"solvers": ["newton"]}, "unknown solvers 'newton'; choose from"),
        ({"solvers": []}, "solvers must be names, each once, at least one"),
        ({"solvers": ["picard", "picard"]}, "solvers must be names, each once"),
        ({"distance": 0}, "distance must be above 0"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        uniqueness(DEQFusion([4], 4), [torch.randn(2, 4)], **settings)
