"""The rows: the map of DEQ fusion as an equilibrium and, to compare, weight-tied."""

from deq_fusion.examples.studies.study import Variant

TIED = 6  # steps that the weight-tied map is trained with
PENALTY, NONE = {"jacobian_weight": 1.0}, {"jacobian_weight": 0.0}
RELEASED = {"start": "released"}
ROWS = {
    "no_penalty": Variant("DEQ fusion, without penalty", NONE),
    "penalty": Variant("DEQ fusion, Jacobian penalty of weight 1", PENALTY),
    "released_start": Variant("DEQ fusion, started as torch starts linear maps", NONE | RELEASED),
    "released_start_penalty": Variant("that with the penalty", PENALTY | RELEASED),
    "tied": Variant(f"weight-tied: {TIED} steps of the map, backpropagated", {"unroll": TIED}),
    "tied_released_start": Variant(
        "that, started as torch starts linear maps", {"unroll": TIED} | RELEASED
    ),
}
OLD = {"full": "no_penalty"}
SOLVES = {  # name of a curve -> row, and how it is solved
    "no_penalty": ("no_penalty", "joint anderson"),
    "no_penalty, iterated": ("no_penalty", "joint picard"),
    "penalty": ("penalty", "joint anderson"),
    "released_start": ("released_start", "joint anderson"),
    "released_start_penalty": ("released_start_penalty", "joint anderson"),
    "tied": ("tied", "joint picard"),
    "tied_released_start": ("tied_released_start", "joint picard"),
}
"""Equilibria are solved for, weight-tied maps iterated as they were trained; one is both."""
