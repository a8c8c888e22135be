"""The parts of the benchmark. Each returns rows, one dict a measurement, times in milliseconds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from tqdm import tqdm

from examples.bench.measure import interleaved, peak_bytes
from examples.bench.methods import METHODS, Case, Method, deq
from fusions.equilibrium import Anderson, Equilibrium, GatedCell, ResidualCells, SolveRecord
from fusions.equilibrium import kernels, products

Row = dict[str, Any]

SHAPES = (
    (612, 3, 500),
    (128, 2, 512),
    (24, 2, 768),
    (64, 2, 1024),
    (64, 2, 2048),
    (4096, 2, 512),
)
BASE = (128, 2, 512)
SWEEPS: Mapping[str, Sequence[float]] = {
    "modalities": range(1, 9),
    "dim": (128, 256, 512, 1024, 2048),
    "batch": (32, 128, 512, 2048),
    "tol": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
}
GRADIENTS: Mapping[str, Mapping[str, Any]] = {
    "exact": {},
    "one step": {"gradient": "one_step"},
    "Neumann, 2 terms": {"gradient": "neumann", "neumann_terms": 2},
    "Neumann, 3 terms": {"gradient": "neumann", "neumann_terms": 3},
    "Neumann, 5 terms": {"gradient": "neumann", "neumann_terms": 5},
    "phantom, 5 terms, damping 0.5": {
        "gradient": "neumann",
        "neumann_terms": 5,
        "neumann_damping": 0.5,
    },
}


@dataclass(frozen=True)
class Settings:
    """How long and on what to measure.

    Attributes:
        seconds, most: about how long to repeat one group of measurements, and at most how often.
        device: where tensors live.
        threads: numbers of threads to measure the cases with.
    """

    seconds: float = 6.0
    most: int = 15
    device: str = "cpu"
    threads: Sequence[int] = (1,)

    def time(self, steps: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Returns the median of each step in milliseconds, measured in turn."""
        taken = interleaved(steps, seconds=self.seconds, most=self.most, device=self.device)
        return {name: 1e3 * duration for name, duration in taken.items()}


def cases(settings: Settings, shapes: Sequence[tuple[int, int, int]]) -> Iterator[Row]:
    """Yields every method on every shape: training step, inference, convergence, peak memory."""
    work = [(shape, threads) for threads in settings.threads for shape in shapes]
    for shape, threads in tqdm(work, desc="cases"):
        with _threads(threads):
            case = Case(*shape, device=settings.device)
            yield from _case(settings, case, threads)


def _case(settings: Settings, case: Case, threads: int) -> Iterator[Row]:
    features, cotangent = case.features(), case.cotangent()
    methods = {name: make(case) for name, make in METHODS.items()}
    training = settings.time(
        {name: partial(m.train, features, cotangent) for name, m in methods.items()}
    )
    inference = settings.time({name: partial(m.infer, features) for name, m in methods.items()})
    for name, method in methods.items():
        method.train(features, cotangent)
        solved = method.solved()
        peak = peak_bytes(partial(method.train, features, cotangent), settings.device)
        yield {
            "part": "cases",
            "threads": threads,
            **_shape(case),
            "method": name,
            "train_ms": training[name],
            "infer_ms": inference[name],
            "peak_mib": peak / 2**20,
            **solved,
        }


def sweeps(settings: Settings) -> Iterator[Row]:
    """Yields training steps over N, d, B and the tolerance; with the fused block alone for N."""
    work = [(name, value) for name, values in SWEEPS.items() for value in values]
    for name, value in tqdm(work, desc="sweeps"):
        shape = dict(zip(("batch", "modalities", "dim"), BASE, strict=True))
        options = {"tol": value} if name == "tol" else {}
        case = Case(**(shape if options else shape | {name: value}), device=settings.device)
        made = {"deq": deq(case, **options), "concat + linear": METHODS["concat + linear"](case)}
        if name == "modalities":
            made["fusion part"] = deq(case, f_theta=False, injection="raw")
        features, cotangent = case.features(), case.cotangent()
        with _threads(1):
            taken = settings.time(
                {key: partial(m.train, features, cotangent) for key, m in made.items()}
            )
        for key, method in made.items():
            row = {"part": "sweeps", "threads": 1, "sweep": name, "value": value, "method": key}
            yield {**row, **_shape(case), "train_ms": taken[key], **method.solved()}


def gradients(settings: Settings, scales: Sequence[float] = (0.1, 0.3)) -> Iterator[Row]:
    """Yields error and time of each gradient; the error is that of all parameters' gradients."""
    for scale in tqdm(scales, desc="gradients"):
        case = Case(*BASE, device=settings.device)
        features, cotangent = case.features(), case.cotangent()
        made = {
            name: deq(case, recurrent_scale=scale, **options) for name, options in GRADIENTS.items()
        }
        with _threads(1):
            taken = settings.time(
                {name: partial(m.train, features, cotangent) for name, m in made.items()}
            )
        truth = _gradient(
            deq(case, "plain", recurrent_scale=scale, tol=1e-11, max_steps=200).module.double(),
            [x.detach().double() for x in features],
            cotangent.double(),
        )
        for name, method in made.items():
            got = _gradient(method.module, features, cotangent).double()
            yield {
                "part": "gradients",
                "threads": 1,
                **_shape(case),
                "recurrent_scale": scale,
                "method": name,
                "train_ms": taken[name],
                "error": float((got - truth).norm() / truth.norm()),
                "cosine": float(torch.cosine_similarity(got, truth, dim=0)),
            }


