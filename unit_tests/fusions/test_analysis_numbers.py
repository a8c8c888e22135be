"""Shares of gates and spectral radii are those of loops and dense Jacobians; fusions stay as is."""

import pytest
import torch

from deq_fusion.fusions.analysis import gate_shares, solved_with, spectral_radii, trace
from deq_fusion.fusions.deq import DEQFusion
from unit_tests.fusions.deq_reference import DIM, EXACT, WIDTHS, arguments, make, make_features

LARGE = {"start": 0.1}
PARTS = [{}, {"gate": False}, {"f_theta": False}, {"f_fuse": False}]
PRESENT = torch.tensor([[True, True, True], [False, True, True], [True, False, False]])


def close(got, want, tol=1e-12):
    torch.testing.assert_close(got, want, rtol=tol, atol=tol, equal_nan=True)


def samples(features, present=None):
    """The features of one sample after the other; None where a modality is absent."""
    for k in range(len(features[0])):
        yield [
            x[k : k + 1].detach() if present is None or present[k, i] else None
            for i, x in enumerate(features)
        ]


def test_a_trace_has_the_hundred_steps_of_the_papers_table_8():
    fusion, _ = make("paper", WIDTHS[:2], **LARGE)
    traces = trace(fusion, make_features(fusion.input_dims, batch=2))
    assert [len(found.difference) for found in traces.values()] == [100, 100]


def test_shares_are_the_means_of_the_gates_over_their_sum_and_of_a_class_its_own():
    fusion, _ = make("default", WIDTHS[:3], **LARGE)
    features = make_features(fusion.input_dims, batch=5)
    gates = trace(fusion, features, joint=True, tol=1e-6)["joint"].gates
    labels = torch.tensor([0, 1, 0, 2, 1])
    assert gates.isnan().any()  # some samples end sooner
    for rows in [torch.ones(5).bool(), *(labels == c for c in range(3))]:
        shares = gate_shares(gates[:, rows])
        for step, values in enumerate(gates.tolist()):
            there = [v for v, row in zip(values, rows, strict=True) if row and v[0] == v[0]]
            sums = [sum(v[i] for v in there) for i in range(3)]
            if not there:
                assert shares[step].isnan().all()
                continue
            want = torch.tensor([s / sum(sums) for s in sums], dtype=torch.float64)
            close(shares[step], want, 1e-12)
            assert shares[step].sum().item() == pytest.approx(1.0)
    absent = trace(fusion, features[:3], steps=2, present=torch.tensor([[True, True, False]] * 5))
    assert (gate_shares(absent["fuse"].gates)[:, 2] == 0).all()


RADII = [*(("default", options, PRESENT) for options in PARTS), ("paper", {}, PRESENT)]


