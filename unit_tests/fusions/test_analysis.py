"""Traces are those of the written equations, and end where the solve ends.

What is expected is recomputed one sample and one modality at a time: plain iteration from zero,
and for the other solvers the formulas at the iterates that the fusion lets one observe.
"""

import pytest
import torch

from deq_fusion.fusions.analysis import solved_with, spectral_radii, trace
from unit_tests.fusions.deq_reference import DIM, WIDTHS, make, make_features

STEPS, LARGE = 6, {"start": 0.1}  # slow enough that no iterate is at rest
PARTS = [{}, {"gate": False}, {"f_theta": False}, {"f_fuse": False}]
CASES = [*((options, False) for options in PARTS), ({}, True), ({"gate": False}, True)]
PRESENT = torch.tensor([[True, True, True], [False, True, True], [True, False, False]])
joint = pytest.mark.parametrize("joint", [False, True])


def close(got, want, tol=1e-8):
    torch.testing.assert_close(got, want, rtol=tol, atol=1e-4 * tol, equal_nan=True)


class Written:
    """The equations for these features; states are (B, N + 1, d), the fused one last."""

    def __init__(self, reference, features, present=None):
        self.reference, count = reference, len(features[0])
        self.present = torch.ones(count, len(features)).bool() if present is None else present
        self.samples = [
            [x[k : k + 1].detach() if here else None for x, here in zip(features, row, strict=True)]
            for k, row in enumerate(self.present)
        ]
        self.start = torch.cat([reference.start(sample) for sample in self.samples])

    def step(self, states):
        """All states, once."""
        pairs = zip(states.split(1), self.samples, strict=True)
        return torch.cat([self.reference.step(state, sample) for state, sample in pairs])

    def step_of_fused(self, states):
        """z alone, once."""
        states = states.clone()
        for k, sample in enumerate(self.samples):
            z_i = [states[k : k + 1, i] if x is not None else None for i, x in enumerate(sample)]
            x_fuse = self.reference.x_fuse(self.reference.projected(sample))
            states[k, -1] = self.reference.f_fuse(states[k : k + 1, -1], z_i, x_fuse)[0]
        return states

    def residuals(self, states):
        """|F(s) - s| / |F(s)| of whole states, (B,), and of each state on its own, (N + 1, B)."""
        image = self.step(states)
        whole = (image - states).flatten(1).norm(dim=1) / image.flatten(1).norm(dim=1)
        return whole, ((image - states).norm(dim=2) / image.norm(dim=2)).T

    def gates(self, states, new):
        """Means of |alpha_i| over entries, (B, N), of z and z_i, or of z and the new z_i."""
        z_i = self.step(states) if new else states
        means = torch.zeros(self.present.shape, dtype=states.dtype)
        for k, i in self.present.nonzero().tolist():
            means[k, i] = self.reference.alpha(states[k, -1], z_i[k, i]).abs().sum() / DIM
        return means

    def best(self, iterates):
        """For each z_i the iterate of smallest residual; z is zero."""
        found = self.start.clone()
        at = torch.stack([self.residuals(s)[1] for s in iterates]).argmin(0)
        for k, i in self.present.nonzero().tolist():
            found[k, i] = iterates[at[i, k]][k, i]
        return found

    def plain(self, fusion, joint):
        """Iterates 0 to STEPS + 1 of plain iteration, by block."""

        def iterated(step, state):
            states = [state]
            for _ in range(STEPS + 1):
                states.append(step(states[-1]))
            return states

        together = iterated(self.step, self.start)
        if joint:
            return {"joint": together}
        found = {} if fusion.unimodal is None else {"unimodal": together}
        if fusion.fuse is not None:
            found["fuse"] = iterated(self.step_of_fused, self.best(together))
        return found

    def observed(self, fusion, features, present, **settings):
        """Zero and the iterates of a solve with these settings, by block."""
        seen = {}
        settings |= {"tol": 0.0, "max_steps": STEPS + 1, "on_failure": "ignore"}
        with solved_with(fusion, **settings):
            fusion(
                features,
                present=present,
                observe=lambda s: seen.setdefault(s.block, []).append(s.state),
            )
        given = self.step(self.start)  # the z_i where nothing is solved for them
        if "unimodal" in seen:
            solved = [s.transpose(0, 1) for s in seen["unimodal"]]
            seen["unimodal"] = [torch.cat([s, self.start[:, -1:]], 1) for s in solved]
            given = self.best(seen["unimodal"])
        if "fuse" in seen:
            parts = given[:, :-1]
            zero = torch.zeros_like(seen["fuse"][0])
            fused = [zero, *seen["fuse"]]
            seen["fuse"] = [torch.cat([parts, z.unsqueeze(1)], 1) for z in fused]
        return {block: [self.start] * (block != "fuse") + states for block, states in seen.items()}


def changes(states):
    """|z(k+1) - z(k)| / |z(k)|, of all but the last of states (..., d)."""
    pairs = zip(states, states[1:], strict=False)
    return torch.stack([(b - a).norm(dim=-1) / a.norm(dim=-1) for a, b in pairs])


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


TRACED = [
    *(("default", *case, "picard", "some") for case in CASES),
    *(("default", *case, "anderson", "all") for case in CASES),
    *(("default", {}, joint, "broyden", "some") for joint in (False, True)),
    *(("paper", {}, joint, "anderson", "some") for joint in (False, True)),
    ("default", {}, False, "picard", "all"),
]


