"""The systems and floors of MM-IMDB, for its recipe and for `deq-fusion list`."""

from collections.abc import Mapping

from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {
    "linear": About(
        "logistic regression, one a genre, C = 1",
        "classical",
        "vectors, standardised, side by side",
        "width x genres",
    ),
}


def systems() -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name."""
    return {}
