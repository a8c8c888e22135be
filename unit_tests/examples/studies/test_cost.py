"""The benchmark measures what it says, on problems too small to time."""

import pytest
import torch

from deq_fusion.examples.studies.cost import __main__ as bench
from deq_fusion.examples.studies.cost.counts import counted, product_ms
from deq_fusion.examples.studies.cost.measure import memory, options
from deq_fusion.examples.studies.cost.rows import (
    METHODS,
    OPTIONS,
    PROBLEMS,
    RECURRENT,
    Case,
    deq,
    recurrent,
)
from deq_fusion.examples.studies.cost.timing import Settings, interleaved
from deq_fusion.examples.studies.tables import read_tables

CASE = Case(12, 2, 16)
PATHS = "deq_fusion.examples.studies.cost.measure."


def gradient(method, case=CASE):
    """What the method returns, and all gradients in one vector."""
    features, module = case.features(), method.module
    fused = module(features)
    wanted = [*module.parameters(), *features]
    grads = torch.autograd.grad(fused, wanted, case.cotangent())
    return fused.detach(), torch.cat([g.flatten() for g in grads])


def test_torchdeq_solves_the_same_problem():
    pytest.importorskip("torchdeq")
    method = METHODS["torchdeq, joint"](CASE)
    fused, grads = gradient(method)
    expected, wanted = gradient(deq(CASE, tol=1e-6))
    assert (fused - expected).norm() <= 5e-3 * expected.norm()
    assert (grads - wanted).norm() <= 5e-2 * wanted.norm()
    assert method.solved()["converged"] == 1 and method.solved()["steps"] > 2


def test_the_unrolled_map_takes_as_many_steps_as_the_solve():
    method, solved = METHODS["unrolled"](CASE), deq(CASE)
    solved.infer(CASE.features())
    assert method.module.unroll == int(solved.module.info.steps.max())
    assert method.solved() == {}


def test_a_training_step_leaves_no_gradients_and_takes_the_penalty(monkeypatch):
    features, norms = CASE.features(), {}
    for weight in (0.0, 5.0):
        method = deq(CASE, jacobian_weight=weight)
        kept = method.module.zero_grad
        monkeypatch.setattr(method.module, "zero_grad", lambda set_to_none: None)
        method.train(features, CASE.cotangent())
        norms[weight] = method.module.unimodal.weight1.grad.norm()
        kept()
        assert all(x.grad is None for x in features)
    assert abs(norms[5.0] - norms[0.0]) > 1e-2 * norms[0.0]


def test_operations_and_transfers_are_counted_forward_and_backward():
    x = torch.randn(3, 3, requires_grad=True)
    y = x.detach()  # which some versions of torch count twice
    assert counted(lambda: y * 2 + y) == (2, 0)
    forward, _ = counted(lambda: (x @ x).sum())
    both, transfers = counted(lambda: (x @ x).sum().backward())
    assert both > forward and transfers == 0
    for step in (
        lambda: float(y[0, 0]),
        lambda: y.nonzero(),
        lambda: y[y > 0],
        lambda: y.masked_select(y > 0),
        lambda: y.equal(y),
        lambda: y.to("meta"),
        lambda: y.clone().index_put_((y > 0,), torch.zeros(())),
    ):
        assert counted(step)[1] == 1
    assert counted(lambda: (y.to(torch.float16), y[torch.tensor([0, 2])]))[1] == 0


def test_sequences_are_fused_step_by_step_to_one_vector():
    case = Case(6, 2, 16, time=3)
    assert [x.shape for x in case.features()] == [(6, 3, 16)] * 2
    for name in RECURRENT:
        method = recurrent(case, name)
        fused, gradients = gradient(method, case)
        assert fused.shape == (6, 16) and gradients.isfinite().all()
        early = case.features()
        early[0].data[:, 0] += 1  # the first step alone
        assert not torch.allclose(method.module(early), fused)


