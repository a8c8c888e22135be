"""The study of the untrained solver tells what the solves did, and what they took."""

import pytest
import torch

from deq_fusion.examples.studies import solver
from deq_fusion.examples.studies.tables import read_tables
from deq_fusion.fusions.deq import DEQFusion


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(solver, "MODALITIES", (2,))
    monkeypatch.setattr(solver, "WIDTHS", (8, 16))
    monkeypatch.setattr(solver, "BATCH", 6)


def test_the_worst_case_is_that_of_the_solves(small):
    found = solver.measure("convergence", ("minus ReLU", "deq_paper"))
    torch.manual_seed(0)
    steps, converged = [], []
    for width in (8, 16):
        options = {"equations": "paper", "on_failure": "ignore"}
        fusion = DEQFusion([width, width], width, **options)
        fused = fusion([-torch.randn(6, width).relu().requires_grad_() for _ in range(2)])
        fused.backward(torch.randn_like(fused))
        steps += [stats.steps.max().item() for stats in fusion.info.forward.values()]
        converged += [
            stats.converged.double().mean().item() for stats in fusion.info.forward.values()
        ]
    assert found["forward_steps"] == max(steps)
    assert found["forward_converged"] == pytest.approx(sum(converged) / len(converged))


def test_tables_and_pictures_are_written(small, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(solver, "measure_memory", lambda limit: {"mib": 100.0 + limit})
    told = solver.main(["--output", str(tmp_path)])
    written = read_tables(tmp_path / "tables.json")[1]
    assert list(written.values()) == list(told.tables)
    memory = written["memory"]
    assert memory.cell("50", "MiB") == 150 and memory.cell("50", "to the first") == 150 / 110
    rows = [(inputs, fusion) for inputs in solver.INPUTS for fusion in ("deq", "deq_paper")]
    assert [row[:2] for row in written["convergence"].rows] == rows
    for name in ("convergence", "memory"):
        assert (tmp_path / f"{name}.png").stat().st_size > 0
    assert f"{told}\n" == (tmp_path / "solver.md").read_text()


def test_shares_are_drawn_up_to_all_of_them_and_steps_up_to_their_limit(small):
    pytest.importorskip("matplotlib")
    rows = solver.rows("convergence")
    numbers = {"forward_steps": 4, "forward_converged": 0.5}
    numbers |= {"backward_steps": 7, "backward_converged": 1.0}
    axes = solver.draw({"convergence": dict.fromkeys(rows, numbers)})["convergence"].axes
    assert [each.get_xlim() for each in axes] == [(0, 40), (0, 40), (0, 100), (0, 100)]
    assert [set(each.lines[0].get_xdata()) for each in axes] == [{4}, {7}, {50}, {100}]
    assert len({each.get_title("left") for each in axes}) == 4


@pytest.mark.slow
def test_the_peak_does_not_grow_with_the_steps():
    first, last = (solver.measure_memory(limit, repeats=1)["mib"] for limit in (20, 60))
    assert 0 < last < 1.3 * first
