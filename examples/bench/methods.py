"""What is timed: DEQ fusion in its variants, and what it is compared with, as modules."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from examples.bench.prototype import Prototype
from fusions.common_fusions import Concat
from fusions.deq import DEQFusion
from fusions.equilibrium import Solution, SolveRecord, find_fixed_point

TOL, MAX_STEPS = 1e-3, 40
FIND = "fusions.equilibrium.equilibrium.find_fixed_point"


@dataclass(frozen=True)
class Case:
    """One problem: a batch of B samples with N modalities of width d, and states of width d."""

    batch: int
    modalities: int
    dim: int
    device: str = "cpu"
    seed: int = 0

    @property
    def shape(self) -> dict[str, int]:
        """The three numbers by name."""
        return {"batch": self.batch, "modalities": self.modalities, "dim": self.dim}

    def features(self) -> list[Tensor]:
        """Rectified normal features (batch, d), which receive gradients."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            shape = (self.batch, self.dim)
            features = [torch.randn(shape).relu() for _ in range(self.modalities)]
        return [x.to(self.device).requires_grad_() for x in features]

    def cotangent(self) -> Tensor:
        """A normal cotangent of the fused feature, (batch, d)."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 1)
            return torch.randn(self.batch, self.dim).to(self.device)

    def fusion(self, **options) -> DEQFusion:
        """DEQ fusion from the same weights for any options."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            options = {"tol": TOL, "max_steps": MAX_STEPS, "on_failure": "ignore", **options}
            fusion = DEQFusion([self.dim] * self.modalities, self.dim, **options)
        return fusion.to(self.device)


@dataclass
class Method:
    """Something that maps a list of features to a fused one.

    Attributes:
        module: does it.
        around: makes a context in which a training step or an inference runs.
        solved: what the solves of the last step did: most `steps`, most `backward_steps`, and of
            the forward solves the worst `residual` and the share `converged`; empty if nothing
            was solved.
    """

    module: nn.Module
    around: Callable[[], AbstractContextManager] = nullcontext
    solved: Callable[[], dict[str, float]] = dict

    def train(self, features: list[Tensor], cotangent: Tensor) -> None:
        """Runs forward and backward, as a training step does without its optimiser."""
        with self.around():
            self.module(features).backward(cotangent)
        self.module.zero_grad(set_to_none=True)
        for x in features:
            x.grad = None

    def infer(self, features: list[Tensor]) -> None:
        """Runs the forward without gradients."""
        with self.around(), torch.no_grad():
            self.module(features)


def deq(case: Case, engine: str = "fast", **options) -> Method:
    """DEQ fusion as users get it, with the options given."""
    fusion = case.fusion(**options)
    fusion.equilibrium = replace(fusion.equilibrium, engine=engine)
    return Method(fusion, solved=lambda: _solved(fusion.info))


def _solved(info: SolveRecord) -> dict[str, float]:
    solves = info.forward.values()
    most = {
        name: max(int(stats.steps.max()) for stats in side.values())
        for name, side in (("steps", info.forward), ("backward_steps", info.backward))
        if side
    }
    worst = max(float(stats.residual.max()) for stats in solves)
    converged = torch.cat([stats.converged.flatten() for stats in solves]).double().mean()
    return {**most, "residual": worst, "converged": float(converged)}


def torchdeq(case: Case) -> Method:
    """The same map, all states solved together, by torchdeq's Anderson and implicit gradient.

    Its tolerance is on the joint state of every sample, which is less than on each block.
    """
    fusion, equilibrium = case.fusion(joint=True), TorchDEQ()
    fusion.equilibrium = equilibrium
    return Method(fusion, solved=lambda: equilibrium.last)


class TorchDEQ:
    """Stands in for `Equilibrium`: torchdeq's solvers, to the same tolerance for every sample."""

    def __init__(self) -> None:
        from torchdeq import get_deq

        sides = {"solver": "anderson", "tol": TOL, "stop_mode": "rel", "max_iter": MAX_STEPS}
        self.deq = get_deq(ift=True, **{f"{s}_{k}": v for k, v in sides.items() for s in "fb"})
        self.last: dict[str, float] = {}

    def solve(self, f: Callable, start: Tensor, inputs: Sequence[Tensor | None], **_) -> Tensor:
        """Returns the fixed point."""
        self.deq.train(torch.is_grad_enabled())
        states, info = self.deq(lambda z: f(z, *inputs), start)
        lowest = info["rel_lowest"]
        self.last = {
            "steps": int(info["nstep"].max()),
            "residual": float(lowest.max()),
            "converged": float((lowest <= TOL).double().mean()),
        }
        return states[-1]


def bare(case: Case) -> Method:
    """The evaluations and products that DEQ fusion spent, by its kernels, with no solver around.

    Everything else stays: projections, normalisation, the gradients of the parameters.
    """
    fusion, spent = case.fusion(), []
    with mock.patch(FIND, partial(_recorded, spent)):
        fused = fusion(case.features())
        fused.backward(case.cotangent())
    fusion.zero_grad()
    return Method(fusion, around=lambda: mock.patch(FIND, _Replay(spent)))


def _recorded(spent: list, f: Callable, start: Tensor, **options) -> Solution:
    """Solves, and appends what happened: None for an evaluation, or the rows that stayed."""
    events: list[Tensor | None] = []

    class Recorded:
        def __call__(self, z: Tensor) -> Tensor:
            events.append(None)
            return f(z)

        def narrow(self, rows: Tensor) -> None:
            events.append(rows)
            f.narrow(rows)

    spent.append(events)
    return find_fixed_point(Recorded(), start, **options)


class _Replay:
    """Evaluates a map as often as a recorded solve did, each time at the last image."""

    def __init__(self, spent: list) -> None:
        self.solves = iter(spent)

    def __call__(self, f: Callable, start: Tensor, **_) -> Solution:
        z = start
        for rows in next(self.solves):
            if rows is None:
                z = f(z)
            else:
                f.narrow(rows)
                z = z[rows]
        zeros = start.new_zeros(len(start))
        return Solution(z if len(z) == len(start) else start, zeros, zeros == 0, zeros.long())


class ConcatLinear(nn.Module):
    """Concatenation and a linear map to the same width."""

    def __init__(self, n: int, dim: int) -> None:
        super().__init__()
        self.concat, self.linear = Concat(), nn.Linear(n * dim, dim)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Returns the fused feature, (batch, d)."""
        return self.linear(self.concat(features))


def concat_linear(case: Case) -> Method:
    """Concatenation and a linear map."""
    return Method(ConcatLinear(case.modalities, case.dim).to(case.device))


def unrolled(case: Case) -> Method:
    """The same map with as many weight-tied steps as the solve took, backpropagated."""
    fusion = case.fusion()
    fusion(case.features())
    return Method(case.fusion(unroll=int(fusion.info.steps.max())))


def prototype(case: Case) -> Method:
    """See prototype.py."""
    module = Prototype(case.modalities, case.dim, tol=TOL).to(case.device)
    module(case.features())  # calibrates it
    return Method(module)


METHODS: Mapping[str, Callable[[Case], Method]] = {
    "deq": deq,
    "deq, one step": partial(deq, gradient="one_step"),
    "deq, Neumann 3": partial(deq, gradient="neumann"),
    "plain engine": partial(deq, engine="plain"),
    "bare evaluations": bare,
    "torchdeq, joint": torchdeq,
    "unrolled": unrolled,
    "prototype": prototype,
    "concat + linear": concat_linear,
}
