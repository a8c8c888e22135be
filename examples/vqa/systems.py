"""The systems and floors of VQA-v2, for its recipe and for `deq-fusion list`."""

from collections.abc import Mapping

from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {
    "most frequent": About(
        "the most frequent answer",
        "classical",
        "answers",
        "none",
    ),
    "naive Bayes": About(
        "naive Bayes of a question's words",
        "classical",
        "questions",
        "words x answers",
    ),
}


def systems() -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name."""
    return {}
