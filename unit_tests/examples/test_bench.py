"""The benchmark measures what it says, on problems too small to time."""

import pytest
import torch

from examples.bench import __main__ as bench
from examples.bench.methods import METHODS, Case, deq
from examples.bench.methods import bare as bare_method
from examples.bench.parts import Settings, memory
from examples.bench.prototype import Prototype

CASE = Case(12, 2, 16)


def gradient(method, case=CASE):
    """What the method returns, and all gradients in one vector."""
    features, module = case.features(), method.module
    module.zero_grad()
    with method.around():
        fused = module(features)
        fused.backward(case.cotangent())
    grads = [p.grad.flatten() for p in module.parameters()]
    return fused.detach(), torch.cat([*grads, *(x.grad.flatten() for x in features)])


@pytest.mark.parametrize("method", ["plain engine", "torchdeq, joint"])
def test_solvers_are_compared_on_the_same_problem(method):
    if "torchdeq" in method:
        pytest.importorskip("torchdeq")
    fused, grads = gradient(METHODS[method](CASE))
    expected, wanted = gradient(deq(CASE, tol=1e-6))
    assert (fused - expected).norm() <= 5e-3 * expected.norm()
    assert (grads - wanted).norm() <= 5e-2 * wanted.norm()


def test_bare_evaluations_are_as_many_as_the_solver_spent(monkeypatch):
    from fusions.equilibrium.fast import Traced

    counts, call = [], Traced.__call__

    def counted(self, z):
        counts.append(len(z))
        return call(self, z)

    monkeypatch.setattr(Traced, "__call__", counted)
    gradient(deq(CASE))
    solved = list(counts)
    method = bare_method(CASE)
    counts.clear()
    gradient(method)
    assert counts == solved and len(counts) > 4


def test_the_prototype_finds_its_fixed_points_and_their_gradient():
    torch.manual_seed(0)
    prototype = Prototype(2, 32, tol=1e-12, share=0.1).double()
    features = [torch.randn(3, 32, dtype=torch.float64).requires_grad_() for _ in range(2)]
    fused = prototype(features)

    def unrolled(steps=300):
        states = []
        for i, x in enumerate(features):
            z = torch.zeros_like(x)
            for _ in range(steps):
                z = prototype._cell(i, z, x)
            states.append(z)
        z, x_fuse = torch.zeros_like(states[0]), sum(features)
        context = sum(states) @ prototype.gate.weight.T
        for _ in range(steps):
            z = prototype._fused(z, x_fuse, context)
        return z

    expected, cotangent = unrolled(), torch.randn_like(fused)
    torch.testing.assert_close(fused, expected, rtol=1e-6, atol=1e-6)
    wanted = [*features, *prototype.cells.parameters(), prototype.gate.weight]
    pairs = zip(
        torch.autograd.grad(fused, wanted, cotangent),
        torch.autograd.grad(expected, wanted, cotangent),
        strict=True,
    )
    for ours, theirs in pairs:
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-8


def test_memory_does_not_depend_on_the_step_limit(monkeypatch):
    monkeypatch.setattr("examples.bench.parts.BLOCK", (2, 256, 256))
    states = [row["states"] for row in memory(Settings(), limits=(30, 60))]
    assert states[0] == pytest.approx(states[1], rel=0.02)
    assert states[2] == pytest.approx(states[3], rel=0.02)
    assert max(states[:4]) < 2 * 6 + 14  # the pairs and differences of Anderson, and a product


def test_everything_is_measured_and_written(monkeypatch, tmp_path, capsys):
    pytest.importorskip("torchdeq")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("examples.bench.parts.BASE", (6, 2, 16))
    monkeypatch.setattr("examples.bench.parts.BLOCK", (2, 8, 16))
    monkeypatch.setattr(
        "examples.bench.parts.SWEEPS",
        {"modalities": (1, 2), "dim": (16, 32), "batch": (4, 8), "tol": (1e-1, 1e-2)},
    )
    monkeypatch.setattr("examples.bench.ideas.IDEAS_ON", (("x", CASE, {"equations": "paper"}),))
    arguments = ["--shapes", "6,2,16", "--seconds", "0", "--most", "1", "--threads", "1"]
    bench.main([*arguments, "--output", str(tmp_path)])
    text = (tmp_path / "bench.md").read_text()
    assert text in capsys.readouterr().out
    for method in METHODS:
        assert f"| {method} |" in text
    assert text.count("\n## ") == 5
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert (tmp_path / "bench.csv").read_text().count("\n") > 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "cases,prices"], "unknown part 'prices'; choose from"),
        (["--shapes", "128,2"], "a shape must be three numbers like 128,2,512, got '128,2'"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert message in capsys.readouterr().err