def test_the_time_of_products_is_part_of_a_step_and_nothing_else():
    x, y = torch.randn(300, 300), torch.randn(300, 300)
    assert product_ms(lambda: x + y, "cpu") == 0
    alone = interleaved({"product": lambda: x @ y}, seconds=0.2, most=10, device="cpu")["product"]
    assert 0.2 * alone < product_ms(lambda: (x @ y).exp_(), "cpu") / 1e3 < 5 * alone


@pytest.mark.slow
def test_memory_does_not_depend_on_the_step_limit(monkeypatch):
    monkeypatch.setattr(PATHS + "MEMORY_CASE", Case(256, 2, 64))
    for group in memory(Settings(), limits=(30, 60)):
        first, second = (row["states"] for row in group)
        assert first == pytest.approx(second, rel=0.02)


def test_errors_are_those_of_gradients_and_hard_problems_are_hard(monkeypatch):
    (_, given), _, (_, hard), _ = PROBLEMS.values()
    monkeypatch.setattr(PATHS + "PROBLEMS", {"easy": (CASE, given), "hard": (CASE, hard)})
    easy, hard = (
        {row["method"]: row for row in group} for group in options(Settings(seconds=0, most=1))
    )
    assert easy["default"]["error"] < 0.02 < easy["one step"]["error"] < 0.5
    assert easy["Neumann, 5 terms"]["error"] < easy["Neumann, 2 terms"]["error"]
    assert "error" not in easy["penalty"] and easy.keys() == OPTIONS.keys()
    assert easy["default"]["converged"] == 1
    assert hard["default"]["steps"] > 2 * easy["default"]["steps"]


@pytest.mark.slow
def test_everything_is_measured_and_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(PATHS + "BASE", Case(6, 2, 16))
    monkeypatch.setattr(PATHS + "PROBLEMS", {"small": (CASE, {})})
    monkeypatch.setattr(PATHS + "MEMORY_CASE", Case(8, 2, 16))
    few = {name: OPTIONS[name] for name in ("default", "Broyden", "one step", "penalty")}
    monkeypatch.setattr(PATHS + "OPTIONS", few)
    sweeps = {"modalities": (1, 2), "dim": (16, 32), "batch": (4, 8), "tol": (1e-1, 1e-2)}
    monkeypatch.setattr(PATHS + "SWEEPS", sweeps)
    methods = {name: make for name, make in METHODS.items() if "torchdeq" not in name}
    monkeypatch.setattr(PATHS + "METHODS", methods)  # torchdeq has a test of its own
    monkeypatch.setattr(PATHS + "SEQUENCES", [Case(6, 2, 16, time=3)])
    path = tmp_path / "new"
    bench.main(["--shapes", "6,2,16", "--seconds", "0", "--most", "1", "--output", str(path)])
    text = (path / "cost.md").read_text()
    assert text in capsys.readouterr().out
    for name in [*methods, *few, *sweeps, *RECURRENT]:
        assert f"| {name} " in text
    assert len(read_tables(path / "tables.json")[1]) == 9 and "arithmetic" in text
    assert sorted(p.stem for p in path.glob("*.png")) == ["cases", "memory", "sweeps"]


def test_without_torchdeq_the_rest_is_measured(monkeypatch, tmp_path):
    less = {name: make for name, make in METHODS.items() if "torchdeq" not in name}
    monkeypatch.setattr(PATHS + "METHODS", less)
    monkeypatch.setattr(PATHS + "product_ms", lambda *_: 0.0)
    monkeypatch.setattr(PATHS + "peak_bytes", lambda *_: 0)
    path = tmp_path
    arguments = ["--parts", "cases", "--shapes", "6,2,16", "--seconds", "0", "--most", "1"]
    bench.main([*arguments, "--output", str(path)])
    assert "torchdeq, joint" not in (path / "cost.md").read_text()
    assert list(read_tables(path / "tables.json")[1]) == ["cases", "ratios"]
    assert (path / "cases.png").stat().st_size > 0


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
