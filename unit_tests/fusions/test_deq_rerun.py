"""Tools that run a forward again or on a copy: activation checkpointing, DataParallel."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unit_tests.fusions.deq_host import Host

OPTIONS = {"joint": {"joint": True}, "dropout": {"dropout": 0.3}, "raw": {"equations": "paper"}}
LATE = "use_reentrant=True records no gradients before .* pass use_reentrant=False"
close = torch.testing.assert_close
every_option = pytest.mark.parametrize("options", [{}, *OPTIONS.values()], ids=str)


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 4, requires_grad=True), torch.randn(4, 7, requires_grad=True)


def plain(f: Callable, *args: Tensor) -> Tensor:
    return f(*args)


def again(f: Callable, *args: Tensor) -> Tensor:
    return checkpoint(f, *args, use_reentrant=False)


def reentrant(f: Callable, *args: Tensor) -> Tensor:
    return checkpoint(f, *args, use_reentrant=True)


def trained(host: Host, run: Callable, steps: int = 1) -> dict:
    """What `steps` of training see, with `run` around the model."""
    torch.manual_seed(1)
    optimizer, penalties = torch.optim.SGD(host.parameters(), lr=0.1), []
    for _ in range(steps):
        optimizer.zero_grad()
        x = inputs()
        result = run(host, *x)
        penalty = host.fusion.auxiliary_loss
        ((result * torch.randn_like(result)).sum() + penalty).backward()
        optimizer.step()
        penalties.append(penalty.detach())
    grads = {"x": x[0].grad, "y": x[1].grad} | {k: p.grad for k, p in host.named_parameters()}
    return {"result": result.detach(), "penalties": penalties, "grads": grads}


@every_option
@pytest.mark.parametrize("weight, run", [(0.0, again), (0.0, reentrant), (1.0, again)])
def test_checkpointing_changes_nothing(options, weight, run):
    host = Host(jacobian_weight=weight, **options)
    want, got = (trained(copy.deepcopy(host), r) for r in (plain, run))
    close(got, want)
    assert (want["penalties"][0] > 0) == (weight > 0)


def test_neither_where_only_the_fusion_is_checkpointed_or_nothing_stops_early():
    host = Host(jacobian_weight=1.0, dropout=0.3)

    def fusion_alone(f: Host, x: Tensor, y: Tensor) -> Tensor:
        encoded = f.encoder(x).tanh()
        return f.head(again(lambda *features: f.fusion(features), encoded, y))

    def to_the_end(f: Host, x: Tensor, y: Tensor) -> Tensor:
        with torch.utils.checkpoint.set_checkpoint_early_stop(False):
            return again(f, x, y)

    want = trained(copy.deepcopy(host), plain)
    close(trained(copy.deepcopy(host), fusion_alone), want)
    close(trained(copy.deepcopy(host), to_the_end), want)


def test_a_penalty_taken_now_and_then_keeps_its_turn():
    host = Host(jacobian_weight=1.0, jacobian_every=2)
    want, got = (trained(copy.deepcopy(host), run, steps=5) for run in (plain, again))
    close(got, want)
    assert [bool(p > 0) for p in got["penalties"]] == [False, True, False, True, False]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("run", [again, reentrant])
def test_the_record_is_that_of_the_solves_that_counted(run, early):
    host, x = Host(), inputs()
    with torch.utils.checkpoint.set_checkpoint_early_stop(early):
        result = run(host, *x)
        steps = host.fusion.info.steps
        (result * torch.randn_like(result)).sum().backward()
    info = host.fusion.info
    assert info.steps.equal(steps) and info.converged.all()
    assert list(info.backward) == ["z_fuse", "z_1", "z_2"]


def test_a_penalty_that_comes_after_the_loss_is_warned_of():
    host = Host(jacobian_weight=1.0)
    with pytest.warns(UserWarning, match=LATE) as caught:
        got = trained(host, reentrant)
    assert len(caught) == 1 and got["penalties"][0] == 0

    def with_penalty(f: Host, *x: Tensor) -> tuple[Tensor, Tensor]:
        result = f(*x)
        return result, f.fusion.auxiliary_loss

    torch.manual_seed(1)
    x = inputs()
    with pytest.warns(UserWarning, match=LATE):  # its gradient arrives, its value does not
        result, penalty = reentrant(lambda *x: with_penalty(host, *x), *x)
        penalty.backward()
    assert penalty == 0 and host.fusion.unimodal.weight1.grad.any()


def replicated(network: nn.Module) -> nn.Module:
    """A replica as `torch.nn.parallel.replicate` makes it, whose broadcast wants GPUs."""
    replicas = {m: m._replicate_for_data_parallel() for m in network.modules()}
    for module, replica in replicas.items():
        for name, child in module._modules.items():
            setattr(replica, name, None if child is None else replicas[child])
        for name, parameter in module._parameters.items():
            if parameter is not None:
                setattr(replica, name, parameter * 1)  # no parameter any more, and no leaf
    return replicas[network]


@pytest.mark.parametrize(
    "options", [{}, {"equations": "paper", "max_steps": 300}, {"unroll": 2}], ids=str
)
def test_a_replica_of_data_parallel_learns_and_says_what_it_keeps(options):
    host, x = Host(jacobian_weight=1.0, **options), inputs()
    want = host(*x)
    cotangent = torch.randn_like(want)
    grads = torch.autograd.grad(want, list(host.parameters()), cotangent)
    record, replica = host.fusion.info, replicated(host)
    assert not list(replica.parameters())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        got = [replica(*x) for _ in range(2)][0]
    close(got, want)
    close(torch.autograd.grad(got, list(host.parameters()), cotangent), grads)
    assert host.fusion.info is record
    said = [str(w.message) for w in caught]
    assert len(said) == ("unroll" not in options)  # once
    assert all("use nn.parallel.DistributedDataParallel" in text for text in said)
