"""What is trained: the map of DEQ fusion as an equilibrium and, to compare, weight-tied."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from examples.studies import Build, Variant
from fusions.adapters import Sized
from fusions.deq import DEQFusion

TIED = 6  # steps that the weight-tied map is trained with


def released_start(build: Build) -> Build:
    """Returns what builds the fusion with the start of the authors' release."""
    return partial(_released_start, build)


def _released_start(build: Build, input_dims: Sequence[int], dim: int, **options: object) -> Sized:
    fusion, width = build(input_dims, dim, **options)
    start_as_linear(fusion)
    return fusion, width


def start_as_linear(fusion: DEQFusion) -> None:
    """Gives the map the weights that `nn.Linear` starts with: uniform, of bound 1 / sqrt(d).

    So the release starts, biases included. Nothing makes the map contract then.
    """
    cells, fuse, bound = fusion.unimodal, fusion.fuse, 1 / math.sqrt(fusion.dim)
    cells.scales, fuse.scale = (1.0, 1.0), 1.0
    with torch.no_grad():
        for linear in (cells.weight1, cells.bias1, cells.weight2, cells.bias2):
            linear.uniform_(-bound, bound)
        for linear in (fuse.gate_weight, fuse.gate_bias, fuse.weight, fuse.bias):
            linear.uniform_(-bound, bound)


PENALTY, NONE = {"jacobian_weight": 1.0}, {"jacobian_weight": 0.0}
ROWS = {
    "full": Variant("DEQ fusion, without penalty", NONE),
    "penalty": Variant("DEQ fusion, Jacobian penalty of weight 1", PENALTY),
    "released_start": Variant(
        "DEQ fusion, started as torch starts linear maps", NONE, wrap=released_start
    ),
    "released_start_penalty": Variant("that with the penalty", PENALTY, wrap=released_start),
    "tied": Variant(f"weight-tied: {TIED} steps of the map, backpropagated", {"unroll": TIED}),
    "tied_released_start": Variant(
        "that, started as torch starts linear maps", {"unroll": TIED}, wrap=released_start
    ),
}
