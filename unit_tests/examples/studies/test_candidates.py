"""The candidates against their formulas, written with one modality and one line at a time."""

import importlib

import pytest
import torch
import torch.nn.functional as F

from deq_fusion.examples.studies.candidates import CANDIDATES, Reversible
from deq_fusion.examples.studies.candidates.depth import STEPS
from deq_fusion.examples.studies.candidates.gated_by_others import STRENGTH
from deq_fusion.examples.studies.candidates.modality_dropout import kept
from deq_fusion.examples.studies.candidates.reversible import reversible
from deq_fusion.training_structures.comparison.sized import sized
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    GROUPS,
    VARIANTS,
    WIDTHS,
    Reference,
    make_features,
)

WIDTHS = WIDTHS[:3]
DEPTHS = {"solved": 0, "unrolled": 1, "shallow": 2}
PRESENT = torch.tensor([[True, True, True], [True, False, True]])


def made(name, depth, **options):
    """A candidate in float64, every parameter away from its start, and the equations' reference."""
    options = {"groups": GROUPS, "start": 0.03, **EXACT, **options}
    fusion, width = sized(CANDIDATES[name][DEPTHS[depth]](WIDTHS, DIM, **options), DIM)
    fusion.double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            spread = parameter.std(unbiased=False).item() or 1.0
            parameter += 0.2 * spread * torch.randn_like(parameter)
    reference = Reference(fusion.deq, VARIANTS["default"]) if name != "contractive" else None
    return fusion, reference, width


def given(present):
    """Features, and those of the reference: one sample, the last, with None where absent."""
    features = [x.detach() for x in make_features(WIDTHS)]
    if present is None:
        return features, features
    return features, [x[1:] if here else None for x, here in zip(features, present[1], strict=True)]


def injected(reference, features):
    """The state that has what is injected in place of the states."""
    y = reference.projected(features)
    zero = torch.zeros(len(features[0]), DIM, dtype=torch.float64)
    x = [zero if y_i is None else reference.scaled(y_i) for y_i in y]
    return torch.stack([*x, reference.x_fuse(y)], 1)


def z_of(reference, features, depth):
    if depth == "solved":
        return reference.fixed_point(features)[:, -1]
    if depth == "unrolled":
        return reference.unrolled(STEPS, features)
    return reference.step(injected(reference, features), features)[:, -1]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("present", [None, PRESENT], ids=["all", "absent"])
class TestFormulas:
    def test_plain(self, depth, present):
        fusion, reference, _ = made("plain", depth)
        features, own = given(present)
        expected = z_of(reference, own, depth)
        got = fusion(features, present=present)[-len(expected) :]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)

    def test_added_to_sum(self, depth, present):
        fusion, reference, _ = made("added_to_sum", depth)
        features, own = given(present)
        y = reference.projected(own)
        s = sum(fusion.deq.weights[i] * y[i] for i in range(3) if y[i] is not None)
        expected = s + fusion.gamma * z_of(reference, own, depth)
        got = fusion(features, present=present)[-len(expected) :]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)

    def test_beside_features(self, depth, present):
        fusion, reference, width = made("beside_features", depth)
        assert width == sum(WIDTHS) + DIM
        features, own = given(present)
        z = z_of(reference, own, depth)
        pairs = zip(own, WIDTHS, strict=True)
        parts = [z.new_zeros(len(z), width) if x is None else x for x, width in pairs]
        got = fusion(features, present=present)[-len(z) :]
        torch.testing.assert_close(got, torch.cat([*parts, z], 1), rtol=1e-9, atol=1e-9)

    def test_gated_by_others(self, depth, present):
        fusion, reference, _ = made("gated_by_others", depth)
        features, own = given(present)
        state = {
            "solved": lambda: reference.fixed_point(own),
            "unrolled": lambda: unrolled_states(reference, own),
            "shallow": lambda: reference.step(injected(reference, own), own),
        }[depth]()
        states = [None if x is None else state[:, i] for i, x in enumerate(own)]
        x_fuse = reference.x_fuse(reference.projected(own))
        z = x_fuse if depth == "shallow" else torch.zeros_like(x_fuse)
        for _ in range({"solved": 200, "unrolled": STEPS, "shallow": 1}[depth]):
            z = by_others(fusion, reference, z, states, x_fuse)
        got = fusion(features, present=present)[-len(z) :]
        torch.testing.assert_close(got, z, rtol=1e-9, atol=1e-9)

    def test_in_evaluation_nothing_is_hidden(self, depth, present):
        fusion, reference, _ = made("modality_dropout", depth, probability=0.9)
        features, own = given(present)
        expected = z_of(reference, own, depth)
        got = fusion.eval()(features, present=present)[-len(expected) :]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)

    def test_reversible(self, depth, present):
        fusion, reference, _ = made("reversible", depth)
        features, own = given(present)
        if depth == "solved":
            y = z = reference.start(own)
            for _ in range(fusion.steps):
                y = 0.5 * y + 0.5 * reference.step(z, own)
                z = 0.5 * z + 0.5 * reference.step(y, own)
            expected = z[:, -1]
        else:
            expected = z_of(reference, own, depth)
        got = fusion(features, present=present)[-len(expected) :]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def unrolled_states(reference, features):
    state = reference.start(features)
    for _ in range(STEPS):
        state = reference.step(state, features)
    return state


