"""The parts of the benchmark. Each yields groups of rows, a row a measurement; times in ms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from deq_fusion.examples.studies.cost.counts import counted, product_ms
from deq_fusion.examples.studies.cost.rows import METHODS, Case, Method, deq
from deq_fusion.examples.studies.cost.timing import Row, Settings, peak_bytes
from deq_fusion.fusions.deq import Equations
from deq_fusion.fusions.equilibrium import Anderson, Equilibrium, SolveRecord

Group = list[Row]
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


def _training(settings: Settings, case: Case, methods: Mapping[str, Method]) -> dict[str, float]:
    features, cotangent = case.features(), case.cotangent()
    steps = {name: partial(m.train, features, cotangent) for name, m in methods.items()}
    return settings.time(steps)


def cases(settings: Settings, shapes: Sequence[tuple[int, int, int]] = ()) -> Iterator[Group]:
    """Yields every method on every shape: times, operations, transfers, steps and peak memory."""
    for shape in tqdm(shapes or SHAPES, desc="cases"):
        case = Case(*shape, device=settings.device)
        methods = {name: make(case) for name, make in METHODS.items()}
        features, cotangent = case.features(), case.cotangent()
        training = _training(settings, case, methods)
        inference = settings.time({n: partial(m.infer, features) for n, m in methods.items()})
        group = []
        for name, method in methods.items():
            train = partial(method.train, features, cotangent)
            infer = partial(method.infer, features)
            row = {"part": "cases", "recipe": SHAPES.get(shape, ""), **case.shape, "method": name}
            row |= {"train_ms": training[name], "infer_ms": inference[name]}
            row["train_counts"], row["infer_counts"] = counted(train), counted(infer)
            row["arithmetic"] = product_ms(train, settings.device) / training[name]
            row["peak_mib"] = peak_bytes(train, settings.device) / 2**20
            group.append(row | method.solved())
        yield group


def options(settings: Settings) -> Iterator[Group]:
    """Yields solvers, gradients and penalties on easy and hard problems.

    The error is that of all parameters' gradients, where there is an exact one to compare with.
    """
    for problem, (case, given) in tqdm(PROBLEMS.items(), desc="options"):
        case = replace(case, device=settings.device)
        methods = {name: deq(case, **given, **more) for name, more in OPTIONS.items()}
        taken, truth = _training(settings, case, methods), _exact_gradient(case, given)
        group = []
        for name, method in methods.items():
            row = {"part": "options", "problem": problem, **case.shape, "method": name}
            row["train_ms"] = taken[name]
            got = _gradient(method.module, case.features(), case.cotangent())
            if truth is not None and "penalty" not in name:
                row["error"] = float((got - truth).norm() / truth.norm())
            group.append(row | method.solved())
        yield group


def _exact_gradient(case: Case, given: Mapping[str, Any]) -> Tensor | None:
    """Returns the gradient in float64; None if not all samples converge."""
    fusion = case.fusion(**given, tol=1e-11, max_steps=200).double()
    features = [x.detach().double() for x in case.features()]
    found = _gradient(fusion, features, case.cotangent().double())
    summary = fusion.info.summary()
    return found if summary["converged"] == summary["backward_converged"] == 1 else None


def _gradient(module: torch.nn.Module, features: Sequence[Tensor], cotangent: Tensor) -> Tensor:
    parameters = list(module.parameters())
    grads = torch.autograd.grad(module(features), parameters, cotangent)
    return torch.cat([grad.flatten().double() for grad in grads])


def sweeps(settings: Settings) -> Iterator[Group]:
    """Yields training steps over N, d, B and the tolerance; with the fused block alone for N."""
    for name, values in tqdm(SWEEPS.items(), desc="sweeps"):
        group = []
        for value in values:
            changed = {} if name == "tol" else {name: value}
            case = replace(BASE, device=settings.device, **changed)
            made = {"deq": deq(case, **({"tol": value} if name == "tol" else {}))}
            made["concat + linear"] = METHODS["concat + linear"](case)
            if name == "modalities":
                made["fusion part"] = deq(case, equations=Equations(injection="raw", f_theta=False))
            row = {"part": "sweeps", "sweep": name, "value": value}
            group.append(row | {"times": _training(settings, case, made)} | made["deq"].solved())
        yield group


def memory(settings: Settings, limits: Sequence[int] = (10, 50)) -> Iterator[Group]:
    """Yields the peak of one block's forward and backward solve, in states, by step limit.

    The blocks take every step of the limit; "leaving" is the unimodal one as it is used, at the
    usual tolerance, with samples that converge at very different steps and leave the work.
    """
    case = replace(MEMORY_CASE, device=settings.device)
    for block in tqdm(("unimodal", "fuse", "leaving"), desc="memory"):
        group = []
        for limit in limits:
            step, states = _block(case, block, limit)
            step()
            peak = peak_bytes(step, settings.device) / states
            row = {"part": "memory", "method": block, "limit": limit, "states": peak}
            group.append(row)
        yield group


def _block(case: Case, block: str, limit: int) -> tuple[Callable[[], None], int]:
    """Returns a solve of a block, forward and backward, and the bytes of its state."""
    fusion = case.fusion()
    x = torch.stack(case.features()).detach()
    if block == "fuse":
        cell, x = fusion.fuse, x[0]
        total, m = torch.randn_like(x).requires_grad_(), x.new_full((1, 1), case.modalities)
        constants = [total, None, m, None, x.requires_grad_()]
    else:
        cell = fusion.unimodal
        if block == "leaving":
            x *= torch.logspace(-2, 1, x.shape[:2].numel()).view(*x.shape[:2], 1).to(x)
        constants = [x.requires_grad_(), None]
    tol = 1e-3 if block == "leaving" else 0.0
    limits = {"tol": tol, "max_steps": limit, "on_failure": "ignore"}
    equilibrium, cotangent = Equilibrium(partial(Anderson, MEMORY), **limits), torch.randn_like(x)
    names = ["z"] if block == "fuse" else [f"z_{i + 1}" for i in range(case.modalities)]
    wanted = [c for c in constants if c is not None and c.requires_grad] + list(cell.parameters())

    def step() -> None:
        inputs, record = [*constants, *cell.inputs()], SolveRecord([case.batch])
        z = equilibrium.solve(cell.map, inputs, record=record, names=names)
        torch.autograd.grad(z, wanted, cotangent)

    return step, x.numel() * x.element_size()


PARTS: Mapping[str, Callable[..., Iterator[Group]]] = {
    "cases": cases,
    "options": options,
    "sweeps": sweeps,
    "memory": memory,
}
