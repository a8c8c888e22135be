"""The systems and floors of CMU-MOSI, for its recipe and for `deq-fusion list`."""

from collections.abc import Mapping

from deq_fusion.examples.aligned_models import MODELS
from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {
    "linear": About(
        "ridge regression; CM-BERT's of tf-idf and mean audio",
        "classical",
        "vectors, or word pieces and audio",
        "width",
    ),
}


def systems(*, sequences: bool = False) -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name.

    Args:
        sequences: whether its file holds sequences, and not a vector an utterance.
    """
    return {**MODELS} if sequences else {**MODELS, **paradigms()}
