"""The systems and floors of the digits, for its recipe and for `deq-fusion list`."""

from collections.abc import Mapping

from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {}


def systems() -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name."""
    return paradigms()
