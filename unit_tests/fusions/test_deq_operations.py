"""What a fusion costs beside its arithmetic: operations, transfers, and functions entered."""

import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from deq_fusion import fusions
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import SOLVERS
from deq_fusion.fusions.equilibrium.fusion_map.gated import GatedMap
from deq_fusion.fusions.equilibrium.fusion_map.residual import ResidualMap
from deq_fusion.fusions.equilibrium.maps import Adjoint, normal_residual
from unit_tests.fusions.deq_reference import arguments
from unit_tests.fusions.equilibrium.fusion_map.oracle import bfloat16_products

aten = torch.ops.aten
# Operations that wait for the device whatever they are given; `.item()`, `bool()`, `int()` and
# `float()` of a tensor dispatch the first.
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
}
HIDDEN = ("tolist", "numpy", "__array__")  # methods that dispatch nothing: they are replaced


class Counted(TorchDispatchMode):
    """Counts the operations dispatched and the transfers to the host while it is entered."""

    def __init__(self):
        super().__init__()
        self.operations, self.transfers = Counter(), Counter()
        self._patches = ExitStack()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations[str(function)] += 1
        result = function(*args, **(kwargs or {}))
        if function in WAITING or self._masks(function, args) or self._crosses(args, result):
            self.transfers[str(function)] += 1
        return result

    def _masks(self, function, args):
        """Whether a boolean mask is an index, of which the positions are found first."""
        if function not in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            return False
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])

    def _crosses(self, args, result):
        """Whether the result lies on another device than something that it is made of."""
        if not isinstance(result, torch.Tensor):
            return False
        return any(isinstance(x, torch.Tensor) and x.device != result.device for x in args)

    def __enter__(self):
        for name in HIDDEN:
            self._patches.enter_context(mock.patch.object(torch.Tensor, name, self._hidden(name)))
        return super().__enter__()

    def __exit__(self, *error):
        self._patches.close()
        return super().__exit__(*error)

    def _hidden(self, name):
        method = getattr(torch.Tensor, name)

        def counted(*args, **kwargs):
            self.transfers[name] += 1
            return method(*args, **kwargs)

        return counted


def transferring():
    x = torch.ones(3)
    yield "_local_scalar_dense", lambda: bool(x[0] > 0)
    yield "_local_scalar_dense", lambda: x[0].item()
    yield "nonzero", lambda: x.nonzero()
    yield "masked_select", lambda: x.masked_select(x > 0)
    yield "index", lambda: x[x > 0]
    yield "equal", lambda: x.equal(x)
    yield "tolist", lambda: x.tolist()
    yield "numpy", lambda: x.numpy()
    yield "_to_copy", lambda: x.to("meta")


@pytest.mark.parametrize(("name", "transfer"), list(transferring()))
def test_every_kind_of_transfer_is_counted(name, transfer):
    with Counted() as counted:
        transfer()
    assert sum(counted.transfers.values()) == 1 and name in next(iter(counted.transfers))


B, N, D = 64, 3, 128


def training_step(seed, shape=(B, N, D), **options):
    """What a forward, a linear head, cross-entropy and a backward dispatch."""
    torch.manual_seed(seed)
    batch, n, dim = shape
    fusion, head = DEQFusion([dim] * n, dim, **arguments(**options)), nn.Linear(dim, 10)
    features = [torch.randn(batch, dim, requires_grad=True) for _ in range(n)]
    target = torch.randint(10, (batch,))
    with Counted() as counted:
        F.cross_entropy(head(fusion(features)), target).backward()
    assert all(x.grad is not None for x in (*features, *fusion.parameters(), *head.parameters()))
    return counted


@pytest.mark.parametrize(
    "lower",
    [
        False,
        True,
    ],
    ids=["float32", "bfloat16"],
)
def test_a_training_step_dispatches_few_operations(lower):
    with bfloat16_products(lower):
        counts = [training_step(seed) for seed in range(5)]
    # how often autograd detaches what it saves differs between versions of torch
    counted = [c.operations.total() - c.operations["aten.detach.default"] for c in counts]
    assert max(counted) <= 569
    assert max(counted.transfers.total() for counted in counts) <= 4
    assert min(counted) > 200  # they are counted


@pytest.mark.parametrize("lower", [False, True], ids=["float32", "bfloat16"])
def test_inference_dispatches_fewer(lower):
    for seed in range(5):
        torch.manual_seed(seed)
        fusion, features = DEQFusion([D] * N, D).eval(), [torch.randn(B, D) for _ in range(N)]
        with bfloat16_products(lower), torch.no_grad(), Counted() as counted:
            fusion(features)
        assert counted.operations.total() <= 450 and counted.transfers.total() <= 2


def far(z, fz):
    """A residual that no state converges by."""
    return normal_residual(z, fz) + 1


def steps(most, shape, solver, backward, **options):
    """The operations of a training step whose solves take so many steps, or as many backward."""
    limits = {"max_steps": 6, "backward_max_steps": 6}
    limits["backward_max_steps" if backward else "max_steps"] = most
    options = {**limits, "solver": solver, "on_failure": "ignore", **options}
    with (
        mock.patch(
            "deq_fusion.fusions.equilibrium.fusion_map.products.SMALL", 0
        ),  # asked at every step
        mock.patch.object(ResidualMap, "residual", staticmethod(far)),
        mock.patch.object(GatedMap, "residual", staticmethod(far)),
        mock.patch.object(Adjoint, "residual", lambda _, u, fu: far(u, fu)),
    ):
        return training_step(0, shape, **options).operations.total()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_step_costs_the_same_for_any_number_of_modalities_samples_and_channels(solver, backward):
    most = 12  # the memory of Anderson is full
    found = {
        steps(most + 1, shape, solver, backward) - steps(most, shape, solver, backward)
        for shape in ((4, 2, 16), (32, 5, 64))
    }
    assert len(found) == 1 and found.pop() > 20


@pytest.mark.parametrize("learns", [False, True], ids=["forward", "forward and backward"])
def test_a_modality_more_costs_few_operations(learns):
    """Outside the loop, that is: in it another costs nothing."""
    limits = {"tol": 0.0, "on_failure": "ignore", "max_steps": 4}
    counts = {}
    for n in (1, 2, 3, 4, 9):
        fusion, features = DEQFusion([16] * n, 16, **limits), torch.randn(n, 8, 16)
        features = [x.requires_grad_(learns) for x in features.unbind()]
        with torch.set_grad_enabled(learns), Counted() as counted:
            fused = fusion(features)
            if learns:
                fused.backward(torch.randn(8, 16))
        counts[n] = counted.operations.total()
    assert all(counts[n + 1] - counts[n] <= 15 for n in (1, 2, 3))
    assert counts[9] - counts[4] <= 5 * 15


def test_a_forward_enters_few_functions():
    """Functions of the project by name: comprehensions and the like are part of theirs."""
    fusion, features = DEQFusion([D] * N, D), [torch.randn(B, D) for _ in range(N)]
    folder, entered = str(Path(fusions.__file__).parent), set()

    def profile(frame, event, arg):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folder) and code.co_name[0] != "<":
            entered.add(code)

    sys.setprofile(profile)
    try:
        fusion(features)
    finally:
        sys.setprofile(None)
    assert DEQFusion.forward.__code__ in entered
    assert len(entered) <= 85
