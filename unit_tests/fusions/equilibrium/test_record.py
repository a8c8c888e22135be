"""SolveRecord: what solves did, by name and summed up."""

import pytest
import torch

from deq_fusion.fusions.equilibrium import Solution, SolveRecord


def solution(steps, residual):
    residual = torch.tensor(residual)
    return Solution(torch.zeros(len(steps), 1), residual, torch.tensor(steps), residual <= 0.1)


def test_a_record_splits_batched_solves_by_name_and_sums_them_up():
    record = SolveRecord([2])
    ignored = torch.tensor([False, False, False, True])
    record.add("forward", ["a", "b"], solution([3, 4, 5, 1], [0.1, 0.2, 0.0, 0.0]), ignored)
    record.add("forward", ["c"], solution([2, 2], [0.05, 0.05]))
    assert record.steps.tolist() == [[3, 5, 2], [4, 0, 2]]
    assert record.converged.tolist() == [[True, True, True], [False, True, True]]
    summary = record.summary()
    assert repr(record).startswith(f"SolveRecord(steps={summary['steps']:.3g}, converged=")
    assert summary["steps"] == pytest.approx((3 + 4 + 5 + 2 + 2) / 5)  # the ignored does not count
    assert summary["converged"] == pytest.approx(4 / 5)
    assert summary["residual"] == pytest.approx(0.2)
    assert "backward_steps" not in summary
    record.add("backward", ["c"], solution([7, 9], [0.0, 0.0]))
    assert record.summary()["backward_steps"] == pytest.approx(8)


def test_what_had_nothing_to_solve_took_no_steps():
    record = SolveRecord([2])
    given = torch.tensor([True, False])
    record.add("backward", ["a"], solution([3, 1], [0.05, 0.0]), given=given)
    assert record.backward["a"].steps.tolist() == [3, 0]
    assert record.backward["a"].converged.all()
    assert record.summary() == {
        "backward_steps": 3.0,
        "backward_converged": 1.0,
        "backward_residual": pytest.approx(0.05),
    }


def test_statistics_have_the_leading_shape_of_the_samples():
    record = SolveRecord([2, 1])
    record.add("forward", ["a", "b"], solution([3, 4, 5, 6], [0.1, 0.2, 0.3, 0.4]))
    assert record.forward["b"].steps.tolist() == [[5], [6]]
    assert record.steps.tolist() == [[[3, 5]], [[4, 6]]]


def test_a_record_of_no_samples_sums_up_to_nothing():
    record = SolveRecord([0])
    record.add("forward", ["a"], solution([], []))
    assert record.steps.shape == (0, 1) and record.summary() == {}
