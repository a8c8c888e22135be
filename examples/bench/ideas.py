"""What each idea of the fast engine brings: the training step with one of them switched off."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from unittest import mock

import torch
from torch import Tensor
from tqdm import tqdm

from examples.bench.measure import Row, Settings, threads
from examples.bench.methods import Case, deq
from fusions.equilibrium import Equilibrium, kernels, products


def ideas(settings: Settings) -> Iterator[Row]:
    """Yields the training step with each idea of the fast engine switched off in turn."""
    for name, case, options in tqdm(IDEAS_ON, desc="ideas"):
        case = replace(case, device=settings.device)
        features, cotangent = case.features(), case.cotangent()
        if options:  # every sample its own scale, which the raw injection feels
            spread = torch.logspace(-2, 1, case.batch, device=settings.device).unsqueeze(1)
            features = [(spread * x.detach()).requires_grad_() for x in features]
        made = {
            key: replace(deq(case, **options), around=without) for key, without in IDEAS.items()
        }
        made["all of them (plain engine)"] = deq(case, "plain", **options)
        with threads(1):
            taken = settings.time(
                {key: partial(m.train, features, cotangent) for key, m in made.items()}
            )
        for key in made:
            row = {"part": "ideas", "threads": 1, "on": name, **case.shape, "method": key}
            yield {**row, "train_ms": taken[key]}


IDEAS_ON = (
    ("features of one scale", Case(128, 2, 512), {}),
    ("features of one scale", Case(612, 3, 500), {}),
    ("features of one scale", Case(196, 3, 128), {}),
    ("raw injection, features of scales 0.01 to 10", Case(128, 2, 512), {"equations": "paper"}),
)


@contextmanager
def _without_start() -> Iterator[None]:
    def zero(self, w, sizes: Sequence[int], *constants: Tensor | None) -> Tensor:
        return torch.zeros_like(next(c for c in constants if c is not None))

    with mock.patch.object(kernels.TwoLayerKernel, "start", zero):
        with mock.patch.object(kernels.GatedKernel, "start", zero):
            yield


def _without_batching() -> AbstractContextManager:
    by_cell = products.by_cell

    def one_by_one(sizes: Sequence[int], rows: Sequence[Tensor], of_cells: Sequence[Tensor]):
        for i, part in enumerate(zip(*(x.split(list(sizes)) for x in rows), strict=True)):
            yield from by_cell(sizes[i : i + 1], part, [t[i : i + 1] for t in of_cells])

    return mock.patch.object(products, "by_cell", one_by_one)


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
    "none": nullcontext,
    "approach in bfloat16": partial(
        mock.patch, "fusions.equilibrium.fast._bfloat16_pays", lambda rows: False
    ),
    "converged samples leave": partial(
        mock.patch, "fusions.equilibrium.solvers.PATIENCE", math.inf
    ),
    "cells batched in the solve": _without_batching,
    "start at the image of zero": _without_start,
    "last evaluation and product reused": _without_reuse,
    "LayerNorm's backward for GroupNorm's": _without_layer_norm,
}
