"""The paradigms as a recipe lists them."""

from collections.abc import Callable

from torch import Tensor

from deq_fusion.examples.paradigms.balanced import balanced
from deq_fusion.examples.paradigms.blended import blended
from deq_fusion.examples.paradigms.experts import I2MOE
from deq_fusion.examples.paradigms.objectives import OBJECTIVES
from deq_fusion.examples.paradigms.searched import MFAS
from deq_fusion.training_structures.comparison import System


def paradigms(of_heads: Callable[..., Tensor] | None = None) -> dict[str, System]:
    """Returns MultiBench's paradigms and newer ones around any fusion, by name.

    Args:
        of_heads: of gradient blending, OGM-GE and MMPareto, the loss of a modality's head, of
            (prediction, truth); by default the recipe's.
    """
    newer = {**balanced(of_heads), "i2moe": I2MOE}
    return {"gradient_blend": blended(of_heads=of_heads), **OBJECTIVES, "mfas": MFAS, **newer}
