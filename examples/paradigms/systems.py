"""The paradigms as a recipe lists them."""

from collections.abc import Callable

from torch import Tensor

from deq_fusion.examples.paradigms.blended import blended
from deq_fusion.examples.paradigms.objectives import OBJECTIVES
from deq_fusion.examples.paradigms.searched import MFAS
from deq_fusion.training_structures.comparison import System


def paradigms(of_heads: Callable[..., Tensor] | None = None) -> dict[str, System]:
    """Returns MultiBench's paradigms by name.

    Args:
        of_heads: of gradient blending, the loss of a modality's head, of (prediction, truth); by
            default the recipe's.
    """
    return {"gradient_blend": blended(of_heads=of_heads), **OBJECTIVES, "mfas": MFAS}
