"""What is trained: the map of DEQ fusion as an equilibrium and, to compare, weight-tied."""

from deq_fusion.examples.studies.study import Variant

TIED = 6  # steps that the weight-tied map is trained with
PENALTY, NONE = {"jacobian_weight": 1.0}, {"jacobian_weight": 0.0}
RELEASED = {"start": "released"}
ROWS = {
    "full": Variant("DEQ fusion, without penalty", NONE),
    "penalty": Variant("DEQ fusion, Jacobian penalty of weight 1", PENALTY),
    "released_start": Variant("DEQ fusion, started as torch starts linear maps", NONE | RELEASED),
    "released_start_penalty": Variant("that with the penalty", PENALTY | RELEASED),
    "tied": Variant(f"weight-tied: {TIED} steps of the map, backpropagated", {"unroll": TIED}),
    "tied_released_start": Variant(
        "that, started as torch starts linear maps", {"unroll": TIED} | RELEASED
    ),
}