def _gradient(module: torch.nn.Module, features: Sequence[Tensor], cotangent: Tensor) -> Tensor:
    module.zero_grad()
    module(features).backward(cotangent)
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def ideas(settings: Settings) -> Iterator[Row]:
    """Yields the training step with each idea of the fast engine switched off in turn."""
    for name, case, scales in IDEAS_ON:
        case = replace(case, device=settings.device)
        features, cotangent = case.features(), case.cotangent()
        if scales:  # every sample its own scale, which the raw injection feels
            spread = torch.logspace(-2, 1, case.batch, device=settings.device).unsqueeze(1)
            features = [(spread * x.detach()).requires_grad_() for x in features]
        made = {key: deq(case, **scales) for key in IDEAS}
        made["all ideas, plain engine"] = deq(case, "plain", **scales)
        steps = {}
        for key, method in made.items():
            method.around = IDEAS.get(key, nullcontext)
            steps[key] = partial(method.train, features, cotangent)
        with _threads(1):
            taken = settings.time(steps)
        for key in made:
            row = {"part": "ideas", "threads": 1, "on": name, **_shape(case), "method": key}
            yield {**row, "train_ms": taken[key]}


IDEAS_ON = (
    ("features of one scale", Case(*BASE), {}),
    ("features of one scale", Case(612, 3, 500), {}),
    ("raw injection, features of scales 0.01 to 10", Case(*BASE), {"injection": "raw"}),
)


@contextmanager
def _without_start() -> Iterator[None]:
    zero = lambda self, w, sizes, *constants: torch.zeros_like(constants[-1])  # noqa: E731
    unimodal = lambda self, w, sizes, x, mask: torch.zeros_like(x)  # noqa: E731
    with mock.patch.object(kernels.TwoLayerKernel, "start", unimodal):
        with mock.patch.object(kernels.GatedKernel, "start", zero):
            yield


def _without_reuse() -> AbstractContextManager:
    solve = Equilibrium._run

    def run(self, *args, **options):
        solution = solve(self, *args, **options)
        return replace(solution, converged=torch.zeros_like(solution.converged))

    return mock.patch.object(Equilibrium, "_run", run)


def _without_layer_norm() -> AbstractContextManager:
    def pull(self, u: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        rows, width = x.shape
        return torch.ops.aten.native_group_norm_backward(
            u, x, mean, rstd, None, rows, width, 1, self.groups, [True, False, False]
        )[0]

    return mock.patch.object(products.Norm, "pull", pull)


IDEAS: Mapping[str, Callable[[], AbstractContextManager]] = {
    "none (all ideas on)": nullcontext,
    "approach in bfloat16": partial(
        mock.patch, "fusions.equilibrium.fast._bfloat16_pays", lambda rows: False
    ),
    "converged samples leave": partial(
        mock.patch, "fusions.equilibrium.solvers.PATIENCE", math.inf
    ),
    "start at the image of zero": _without_start,
    "last evaluation and product reused": _without_reuse,
    "LayerNorm's backward for GroupNorm's": _without_layer_norm,
}


def memory(settings: Settings, limits: Sequence[int] = (10, 50, 200)) -> Iterator[Row]:
    """Yields the peak of one block's forward and backward solve, in states, by step limit."""
    work = [(block, limit) for block in ("unimodal", "fuse") for limit in limits]
    for block, limit in tqdm(work, desc="memory"):
        peak, states = _block_peak(block, limit, settings.device)
        yield {
            "part": "memory",
            "threads": torch.get_num_threads(),
            "method": block,
            "limit": limit,
            "memory": MEMORY,
            "states": peak / states,
        }


MEMORY = 6  # Anderson's, the default
BLOCK = (2, 2048, 512)  # modalities, batch, width


def _block_peak(block: str, limit: int, device: str) -> tuple[int, int]:
    """Returns the peak in bytes of solving a block, and the bytes of its state."""
    n, batch, dim = BLOCK
    shared = {"groups": 4, "recurrent_scale": 0.1}
    if block == "unimodal":
        cell = ResidualCells(n, dim, kind="two_layer", residual=False, **shared).to(device)
        sizes = [batch] * n
        constants = (torch.randn(n * batch, dim, device=device).requires_grad_(), None)
    else:
        cell = GatedCell(n, dim, norm_order="relu_norm", gate=True, **shared).to(device)
        sizes = [batch]
        total, x = (torch.randn(batch, dim, device=device).requires_grad_() for _ in range(2))
        constants = (total, None, torch.full((batch, 1), float(n), device=device), None, x)
    cotangent = torch.randn(sum(sizes), dim, device=device)
    equilibrium = Equilibrium(
        lambda: Anderson(MEMORY), tol=0.0, max_steps=limit, on_failure="ignore"
    )
    wanted = [c for c in constants if c is not None and c.requires_grad]
    wanted += [p for p in cell.parameters()]

    def step() -> None:
        record, names = SolveRecord([batch]), ["z"] * len(sizes)
        z = equilibrium.solve_cell(cell, constants, sizes, record=record, names=names)
        torch.autograd.grad(z, wanted, cotangent)

    step()
    return peak_bytes(step, device), cotangent.numel() * cotangent.element_size()


def _shape(case: Case) -> Row:
    return {"batch": case.batch, "modalities": case.modalities, "dim": case.dim}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


PARTS: Mapping[str, Callable[..., Iterator[Row]]] = {
    "cases": cases,
    "sweeps": sweeps,
    "gradients": gradients,
    "ideas": ideas,
    "memory": memory,
}
