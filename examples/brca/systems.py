"""The systems and floors of BRCA and ROSMAP, for its recipe and for `deq-fusion list`."""

from collections.abc import Mapping

from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {
    "linear": About(
        "logistic regression, C = 0.1",
        "classical",
        "vectors, side by side",
        "width x classes",
    ),
}


def systems() -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name."""
    return {}
