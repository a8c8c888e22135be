"""What is timed: DEQ fusion in its variants, and what it is compared with, as modules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from unittest import mock

import torch
from torch import Tensor, nn

from examples.bench.prototype import Prototype
from fusions.common_fusions import Concat
from fusions.deq import DEQFusion
from fusions.equilibrium import SolveRecord, Solution

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

    def features(self) -> list[Tensor]:
        """Rectified normal features (batch, d), which receive gradients."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            shape = (self.batch, self.dim)
            features = [torch.randn(shape).relu() for _ in range(self.modalities)]
        return [x.to(self.device).requires_grad_() for x in features]

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
        record: the solves of the last call, if there were any.
    """

    module: nn.Module
    around: Callable[[], object] = nullcontext
    record: Callable[[], SolveRecord | None] = field(default=lambda: None)


def plain_engine(fusion: DEQFusion) -> DEQFusion:
    """Switches a fusion to the plain engine, in place."""
    fusion.equilibrium = replace(fusion.equilibrium, engine="plain")
    return fusion


def deq(case: Case, **options) -> Method:
    """DEQ fusion as users get it, with the options given."""
    fusion = case.fusion(**options)
    return Method(fusion, record=lambda: fusion.info)


def plain(case: Case) -> Method:
    """DEQ fusion by the plain engine."""
    fusion = plain_engine(case.fusion())
    return Method(fusion, record=lambda: fusion.info)


def torchdeq(case: Case) -> Method:
    """The same map, all states solved together, by torchdeq's Anderson and implicit gradient."""
    fusion = case.fusion(joint=True)
    fusion.equilibrium = TorchDEQ()
    return Method(fusion)


class TorchDEQ:
    """Stands in for `Equilibrium`: torchdeq's solvers, to the same tolerance for every sample."""

    def __init__(self) -> None:
        from torchdeq import get_deq

        self.deq = get_deq(
            ift=True,
            f_solver="anderson",
            b_solver="anderson",
            f_tol=TOL,
            b_tol=TOL,
            f_stop_mode="rel",
            b_stop_mode="rel",
            f_max_iter=MAX_STEPS,
            b_max_iter=MAX_STEPS,
        )

    def solve(self, f: Callable, start: Tensor, inputs: Sequence[Tensor | None], **_) -> Tensor:
        """Returns the fixed point."""
        self.deq.train(torch.is_grad_enabled())
        return self.deq(lambda z: f(z, *inputs), start)[0][-1]


def bare(case: Case) -> Method:
    """The evaluations and products that DEQ fusion spent, by its kernels, with no solver around.

    Everything else stays: projections, normalisation, the gradients of the parameters.
    """
    fusion, features = case.fusion(), case.features()
    spent: list[list] = []  # of every solve, in order: None for an evaluation, rows that stayed
    with mock.patch(FIND, _recording(spent)):
        fused = fusion(features)
        fused.backward(_cotangent(fused))
    fusion.zero_grad()
    return Method(fusion, around=lambda: mock.patch(FIND, _Replay(spent)))


def _recording(spent: list[list]) -> Callable:
    from fusions.equilibrium import find_fixed_point

    class Recorded:
        def __init__(self, f) -> None:
            self.f, self.events = f, []

        def __call__(self, z: Tensor) -> Tensor:
            self.events.append(None)
            return self.f(z)

        def narrow(self, rows: Tensor) -> None:
            self.events.append(rows)
            self.f.narrow(rows)

    def find(f: Callable, start: Tensor, **options) -> Solution:
        recorded = Recorded(f)
        solution = find_fixed_point(recorded, start, **options)
        spent.append(recorded.events)
        return solution

    return find


class _Replay:
    """Evaluates a map as often as a recorded solve did, each time at the last image."""

    def __init__(self, spent: list[list]) -> None:
        self.solves: Iterator[list] = iter(spent)

    def __call__(self, f: Callable, start: Tensor, **_) -> Solution:
        z = start
        for rows in next(self.solves):
            if rows is None:
                z = f(z)
            else:
                f.narrow(rows)
                z = z[rows]
        unknown = start.new_zeros(len(start))
        value = z if len(z) == len(start) else start
        return Solution(value, unknown, unknown == 0, unknown.long())


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
    "deq, one step": lambda case: deq(case, gradient="one_step"),
    "deq, Neumann 3": lambda case: deq(case, gradient="neumann"),
    "plain engine": plain,
    "bare evaluations": bare,
    "torchdeq, joint": torchdeq,
    "unrolled": unrolled,
    "prototype": prototype,
    "concat + linear": concat_linear,
}


def _cotangent(fused: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.randn(fused.shape).to(fused.device)


def train_step(method: Method, features: list[Tensor], cotangent: Tensor | None = None) -> Tensor:
    """Runs forward and backward, as a training step does without its optimiser."""
    with method.around():
        fused = method.module(features)
        fused.backward(_cotangent(fused) if cotangent is None else cotangent)
    method.module.zero_grad(set_to_none=True)
    for x in features:
        x.grad = None
    return fused.detach()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Runs its body with `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
