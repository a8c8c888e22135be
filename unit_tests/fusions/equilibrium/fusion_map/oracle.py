"""The plain map beside a written-out one: the same step, flattened, with autograd's Jacobian."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from deq_fusion.fusions.equilibrium import AutogradMap, Equilibrium, SolveRecord, jacobian_penalty
from deq_fusion.fusions.equilibrium.jacobian import map_penalty

N, BATCH, DIM, GROUPS = 3, 4, 12, 3


class Posed(NamedTuple):
    """A map of a cell, and what it is made of: constants, of which some are learnt, and weights."""

    cell: nn.Module
    constants: list[Tensor | None]
    learnt: tuple[int, ...]

    @property
    def inputs(self) -> list[Tensor | None]:
        """Leaves of a graph, where gradients are wanted."""
        constants = [
            c if c is None else c.detach().requires_grad_(i in self.learnt)
            for i, c in enumerate(self.constants)
        ]
        return [*constants, *self.cell.inputs()]

    def map(self):
        return self.cell.map(*(x if x is None else x.detach() for x in self.inputs))


def moved(cell: nn.Module, std: float) -> nn.Module:
    """Moves every parameter away from its start."""
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter += std * torch.randn_like(parameter)
    return cell


def plain(make: Callable, inputs: Sequence[Tensor | None]) -> AutogradMap:
    """Returns `make(*inputs)` as a map of (rows, d) by autograd."""
    with torch.no_grad():
        start = make(*inputs).start()

    def step(z, *inputs):
        return make(*inputs).step(z.view_as(start))[0].view_as(z)

    return AutogradMap(step, start.flatten(0, -2), inputs)


def near(ours: Tensor, theirs: Tensor, tol: float = 1e-12) -> None:
    """Asserts that two tensors differ by no more than `tol` of the largest entry."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tol * theirs.abs().max()


def check_start_and_images(posed: Posed) -> None:
    f = posed.map()
    start = f.start()
    near(start, f.step(torch.zeros_like(start))[0])
    z = torch.randn_like(start)
    torch.testing.assert_close(f(z), f.step(z)[0], rtol=0, atol=0)


def check_linearisation(posed: Posed) -> None:
    """Products and gradients are autograd's; of given traces, of scaled and of new cotangents."""
    inputs, f = posed.inputs, posed.map()
    z, u, plus = torch.randn(3, *f.start().shape)
    scale = torch.rand(*u.shape[:-1], 1) + 0.5
    theirs = plain(posed.cell.map, inputs).at(z.flatten(0, -2))
    rows = [x.flatten(0, -2) for x in (u, plus, scale)]
    f(z)
    for ours in (f.at(z), f.at(z, f.trace)):
        for latest in (False, True):
            ours.pull(torch.randn_like(u), plus)  # of another, which `latest` must not see
            near(ours.pull(u, plus).flatten(0, -2), theirs.pull(*rows[:2]))
            if not latest:
                ours.pull(torch.randn_like(u), plus)
            expected = theirs.gradients(rows[0], rows[2], latest=latest)
            got = ours.gradients(u, scale, latest=latest)
            check_gradients(inputs, got, expected)


def check_gradients(inputs, got, expected) -> None:
    assert len(got) == len(expected) == len(inputs)
    for x, mine, want in zip(inputs, got, expected, strict=True):
        if x is not None and x.requires_grad:
            want = torch.zeros_like(x) if want is None else want
            mine = torch.zeros_like(x) if mine is None else mine
            near(mine.view_as(x), want)


def check_solve(posed: Posed, solver: str) -> None:
    """Fixed point and gradients are those of the plain map, solved by the same loop."""
    settings = Equilibrium(solver, tol=1e-13, max_steps=200)
    cotangent, found = None, []
    for make in (posed.cell.map, lambda *inputs: plain(posed.cell.map, inputs)):
        inputs = posed.inputs
        record = SolveRecord([1])
        z = settings.solve(make, inputs, record=record, names=["z"])
        z = z.view(-1, DIM)
        if cotangent is None:
            cotangent = torch.randn_like(z)
        wanted = [x for x in inputs if x is not None and x.requires_grad]
        grads = torch.autograd.grad(z, wanted, cotangent, materialize_grads=True)
        found.append([z.detach(), *grads])
    for ours, theirs in zip(*found, strict=True):
        near(ours, theirs, 1e-11)


def check_narrowing(posed: Posed) -> None:
    """Some samples alone have the images that they have among all."""
    whole, z = posed.map(), torch.randn_like(posed.map().start())
    for kept in ([0], [BATCH - 1], [0, 2, 3]):
        some, rows = posed.map(), torch.tensor(kept)
        some.narrow(rows)
        near(some.start(), whole.start().index_select(-2, rows))
        near(some(z.index_select(-2, rows)), whole(z).index_select(-2, rows))


def check_lower_precision(posed: Posed, *, pulls: bool = True) -> None:
    """Steps, and products if they multiply by a matrix, differ within bfloat16's precision."""
    f = posed.map()
    z, u, plus = torch.randn(3, *f.start().shape)
    linear = f.at(z)
    images = f(z), f.rough(z)
    products = linear.pull(u, plus), linear.pull(u, plus, rough=True)
    for (exact, rough), differ in ((images, True), (products, pulls)):
        assert rough.dtype == torch.float32
        difference = (rough - exact).norm() / exact.norm()
        assert difference <= 0.05  # a few units of 2^-8
        assert (difference > 0) == differ


@contextmanager
def bfloat16_products(pays: bool = True):
    """Makes products of any size rough for the first steps, or none, whatever the processor."""
    products = "deq_fusion.fusions.equilibrium.fusion_map.products"
    with (
        mock.patch(f"{products}._bfloat16_pays", lambda z: pays),
        mock.patch(f"{products}.LARGE", 0),
    ):
        yield


@contextmanager
def by_autograd():
    """Solves and differentiates every map of a fusion as a plain one."""
    solve = Equilibrium.solve

    def solved(self, make, inputs, *, ignored=None, **options):
        made = make(*inputs)
        if isinstance(made, AutogradMap):
            return solve(self, make, inputs, ignored=ignored, **options)
        ignored = None if ignored is None else ignored.flatten()
        found = solve(self, partial(_plain_of, make), inputs, ignored=ignored, **options)
        return found.view(made.start().shape)

    with mock.patch.object(Equilibrium, "solve", solved):
        yield


def _plain_of(make: Callable, *inputs: Tensor | None) -> AutogradMap:
    return plain(make, inputs)


def check_penalty(posed: Posed) -> None:
    """Asserts that the penalty by `pull` is that by autograd, and so are its gradients."""
    inputs, z = posed.inputs, posed.map().start() + 0.1 * torch.randn_like(posed.map().start())

    def step(z, *inputs):
        return posed.cell.map(*inputs).step(z)[0]

    found = []
    for estimate, f in ((map_penalty, posed.cell.map), (jacobian_penalty, step)):
        torch.manual_seed(1)
        penalty = estimate(f, z, inputs, probes=3)
        wanted = [x for x in inputs if x is not None and x.requires_grad]
        grads = [torch.zeros_like(x) for x in wanted]
        if penalty.requires_grad:  # which is constant without a gate
            options = {"allow_unused": True, "materialize_grads": True}
            grads = torch.autograd.grad(penalty, wanted, **options)
        found.append((penalty, *grads))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= 1e-11 * max(theirs.abs().max(), 1e-6)
