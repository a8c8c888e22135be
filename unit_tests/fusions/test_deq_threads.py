"""What a forward leaves behind is one object: whoever reads it sees that forward as a whole."""

import copy
import io
import pickle
import threading

import pytest
import torch

from deq_fusion.fusions.deq import DEQFusion, Outcome
from deq_fusion.fusions.equilibrium import ConvergenceWarning


def test_who_reads_the_record_during_another_forward_sees_a_whole_one():
    fusion = DEQFusion([5, 7], 16, groups=2)
    sizes = (3, 4)
    features = {n: [torch.randn(n, 5), torch.randn(n, 7)] for n in sizes}
    stop, seen, failures = threading.Event(), [], []

    def work(n):
        while not stop.is_set():
            fused = fusion(features[n])
            fused.sum().backward()

    def read():
        while len(seen) < 200 and not failures:
            record = fusion.info
            if record is None:
                continue
            try:
                steps, converged, residual = record.steps, record.converged, record.residual
                assert list(record.forward) == ["z_1", "z_2", "z_fuse"]
                assert steps.shape == converged.shape == residual.shape == (len(steps), 3)
                assert len(steps) in sizes and converged.all() and (steps > 0).all()
                summary = record.summary()
                assert summary["converged"] == 1 and set(record.backward) <= set(record.forward)
                seen.append(len(steps))
            except Exception as error:  # of whichever kind the race brings about
                failures.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in sizes]
    reader = threading.Thread(target=read)
    for thread in (*workers, reader):
        thread.start()
    reader.join()
    stop.set()
    for thread in workers:
        thread.join()
    assert not failures and seen


def test_the_record_and_the_penalty_are_of_one_forward():
    fusion = DEQFusion([5], 8, jacobian_weight=1.0)
    assert fusion.info is None and fusion.auxiliary_loss == 0
    fusion([torch.randn(2, 5)])
    record, penalty, _ = fusion._last
    assert fusion.info is record and fusion.auxiliary_loss is penalty and penalty > 0
    with torch.no_grad():
        fusion([torch.randn(2, 5)])
    assert fusion.auxiliary_loss == 0 and fusion.info is not record


def test_a_file_from_before_reads_as_new():
    fusion = DEQFusion([5], 8)
    state = fusion.__getstate__()
    del state["_last"]
    old = DEQFusion.__new__(DEQFusion)
    old.__setstate__({**state, "info": None, "_penalty": None})
    x = [torch.randn(2, 5)]
    assert old.info is None and old.auxiliary_loss == 0 and old(x).equal(fusion(x))


def test_no_copy_holds_anything_of_a_sample():
    fusion = DEQFusion([50], 16, groups=2, jacobian_weight=1.0, on_failure="ignore")
    bare = len(pickle.dumps(fusion))
    x = torch.randn(4000, 50, requires_grad=True)
    fused = fusion([x])
    (fused.sum() + fusion.auxiliary_loss).backward()
    for p in fusion.parameters():
        p.grad = None
    assert len(pickle.dumps(fusion)) == bare
    buffer = io.BytesIO()
    torch.save(fusion, buffer)
    assert buffer.tell() < 100_000
    assert copy.deepcopy(fusion)._last == copy.copy(fusion)._last == Outcome()


def test_a_record_of_what_failed_is_there_when_an_error_was_asked_for():
    fusion = DEQFusion([5, 7], 16, groups=2, tol=1e-12, max_steps=2, on_failure="raise")
    with pytest.raises(RuntimeError, match="must reach tol=1e-12"):
        fusion([torch.randn(3, 5), torch.randn(3, 7)])
    assert list(fusion.info.forward) == ["z_1", "z_2"] and not fusion.info.converged.any()


@pytest.mark.parametrize("options", [{}, {"joint": True}], ids=str)
def test_a_cotangent_with_nothing_to_solve_for_counts_no_steps(options):
    fusion = DEQFusion([5, 7], 16, groups=2, **options)
    x = [torch.randn(4, 5, requires_grad=True), torch.randn(4, 7, requires_grad=True)]
    fused = fusion(x)
    cotangent = torch.randn_like(fused)
    cotangent[1], cotangent[2, 3] = 0, float("inf")
    grads = torch.autograd.grad(fused, x, cotangent)
    assert not grads[0][2].isfinite().all() and grads[0][[0, 1, 3]].isfinite().all()
    stats = fusion.info.backward["joint" if options else "z_fuse"]
    assert (stats.steps > 0).tolist() == [True, False, False, True]
    assert fusion.info.summary()["backward_steps"] == pytest.approx(
        torch.cat([s.steps[s.steps > 0] for s in fusion.info.backward.values()]).float().mean()
    )


def test_only_what_was_solved_is_recorded():
    x = [torch.randn(3, 5)]
    unrolled = DEQFusion([5], 8, unroll=2)
    unrolled(x)
    assert unrolled.info is None
    for gradient in ("one_step", "neumann"):
        fusion = DEQFusion([5], 8, gradient=gradient)
        fusion(x).sum().backward()
        assert fusion.info.backward == {} and "backward_steps" not in fusion.info.summary()
    with pytest.warns(ConvergenceWarning):
        short = DEQFusion([5], 16, groups=2, max_steps=1, tol=1e-9)
        fused = short(x)
    assert (short.info.steps == 1).all() and not short.info.converged.any()
    assert (short.info.residual > 1e-9).all() and fused.isfinite().all()