def by_others(fusion, reference, z, states, x_fuse):
    """GN(ReLU(V s + v + x_fuse)), the gate on each modality by the sum of the others."""
    cell, n = fusion.deq.fuse, len(states)
    there = [z_i for z_i in states if z_i is not None]
    s = torch.zeros_like(z)
    for i, z_i in enumerate(there):
        others = sum((z_k for k, z_k in enumerate(there) if k != i), torch.zeros_like(z))
        w = cell.gate_weight
        s = s + (others @ w.T + z @ w.T + cell.gate_bias) * z_i + z_i
    scale = STRENGTH / (n * (1 + n / 2)) ** 0.5
    update = F.linear(s, scale * cell.weight, cell.bias) + x_fuse
    return reference.norm(F.relu(update), cell.norm_weight, cell.norm_bias)


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_parameter_learns_at_every_depth(name, depth):
    """None is there for nothing, but those that zero erases where steps begin there."""
    fusion, _, _ = made(name, depth)
    fusion.train()
    fused = fusion([x.detach() for x in make_features(WIDTHS)])
    (fused * torch.randn_like(fused)).sum().backward()
    idle = [key for key, p in fusion.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == [] and fused.isfinite().all()


@pytest.mark.parametrize("name", CANDIDATES)
def test_controls_have_the_parameters_of_the_candidate(name):
    shapes = [
        {key: p.shape for key, p in made(name, depth)[0].named_parameters()} for depth in DEPTHS
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", ["added_to_sum", "gated_by_others", "contractive"])
def test_gradients_are_those_of_the_fixed_point(name):
    fusion, _, _ = made(name, "solved")
    features = make_features(WIDTHS, batch=1)
    direction = torch.randn(1, DIM, dtype=torch.float64)
    parameters = dict(fusion.named_parameters())
    loss = (fusion(features) * direction).sum()
    loss.backward()
    for leaf in [*features, *parameters.values()]:
        along = torch.randn_like(leaf)
        shifted = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf += sign * 1e-6 * along
                shifted.append((fusion(features) * direction).sum())
                leaf -= sign * 1e-6 * along
        slope = (shifted[0] - shifted[1]) / 2e-6
        torch.testing.assert_close((leaf.grad * along).sum(), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gated_by_others", "contractive"])
def test_leading_dimensions_are_kept_and_solves_recorded(name):
    fusion, _, _ = made(name, "solved")
    features = [x.detach().view(2, 3, -1) for x in make_features(WIDTHS, batch=6)]
    fused = fusion(features)
    assert fused.shape == (2, 3, DIM) and fusion.info.steps.shape == (2, 3, 4)
    assert fusion.info.converged.all()
    one = fusion([x[1, 2:] for x in features])
    torch.testing.assert_close(fused[1, 2:], one, rtol=1e-9, atol=1e-9)
    assert made(name, "shallow")[0].info is None


class TestModalityDropout:
    def test_hides_with_its_probability_and_leaves_one(self):
        present = torch.ones(20_000, 3, dtype=torch.bool)
        left = kept(present, 0.4)
        counts = torch.bincount(left.sum(1), minlength=4) / len(left)
        p, q = 0.4, 0.6  # none left has become one left
        expected = torch.tensor([0, 3 * q * p**2 + p**3, 3 * q**2 * p, q**3])
        torch.testing.assert_close(counts, expected, atol=0.02, rtol=0)
        shares = left.float().mean(0)
        torch.testing.assert_close(shares, torch.full((3,), q + p**3 / 3), atol=0.02, rtol=0)

    def test_what_is_absent_stays_so_and_the_only_one_is_kept(self):
        present = torch.tensor([[True, False, True], [False, True, False]]).repeat(500, 1)
        left = kept(present, 0.9)
        assert not (left & ~present).any() and left.any(1).all()

    def test_training_fuses_what_is_left(self):
        fusion, _, _ = made("modality_dropout", "solved", probability=0.5)
        features = [x.detach() for x in make_features(WIDTHS, batch=20)]
        torch.manual_seed(5)
        fused = fusion.train()(features)
        torch.manual_seed(5)
        left = kept(torch.ones(20, 3, dtype=torch.bool), 0.5)
        assert not left.all()
        torch.testing.assert_close(fused, fusion.deq(features, present=left))


class TestReversible:
    @pytest.fixture
    def parts(self):
        weight = torch.randn(4, 4, dtype=torch.float64).requires_grad_()
        x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

        def f(z, x, none, weight):
            return torch.tanh(z @ weight.T + x)

        return f, torch.zeros(3, 4, dtype=torch.float64), (x, None, weight)

    def test_its_gradient_is_that_of_the_steps_recorded(self, parts):
        f, start, inputs = parts
        u = torch.randn(3, 4, dtype=torch.float64)
        y = z = start
        for _ in range(9):
            y = 0.3 * y + 0.7 * f(z, *inputs)
            z = 0.3 * z + 0.7 * f(y, *inputs)
        got = reversible(f, start, inputs, steps=9, damping=0.7)
        torch.testing.assert_close(got, z)
        leaves = [inputs[0], inputs[2]]
        expected = torch.autograd.grad(z, leaves, u)
        found = torch.autograd.grad(got, leaves, u)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)

    def test_more_steps_keep_no_more(self, parts):
        f, start, inputs = parts
        kept_sizes = []
        for steps in (1, 20):
            saved = []
            with torch.autograd.graph.saved_tensors_hooks(
                lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x
            ):
                reversible(f, start, inputs, steps=steps, damping=0.5)
            kept_sizes.append(saved)
        assert kept_sizes[0] == kept_sizes[1] and sum(kept_sizes[0]) > 0

    def test_many_steps_end_at_the_equilibrium(self):
        fusion, reference, _ = made("reversible", "solved", steps=60)
        features, own = given(None)
        expected = reference.fixed_point(own)[:, -1]
        torch.testing.assert_close(fusion(features), expected, rtol=1e-9, atol=1e-9)

    def test_float32_takes_its_steps_back_precisely(self):
        fusion, _, _ = made("reversible", "solved", damping=0.8)
        features = [x.detach() for x in make_features(WIDTHS)]
        direction = torch.randn(2, DIM, dtype=torch.float64)

        def gradients(dtype):
            fusion.to(dtype)
            out = (fusion([x.to(dtype) for x in features]) * direction.to(dtype)).sum()
            return torch.autograd.grad(out, list(fusion.parameters()), materialize_grads=True)

        exact = torch.cat([g.flatten() for g in gradients(torch.float64)])
        single = torch.cat([g.flatten().double() for g in gradients(torch.float32)])
        assert (single - exact).norm() < 1e-4 * exact.norm()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"steps": 0}, "steps must be an integer of at least 1"),
            ({"damping": 0}, "damping must be above 0"),
            ({"damping": 1}, "damping must be below 1: a step with 1 cannot be taken back"),
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            Reversible([4, 4], 8, **options)


def test_a_command_line_finds_them_by_name():
    module = importlib.import_module("deq_fusion.examples.studies.candidates")
    for kinds in CANDIDATES.values():
        for kind in kinds:
            assert getattr(module, kind.__name__) is kind and kind.__doc__
