"""The measure, in parts. Each yields groups of rows, a row a measurement; times in ms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from deq_fusion.examples.studies.cost.counts import counted, product_ms
from deq_fusion.examples.studies.cost.rows import (
    BASE,
    MEMORY,
    MEMORY_CASE,
    METHODS,
    OPTIONS,
    PROBLEMS,
    RECURRENT,
    SEQUENCES,
    SHAPES,
    SWEEPS,
    Case,
    Method,
    deq,
    recurrent,
)
from deq_fusion.examples.studies.cost.timing import Row, Settings, peak_bytes
from deq_fusion.fusions.deq import Equations
from deq_fusion.fusions.equilibrium import Anderson, Equilibrium, SolveRecord

Group = list[Row]
LEAVING = "unimodal, samples leave"


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

    The blocks take every step of the limit; the last is the unimodal one as it is used, at the
    usual tolerance, with samples that converge at very different steps and leave the work.
    """
    case = replace(MEMORY_CASE, device=settings.device)
    for block in tqdm(("unimodal", "fuse", LEAVING), desc="memory"):
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
        if block == LEAVING:
            x *= torch.logspace(-2, 1, x.shape[:2].numel()).view(*x.shape[:2], 1).to(x)
        constants = [x.requires_grad_(), None]
    tol = 1e-3 if block == LEAVING else 0.0
    limits = {"tol": tol, "max_steps": limit, "on_failure": "ignore"}
    equilibrium, cotangent = Equilibrium(partial(Anderson, MEMORY), **limits), torch.randn_like(x)
    names = ["z"] if block == "fuse" else [f"z_{i + 1}" for i in range(case.modalities)]
    wanted = [c for c in constants if c is not None and c.requires_grad] + list(cell.parameters())

    def step() -> None:
        inputs, record = [*constants, *cell.inputs()], SolveRecord([case.batch])
        z = equilibrium.solve(cell.map, inputs, record=record, names=names)
        torch.autograd.grad(z, wanted, cotangent)

    return step, x.numel() * x.element_size()


def sequences(settings: Settings) -> Iterator[Group]:
    """Yields training steps and inference of the fusions of aligned sequences."""
    for case in tqdm(SEQUENCES, desc="sequences"):
        case = replace(case, device=settings.device)
        methods = {name: recurrent(case, name) for name in RECURRENT}
        training = _training(settings, case, methods)
        infer = {n: partial(m.infer, case.features()) for n, m in methods.items()}
        inference = settings.time(infer)
        row = {"part": "sequences", **case.shape, "time": case.time}
        yield [
            row | {"method": name, "train_ms": training[name], "infer_ms": inference[name]}
            for name in methods
        ]


PARTS: Mapping[str, Callable[..., Iterator[Group]]] = {
    "cases": cases,
    "options": options,
    "sweeps": sweeps,
    "memory": memory,
    "sequences": sequences,
}
