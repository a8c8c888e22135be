"""The rows: DEQ fusion in its variants, and what it is compared with, on which problems."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from deq_fusion.fusions.common_fusions import Concat
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.registry import FUSIONS

TOL, MAX_STEPS = 1e-3, 40


@dataclass(frozen=True)
class Case:
    """One problem: a batch of B samples with N modalities of width d, and states of width d.

    With `spread` samples have scales from 0.01 to 10, which a raw injection feels. With `time`
    modalities are sequences of so many steps, (batch, time, d).
    """

    batch: int
    modalities: int
    dim: int
    device: str = "cpu"
    seed: int = 0
    spread: bool = False
    time: int | None = None

    @property
    def shape(self) -> dict[str, int]:
        """The three numbers by name."""
        return {"batch": self.batch, "modalities": self.modalities, "dim": self.dim}

    def features(self) -> list[Tensor]:
        """Rectified normal features (batch, d), or sequences, which receive gradients."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            shape = (self.batch, *([] if self.time is None else [self.time]), self.dim)
            features = [torch.randn(shape).relu() for _ in range(self.modalities)]
        scale = torch.logspace(-2, 1, self.batch).unsqueeze(1) if self.spread else 1.0
        return [(scale * x).to(self.device).requires_grad_() for x in features]

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
        solved: what the solves of the last step did: `steps`, `backward_steps`, the worst
            `residual`, the share `converged`, as far as anything was solved.
    """

    module: nn.Module
    solved: Callable[[], dict[str, float]] = dict

    def train(self, features: list[Tensor], cotangent: Tensor) -> None:
        """Runs forward and backward, as a training step does without its optimiser."""
        results, cotangents = [self.module(features)], [cotangent]
        if getattr(self.module, "jacobian_weight", 0):
            results, cotangents = [*results, self.module.auxiliary_loss], [cotangent, None]
        torch.autograd.backward(results, cotangents)
        self.module.zero_grad(set_to_none=True)
        for x in features:
            x.grad = None

    def infer(self, features: list[Tensor]) -> None:
        """Runs the forward without gradients."""
        with torch.no_grad():
            self.module(features)


def deq(case: Case, **options) -> Method:
    """DEQ fusion as users get it, with the options given."""
    fusion = case.fusion(**options)
    return Method(fusion, lambda: {} if fusion.info is None else fusion.info.summary())


def torchdeq(case: Case) -> Method:
    """The same map, all states solved together, by torchdeq's Anderson and implicit gradient.

    Its tolerance is on the joint state of every sample, which is less than on each block.
    """
    module = TorchDEQ(case.fusion())
    return Method(module, lambda: module.solved)


class TorchDEQ(nn.Module):
    """A fusion's map, solved by torchdeq to the same tolerance for every sample."""

    def __init__(self, fusion: DEQFusion) -> None:
        from torchdeq import get_deq

        super().__init__()
        sides = {"solver": "anderson", "tol": TOL, "stop_mode": "rel", "max_iter": MAX_STEPS}
        self.deq = get_deq(ift=True, **{f"{s}_{k}": v for k, v in sides.items() for s in "fb"})
        self.fusion, self.solved = fusion, {}

    def forward(self, features: list[Tensor]) -> Tensor:
        """Returns the fused feature, (batch, d)."""
        system = self.fusion.pose(features, careful=False)  # as its forward does
        zero = [torch.zeros_like(x) for x in (system.constants.x, system.constants.x_fuse)]
        (whole,) = system.maps(*zero, joint=True)
        self.deq.train(torch.is_grad_enabled())
        states, info = self.deq(whole, whole.state)
        lowest = info["rel_lowest"]
        self.solved = {
            "steps": float(info["nstep"].double().mean()),
            "residual": float(lowest.max()),
            "converged": float((lowest <= TOL).double().mean()),
        }
        return states[-1][:, -1]


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


def recurrent(case: Case, name: str) -> Method:
    """A fusion of aligned sequences, by its name in the registry."""
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        module, _ = FUSIONS[name]([case.dim] * case.modalities, case.dim)
    return Method(module.to(case.device))


METHODS: Mapping[str, Callable[[Case], Method]] = {
    "deq": deq,
    "deq, one step": partial(deq, gradient="one_step"),
    **({"torchdeq, joint": torchdeq} if find_spec("torchdeq") else {}),
    "unrolled": unrolled,
    "concat + linear": concat_linear,
}
SHAPES: Mapping[tuple[int, int, int], str] = {  # (B, N, d) -> which recipe it is the DEQ fusion of
    (32, 2, 64): "CMU-MOSI and CMU-MOSEI, two modalities",
    (32, 3, 64): "CMU-MOSI and CMU-MOSEI",
    (128, 4, 64): "digits",
    (64, 3, 128): "",
    (196, 3, 128): "ROSMAP",
    (64, 2, 256): "VQA-v2, bag of words",
    (32, 3, 256): "",
    (128, 2, 512): "MM-IMDB, VGG and word2vec",
    (16, 2, 768): "MM-IMDB with BERT",
    (24, 2, 768): "",
    (612, 3, 500): "BRCA as of Ni et al.",
    (64, 2, 1024): "VQA-v2, MCAN-small",
    (64, 2, 2048): "",
    (4096, 2, 512): "",
}
BASE, SMALL = Case(128, 2, 512), Case(64, 3, 128)
SWEEPS: Mapping[str, Sequence[float]] = {
    "modalities": range(1, 9),
    "dim": (128, 256, 512, 1024, 2048),
    "batch": (32, 128, 512, 2048),
    "tol": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
}
PROBLEMS: Mapping[str, tuple[Case, Mapping[str, Any]]] = {
    "the default start": (BASE, {}),
    "a start of 0.3": (BASE, {"start": 0.3}),
    "a start of 1, which is hard": (SMALL, {"start": 1.0}),
    "the paper's equations, features of scales from 0.01 to 10": (
        replace(SMALL, spread=True),
        {"equations": "paper"},
    ),
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "Broyden": {"solver": "broyden"},
    "Picard": {"solver": "picard"},
    "joint": {"joint": True},
    "one step": {"gradient": "one_step"},
    "Neumann, 2 terms": {"gradient": "neumann", "neumann_terms": 2},
    "Neumann, 3 terms": {"gradient": "neumann"},
    "Neumann, 5 terms": {"gradient": "neumann", "neumann_terms": 5},
    "phantom, 5 terms": {"gradient": "neumann", "neumann_terms": 5, "neumann_damping": 0.5},
    "penalty": {"jacobian_weight": 1.0},
    "penalty, joint": {"jacobian_weight": 1.0, "jacobian_blocks": "joint"},
}
MEMORY = 6  # differences that Anderson keeps by default
MEMORY_CASE = Case(2048, 2, 128)  # states larger than the weights
SEQUENCES = [Case(32, 3, 64, time=20), Case(32, 3, 128, time=50)]
RECURRENT = ("ef_lstm", "mfn", "marn", "rmfn")  # all to the first, whose loop is torch's own
