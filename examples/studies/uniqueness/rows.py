"""The rows: DEQ fusion by how it starts, and a map that has one fixed point by construction."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from deq_fusion.examples.studies.candidates.contractive import ContractiveFusion
from deq_fusion.examples.studies.study import Build, Variant
from deq_fusion.fusions.adapters import Sized

SOLVES = (
    *("solver", "tol", "max_steps", "backward_tol", "backward_max_steps"),
    *("on_failure", "gradient"),
)


def contractive(build: Build) -> Build:
    """Returns what builds `ContractiveFusion` with DEQ fusion's injection and solves.

    Args:
        build: DEQ fusion's constructor with an injection.
    """
    return partial(_contractive, build)


def _contractive(build: Build, input_dims: Sequence[int], dim: int, **options: Any) -> Sized:
    deq, width = build(input_dims, dim, **options)
    solves = {name: getattr(deq.equilibrium, name) for name in SOLVES}
    fusion = ContractiveFusion(
        input_dims, width, equations=deq.equations, groups=deq.groups, **solves
    )
    return fusion, width


NONE = {"jacobian_weight": 0.0}
ROWS = {
    "deq": Variant("DEQ fusion, recurrent terms 0.1 of the injected at the start", NONE),
    "start_1": Variant("DEQ fusion, as large as the injected", NONE | {"start": 1.0}),
    "released_start": Variant(
        "DEQ fusion, started as torch starts linear maps", NONE | {"start": "released"}
    ),
    "released_start_penalty": Variant(
        "that, Jacobian penalty of weight 1", {"jacobian_weight": 1.0, "start": "released"}
    ),
    "contractive": Variant("a map with one fixed point by construction", wrap=contractive),
}