@pytest.mark.parametrize(("variant", "options", "joint", "solver", "present"), TRACED, ids=str)
def test_traces_are_those_of_the_written_equations(variant, options, joint, solver, present):
    present = {"all": None, "some": PRESENT}[present]
    fusion, reference = make(variant, WIDTHS[:3], **LARGE, **options)
    features = make_features(fusion.input_dims, batch=3)
    written = Written(reference, features, present)
    if solver == "picard":
        iterates = written.plain(fusion, joint)
    else:
        iterates = written.observed(fusion, features, present, solver=solver, joint=joint)
    asked = {"present": present, "joint": joint, "solver": solver, "steps": STEPS}
    traces = trace(fusion, features, **asked)
    assert list(traces) == list(iterates)
    for block, (zero, *states) in iterates.items():  # step 1 is the image of zero
        got, whole = traces[block], block != "unimodal"
        if block == "fuse" and fusion.fuse.gate is False:
            close(states[-1], states[0], 0.0)  # z does not see itself: it is at rest at once
            states = [states[0]] * 2
            close(got.difference, torch.full_like(got.residual, torch.nan))
        elif whole:
            close(got.difference, changes([s[:, -1] for s in states]))
        else:
            close(got.difference, changes([s[:, :-1].transpose(0, 1) for s in states]))
        residuals = [written.residuals(s) for s in states[:-1]]
        if not whole:
            residuals = [each[:-1] for _, each in residuals]
        else:  # without f_theta z is the only state
            residuals = [each[-1] if fusion.unimodal is None else all_ for all_, each in residuals]
        close(got.residual, torch.stack(residuals))
        if whole and fusion.fuse.gate:
            seen = [zero, *states][: len(got.gates)]
            close(got.gates, torch.stack([written.gates(s, new=block == "joint") for s in seen]))
        else:
            assert got.gates is None


def slow_and_fast(**options):
    """A fusion and samples that take different numbers of steps."""
    fusion, _ = make("paper", WIDTHS[:3], tol=1e-6, **LARGE, **options)
    scales = torch.tensor([[0.3], [1.0], [30.0]])
    return fusion, [scales * x for x in make_features(fusion.input_dims, batch=3)]


@joint
@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden"])
def test_a_trace_ends_where_the_solve_ends(joint, solver):
    fusion, features = slow_and_fast(joint=joint, solver=solver)
    fusion(features, observe=lambda step: None)
    assert fusion.info.converged.all()
    solves = {name: stats.steps for name, stats in fusion.info.forward.items()}
    if not joint:
        z_i = torch.stack([solves[f"z_{i}"] for i in (1, 2, 3)])
        solves = {"unimodal": z_i, "fuse": solves["z_fuse"]}
    traces = trace(fusion, features, tol=1e-6)
    assert list(traces) == list(solves)
    for block, steps in solves.items():
        got, rows = traces[block], steps
        assert len(rows.unique()) > 1 and len(got.residual) == len(got.difference) == rows.max()
        row = torch.arange(1, len(got.residual) + 1).view(-1, *[1] * rows.dim())
        torch.testing.assert_close(got.residual.isfinite(), row <= rows, rtol=0, atol=0)
        torch.testing.assert_close(got.difference.isfinite(), row < rows, rtol=0, atol=0)
        if got.gates is not None:
            torch.testing.assert_close(
                got.gates.isfinite(), (row <= rows).unsqueeze(-1).expand(-1, -1, 3), rtol=0, atol=0
            )
        if block != "fuse":  # whose solve is not the one that its residual judges
            torch.testing.assert_close(got.residual <= 1e-6, row == rows, rtol=0, atol=0)


@pytest.mark.parametrize("solver", ["picard", "anderson"])
def test_a_limit_on_the_steps_cuts_a_trace_and_changes_nothing_before(solver):
    fusion, features = slow_and_fast(joint=True, solver=solver)
    whole = trace(fusion, features, tol=1e-6)["joint"]
    longest = len(whole.residual)
    for steps in (1, 3, longest - 1, longest, longest + 1):
        cut = trace(fusion, features, tol=1e-6, steps=steps)["joint"]
        assert len(cut.residual) == min(steps, longest)
        for name in ("residual", "difference", "gates"):
            close(getattr(cut, name), getattr(whole, name)[:steps], 0.0)


@pytest.mark.parametrize("variant", ["default", "paper"])
def test_the_joint_picard_trace_of_an_unrolled_fusion_follows_its_steps(variant):
    fusion, _ = make(variant, WIDTHS[:2], unroll=3, **LARGE)
    features = make_features(fusion.input_dims, batch=3)
    fused = []
    for steps in range(1, STEPS + 2):
        other, _ = make(variant, WIDTHS[:2], unroll=steps, **LARGE)
        other.load_state_dict(fusion.state_dict())
        fused.append(other(features))
    got = trace(fusion, features, joint=True, solver="picard", steps=STEPS)["joint"]
    close(got.difference, changes(fused))


def test_a_fusion_unrolled_on_its_states_has_no_such_map():
    fusion, _ = make("default", WIDTHS[:2], unroll=3, unroll_injection="states")
    fusion.train()
    for analysis in (trace, spectral_radii):
        with pytest.raises(ValueError, match="unroll_injection='states' has none"):
            analysis(fusion, make_features(fusion.input_dims))
    assert fusion.training