@pytest.mark.parametrize(
    ("variant", "options", "present"), [*RADII, ("default", {}, None)], ids=lambda x: str(x)[:20]
)
def test_radii_are_the_largest_eigenvalues_of_the_dense_jacobian(variant, options, present):
    fusion, reference = make(variant, WIDTHS[:3], **LARGE, **options)
    features = make_features(fusion.input_dims, batch=3)
    found = spectral_radii(fusion, features, present=present, tol=1e-12, steps=400)
    names = [f"z_{i}" for i in (1, 2, 3)] * (fusion.unimodal is not None)
    assert list(found) == [*names, *["z_fuse"] * (fusion.fuse is not None)]
    for k, sample in enumerate(samples(features, present)):
        state = reference.fixed_point(sample)
        jacobian = reference.jacobian(state, sample)
        if fusion.fuse is None:  # the sum of the z_i is no state
            jacobian = jacobian[:-DIM, :-DIM]
        radius = torch.linalg.eigvals(jacobian).abs().max()
        largest = max(radii[k] for radii in found.values())
        torch.testing.assert_close(largest, radius, rtol=0.02, atol=1e-12)
        for name, radii in found.items():
            at = 3 if name == "z_fuse" else int(name[2:]) - 1
            block = jacobian[at * DIM : (at + 1) * DIM, at * DIM : (at + 1) * DIM]
            want = torch.linalg.eigvals(block).abs().max()
            torch.testing.assert_close(radii[k], want, rtol=0.02, atol=1e-12)
            if name != "z_fuse" and present is not None and not present[k, at]:
                assert radii[k] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"tol": -1.0}, "tol must be at least 0 and below inf, got"),
        ({"solver": "newton"}, "unknown solver 'newton'; choose from"),
        ({"present": torch.ones(2, 3).bool()}, r"present must have shape \(2, 2\)"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(options, message):
    fusion, _ = make("default", WIDTHS[:2])
    with pytest.raises(ValueError, match=message):
        trace(fusion, make_features(fusion.input_dims), **options)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("analysis", [trace, spectral_radii])
def test_the_fusion_stays_as_it_was_whatever_happens(training, analysis):
    options = {"dropout": 0.5, "jacobian_weight": 1.0, "jacobian_every": 2}
    fusion, reference = make("default", WIDTHS[:2], **options, **EXACT)
    features = make_features(fusion.input_dims)
    with torch.enable_grad():
        for _ in range(2):
            fusion(features)
    fusion.train(training)
    info, penalty, equilibrium = fusion.info, fusion.auxiliary_loss, fusion.equilibrium
    before = {name: value.clone() for name, value in fusion.state_dict().items()}
    steps, residual = info.steps, info.residual
    assert penalty > 0 and fusion.training_forwards == 2

    found = analysis(fusion, features)
    with pytest.raises(ValueError, match="holds NaN"):
        analysis(fusion, [features[0], features[1] * torch.nan])
    assert fusion.info is info and fusion.auxiliary_loss is penalty
    assert info.steps.equal(steps) and info.residual.equal(residual) and len(info.forward) == 3
    assert fusion.equilibrium is equilibrium
    assert all(module.training is training for module in fusion.modules())
    assert all(value.equal(before[name]) for name, value in fusion.state_dict().items())
    assert all(parameter.grad is None for parameter in fusion.parameters())
    fusion.eval()  # the numbers are those without dropout, and carry no gradient
    for name, got in analysis(fusion, features).items():
        got, other = (x.residual if analysis is trace else x for x in (got, found[name]))
        torch.testing.assert_close(got, other, rtol=0.1, atol=1e-12, equal_nan=True)
        assert not got.requires_grad


def test_an_exception_within_a_solve_leaves_the_mode():
    fusion, _ = make("paper", WIDTHS[:2], f_fuse=False, cell="one_layer")
    with torch.no_grad():
        fusion.unimodal.weight2.fill_(1e308)
    fusion.train()
    with pytest.raises(FloatingPointError, match="iterates must stay finite"):
        trace(fusion, make_features(fusion.input_dims))
    assert fusion.training


def test_a_fusion_solves_with_other_settings_and_then_with_its_own():
    fusion, reference = make("default", WIDTHS[:2], **LARGE)
    features, before = make_features(fusion.input_dims), fusion.equilibrium
    exact = reference.fixed_point(features)[:, -1]
    errors, own = {}, fusion(features)
    for tol in (1e-10, 0.5):
        with solved_with(fusion, tol=tol, max_steps=300) as same:
            errors[tol] = (fusion(features) - exact).norm() / exact.norm()
            assert same is fusion and fusion.info.converged.all()
    assert errors[1e-10] < 1e-8 and errors[0.5] > 1e-3
    with solved_with(fusion, joint=True, solver="broyden"):
        with solved_with(fusion, tol=0.2):
            assert fusion.joint and fusion.equilibrium.solver == "broyden"
            fusion(features)
        assert list(fusion.info.forward) == ["joint"]
    assert fusion.equilibrium is before and not fusion.joint
    torch.testing.assert_close(fusion(features), own, rtol=0, atol=0)


def test_a_fusion_solves_with_its_own_settings_again_after_exceptions():
    fusion, _ = make("default", WIDTHS[:2])
    before = fusion.equilibrium
    with pytest.raises(KeyError), solved_with(fusion, joint=True, tol=0.2):
        raise KeyError
    for settings, error, message in (
        ({"tolerance": 1e-3}, TypeError, "tolerance"),
        ({"solver": "newton"}, ValueError, "unknown solver 'newton'; choose from"),
        ({"tol": -1.0}, ValueError, "tol must be at least 0 and below inf, got"),
    ):
        with pytest.raises(error, match=message), solved_with(fusion, joint=True, **settings):
            pass
    assert fusion.equilibrium is before and not fusion.joint


def test_a_solve_that_zero_ends_has_no_steps():
    fusion, _ = make("default", WIDTHS[:2])
    features = make_features(WIDTHS[:2], 3)
    for joint in (True, False):
        for found in trace(fusion, features, tol=1.0, joint=joint).values():
            assert len(found.residual) == len(found.difference) == 0 and found.gates is None


@pytest.mark.parametrize("part", ["f_theta", "f_fuse"])
def test_a_fusion_of_one_block_has_nothing_to_solve_jointly(part):
    torch.manual_seed(0)
    fusion = DEQFusion([8, 8], 8, **arguments(**{part: False}))
    features = [torch.randn(3, 8), torch.randn(3, 8)]
    expected = fusion(features)
    with solved_with(fusion, joint=True):
        torch.testing.assert_close(fusion(features), expected)


def test_a_fusion_that_solves_nothing_takes_no_settings():
    with pytest.raises(ValueError, match="must solve for its equilibrium.*3 steps"):
        with solved_with(DEQFusion([4], 4, unroll=3), tol=0.1):
            pass


def test_every_part_gets_its_own_mode_back():
    fusion = DEQFusion([8, 8], 8)
    fusion.unimodal.eval()
    trace(fusion, [torch.randn(3, 8), torch.randn(3, 8)], steps=2)
    assert fusion.training and fusion.fuse.training and not fusion.unimodal.training


def test_a_sample_that_does_not_converge_has_no_radius():
    fusion, _ = make("paper", WIDTHS[:2])
    features = make_features(WIDTHS[:2], 4)
    allowed = {"tol": 1e-6, "max_steps": 4}
    radii = spectral_radii(fusion, features, **allowed)
    with solved_with(fusion, on_failure="ignore", **allowed):
        fusion.eval()(features)
    arrived = torch.cat([stats.converged for stats in fusion.info.forward.values()])
    assert 0 < arrived.sum() < len(arrived)  # some do, some do not
    torch.testing.assert_close(torch.cat(list(radii.values())).isfinite(), arrived, rtol=0, atol=0)
