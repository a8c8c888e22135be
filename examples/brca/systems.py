"""The systems and floors of BRCA and ROSMAP, for its recipe and for `deq-fusion list`."""

from collections.abc import Mapping
from functools import partial

from torch.nn.functional import cross_entropy

from deq_fusion.examples.brca import mogonet
from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.training_structures.comparison import About, System

FLOORS: Mapping[str, About] = {
    "linear": About(
        "logistic regression, C = 0.1",
        "classical",
        "vectors, side by side",
        "width x classes",
    ),
    "gridge": About(
        "logistic ridge regression, a penalty for each omics by empirical Bayes",
        "van de Wiel et al., 2016",
        "vectors, side by side",
        "width x classes",
    ),
}


def systems() -> dict[str, System]:
    """Returns the published models that this benchmark compares whole, by name."""
    takes = "1 or more: vectors; train's patients are part of the model"
    cost = "3 products of each layer, for the patient and all of train"
    return {
        "mogonet": System(
            partial(mogonet.meet, False),
            "graph convolutions on each omics, then VCDN; patients who are predicted together "
            "reach each other",
            "Wang et al., 2021",
            takes,
            cost,
        ),
        "mogonet_inductive": System(
            partial(mogonet.meet, True),
            "MOGONET, each patient predicted on its own",
            "after Wang et al., 2021",
            takes,
            cost,
        ),
        **paradigms(of_heads=cross_entropy),  # the recipe's loss has more than a prediction
    }
