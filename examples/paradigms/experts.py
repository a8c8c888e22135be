"""I2MoE (Xin et al., 2025) as a system: a recipe's network around experts that are all one fusion.

Its weights start apart from expert to expert; in the authors' release all are copies of one.
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from deq_fusion.examples.paradigms.around import Around, named, recipe_around
from deq_fusion.fusions.interaction_experts import Expert, InteractionExperts
from deq_fusion.training_structures.comparison import Fusion, Recipe, System


class AroundExperts(Around):
    """A model whose fusion is a mixture of experts.

    Args:
        host: the model.
        fusion: the mixture in it.
        input_dims: widths of the features.
        outputs: width of a prediction.
    """

    def __init__(
        self, host: nn.Module, fusion: nn.Module, input_dims: Sequence[int], outputs: int
    ) -> None:
        super().__init__(host, fusion)

    def fusions(self) -> list[nn.Module]:
        """Returns the fusions of the experts."""
        return [expert.fusion for expert in self.fusion.experts]


def mixture(
    fusion: Fusion,
    numbers: bool,
    weight: float,
    input_dims: Sequence[int],
    dim: int,
    outputs: int,
) -> tuple[nn.Module, None]:
    """Returns the mixture of experts around fusions, which predicts on its own."""
    made = [fusion(input_dims, dim, outputs) for _ in range(len(input_dims) + 2)]
    experts = [Expert(module, width, outputs) for module, width in made]
    return InteractionExperts(experts, input_dims, numbers=numbers, weight=weight), None


def meet(recipe: Recipe, *, fusion: str = "concat", weight: float = 0.01) -> Recipe:
    """The recipe around I2MoE's experts, whose fusions are one of the registry.

    Args:
        recipe: a benchmark's, whose features are vectors.
        fusion: its name in the registry.
        weight: of the loss that sets the experts apart, from 0; 0.01 in the authors' release.

    Raises:
        ValueError: for a recipe of sequences, and for options that make no sense.
    """
    if recipe.features != "vectors":
        raise ValueError(f"takes vectors, and this benchmark fuses {recipe.features}")
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not weight >= 0:
        raise ValueError(f"weight must be a number of at least 0, got {weight!r}")
    chosen = named(fusion, recipe, headed=True)
    experts = partial(mixture, chosen, recipe.task == "regression", weight)
    return recipe_around(recipe, experts, AroundExperts, chosen.rate)


I2MOE = System(
    meet,
    "experts of what each modality tells, all together, and each already, every one a fusion "
    "(concat), weighted a sample (I2MoE)",
    "Xin et al., 2025",
    "2 or more: vectors",
    "N + 2 times the fusion's, in training N + 1 times as often; 256 (N d + N + 2)",
    modalities=(2, None),
)
