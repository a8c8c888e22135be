"""The systems and floors of synthetic vectors, for their recipe and for `deq-fusion list`."""

from collections.abc import Mapping

from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {
    "bayes": About(
        "the best possible rule, which knows how the set is drawn: a ceiling",
        "classical",
        "the modalities that are there",
        "none that is learnt",
    ),
    "linear": About(
        "logistic regression, C = 1",
        "classical",
        "vectors, side by side",
        "width x classes",
    ),
}


def systems() -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name."""
    return paradigms()
