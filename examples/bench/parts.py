"""The parts of the benchmark. Each yields rows, one dict a measurement; times in milliseconds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from examples.bench.ideas import ideas
from examples.bench.measure import Row, Settings, peak_bytes, threads
from examples.bench.methods import METHODS, Case, deq
from fusions.deq import Equations
from fusions.equilibrium import Anderson, Equilibrium, GatedCell, ResidualCells, SolveRecord

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


def cases(settings: Settings, shapes: Sequence[tuple[int, int, int]]) -> Iterator[Row]:
    """Yields every method on every shape: training step, inference, convergence, peak memory."""
    work = [(shape, count) for count in settings.threads for shape in shapes]
    for shape, count in tqdm(work, desc="cases"):
        with threads(count):
            yield from _case(settings, Case(*shape, device=settings.device), count)


def _case(settings: Settings, case: Case, count: int) -> Iterator[Row]:
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
            "threads": count,
            "device": case.device,
            **case.shape,
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
            made["fusion part"] = deq(case, equations=Equations(injection="raw", f_theta=False))
        features, cotangent = case.features(), case.cotangent()
        with threads(1):
            taken = settings.time(
                {key: partial(m.train, features, cotangent) for key, m in made.items()}
            )
        for key, method in made.items():
            row = {"part": "sweeps", "threads": 1, "sweep": name, "value": value, "method": key}
            yield {**row, **case.shape, "train_ms": taken[key], **method.solved()}


def gradients(settings: Settings, scales: Sequence[float] = (0.1, 0.3)) -> Iterator[Row]:
    """Yields error and time of each gradient; the error is that of all parameters' gradients."""
    for scale in tqdm(scales, desc="gradients"):
        case = Case(*BASE, device=settings.device)
        features, cotangent = case.features(), case.cotangent()
        made = {name: deq(case, start=scale, **options) for name, options in GRADIENTS.items()}
        with threads(1):
            taken = settings.time(
                {name: partial(m.train, features, cotangent) for name, m in made.items()}
            )
        truth = _gradient(
            deq(case, "plain", start=scale, tol=1e-11, max_steps=200).module.double(),
            [x.detach().double() for x in features],
            cotangent.double(),
        )
        for name, method in made.items():
            got = _gradient(method.module, features, cotangent).double()
            yield {
                "part": "gradients",
                "threads": 1,
                **case.shape,
                "start": scale,
                "method": name,
                "train_ms": taken[name],
                "error": float((got - truth).norm() / truth.norm()),
                "cosine": float(torch.cosine_similarity(got, truth, dim=0)),
            }


def _gradient(module: torch.nn.Module, features: Sequence[Tensor], cotangent: Tensor) -> Tensor:
    module.zero_grad()
    module(features).backward(cotangent)
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def memory(settings: Settings, limits: Sequence[int] = (10, 50, 200)) -> Iterator[Row]:
    """Yields the peak of one block's forward and backward solve, in states, by step limit.

    The blocks take every step of the limit; "leaving" is the unimodal one as it is used, at the
    usual tolerance, with samples that converge at very different steps and leave the work.
    """
    work = [(block, limit) for block in ("unimodal", "fuse", "leaving") for limit in limits]
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
    if block == "fuse":
        cell = GatedCell(n, dim, norm_order="relu_norm", gate=True, **shared).to(device)
        sizes = [batch]
        total, x = (torch.randn(batch, dim, device=device).requires_grad_() for _ in range(2))
        constants = (total, None, torch.full((batch, 1), float(n), device=device), None, x)
    else:
        cell = ResidualCells(n, dim, kind="two_layer", residual=False, **shared).to(device)
        sizes = [batch] * n
        x = torch.randn(n * batch, dim, device=device)
        if block == "leaving":
            x *= torch.logspace(-2, 1, n * batch, device=device).unsqueeze(1)
        constants = (x.requires_grad_(), None)
    cotangent = torch.randn(sum(sizes), dim, device=device)
    tol = 1e-3 if block == "leaving" else 0.0
    equilibrium = Equilibrium(
        lambda: Anderson(MEMORY), tol=tol, max_steps=limit, on_failure="ignore"
    )
    wanted = [c for c in constants if c is not None and c.requires_grad]
    wanted += [p for p in cell.parameters()]

    def step() -> None:
        record, names = SolveRecord([batch]), ["z"] * len(sizes)
        z = equilibrium.solve_cell(cell, constants, sizes, record=record, names=names)
        torch.autograd.grad(z, wanted, cotangent)

    step()
    return peak_bytes(step, device), cotangent.numel() * cotangent.element_size()


PARTS: Mapping[str, Callable[..., Iterator[Row]]] = {
    "cases": cases,
    "sweeps": sweeps,
    "gradients": gradients,
    "ideas": ideas,
    "memory": memory,
}
