"""The systems and floors of synthetic sequences, for their recipe and for `deq-fusion list`."""

from collections.abc import Mapping

from deq_fusion.examples.aligned_models import MODELS
from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {
    "constant": About("the mean of what is known", "classical", "nothing", "none"),
    "linear": About(
        "ridge regression, alpha 10",
        "classical",
        "all numbers of all steps",
        "steps x width",
    ),
}


def systems() -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name."""
    return {**MODELS}
