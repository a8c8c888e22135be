"""MultiBench's multimodal objectives around concatenation: CCA, RefNet, RMFE, MFM and MVAE.

Each takes a recipe's own encoders, head, optimiser and supervised loss, and adds the term that
makes it what it is. Weights of the terms are those of MultiBench's examples (Liang et al., 2021);
reconstructions are compared as its `sigmloss1d` compares them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

from torch import Tensor, nn

from deq_fusion.examples.paradigms.hosted import (
    Objective,
    Sizes,
    Step,
    Term,
    meet,
    nothing,
)
from deq_fusion.fusions.common_fusions import Concat
from deq_fusion.fusions.MVAE import ProductOfExperts_Zipped
from deq_fusion.objective_functions.cca import CCALoss
from deq_fusion.objective_functions.objectives_for_supervised_learning import (
    MFM_objective,
    MVAE_objective,
    RefNet_objective,
)
from deq_fusion.objective_functions.recon import sigmloss1d
from deq_fusion.objective_functions.regularization import RegularizationLoss
from deq_fusion.training_structures.comparison import Recipe, System
from deq_fusion.unimodals.common_models import MLP

CRITERIA: Mapping[str, nn.Module] = {
    "classification": nn.CrossEntropyLoss(),
    "multilabel": nn.BCEWithLogitsLoss(),
    "regression": nn.L1Loss(),
}
CCA_WEIGHT, REF_WEIGHT, RMFE_WEIGHT = 1e-3, 0.1, 1e-10
SUPERVISED = 2.0  # what the supervised loss counts beside reconstructions that count 1 each


def concatenated(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
    """Returns concatenation, and its width."""
    return Concat(), sum(input_dims)


def correlation(sizes: Sizes) -> Term:
    """Returns minus the canonical correlations of the features, over all pairs of modalities."""
    return partial(_correlation, CCALoss(min(sizes.features), False))


def _correlation(loss: CCALoss, step: Step) -> Tensor:
    return CCA_WEIGHT * sum(loss(*pair) for pair in combinations(step.features, 2))


def influence(task: str, sizes: Sizes) -> Term:
    """Returns the regulariser by which every modality is to matter to the prediction."""
    return partial(_influence, CRITERIA[task])


def _influence(criterion: nn.Module, step: Step) -> Tensor:
    regulariser = RegularizationLoss(criterion, step.model, RMFE_WEIGHT, False)
    return regulariser(step.prediction, step.inputs)


def refined(sizes: Sizes) -> Term:
    """Returns the distance of the inputs from what a refiner makes of the fused feature."""
    refiner = MLP(sizes.fused, 3 * sizes.fused, sum(sizes.inputs))
    return Objective(RefNet_objective(REF_WEIGHT, nothing), 1.0, {"refiner": refiner})


class Factorised(nn.Module):
    """Concatenation and a network with a hidden layer: the code of all modalities.

    Args:
        input_dims: widths of the features.
        dim: width of the code.
    """

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        self.concat, self.network = Concat(), MLP(sum(input_dims), 2 * dim, dim)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps features (batch, d_i) to the code, (batch, dim)."""
        return self.network(self.concat(features))


def factorised(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
    """Returns the code of all modalities, and its width."""
    return Factorised(input_dims, dim), dim


def reconstructed(sizes: Sizes) -> Term:
    """Returns the loss of inputs made anew from a code of each modality and that of all."""
    code = sizes.fused
    own = nn.ModuleList(MLP(width, width, code) for width in sizes.features)
    decoders = nn.ModuleList(MLP(2 * code, 2 * code, width) for width in sizes.inputs)
    losses = [sigmloss1d] * len(sizes.inputs)
    objective = MFM_objective(0.0, losses, [1.0] * len(losses), criterion=nothing)
    return Objective(objective, 1 / SUPERVISED, {"intermediates": own, "decoders": decoders})


class Variational(nn.Module):
    """A Gaussian code of each modality, multiplied: the fused feature is the product's mean.

    Args:
        input_dims: widths of the features.
        dim: width of the code.
    """

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(width, 2 * dim) for width in input_dims)
        self.product = ProductOfExperts_Zipped((1, len(input_dims), dim))

    def codes(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Returns mean and log variance of each modality, (batch, dim) both."""
        pairs = zip(self.experts, features, strict=True)
        return [expert(x).chunk(2, dim=1) for expert, x in pairs]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps features (batch, d_i) to the mean of the code of all, (batch, dim)."""
        return self.product(self.codes(features))[0]


def variational(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
    """Returns the product of the modalities' codes, and its width."""
    return Variational(input_dims, dim), dim


class Bound(nn.Module):
    """The evidence lower bounds of all modalities and of each, as a term."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        code, losses = sizes.fused, [sigmloss1d] * len(sizes.inputs)
        decoders = nn.ModuleList(MLP(code, 2 * code, width) for width in sizes.inputs)
        objective = MVAE_objective(0.0, losses, [1.0] * len(losses), criterion=nothing)
        self.objective = Objective(objective, 1 / SUPERVISED, {"decoders": decoders})

    def forward(self, step: Step) -> Tensor:
        """Returns the weighted negative bounds of a step."""
        codes = step.fusion.codes(step.features)
        product = step.fusion.product(codes)
        return self.objective(replace(step, features=codes, fused=product))


def meet_rmfe(recipe: Recipe) -> Recipe:
    """The recipe around concatenation, with RMFE's regulariser (Gat et al., 2020)."""
    return meet(concatenated, partial(influence, recipe.task), recipe)


def _system(
    meet: Callable[[Recipe], Recipe], summary: str, source: str, in_training: str
) -> System:
    """Returns a paradigm of vectors, which costs more than the network in training alone."""
    cost = f"the network's own, and in training {in_training}"
    return System(meet, summary, source, "2 or more: vectors", cost, modalities=(2, None))


OBJECTIVES: Mapping[str, System] = {
    "cca": _system(
        partial(meet, concatenated, correlation),
        "concatenation, features of modalities correlated (deep CCA)",
        "Andrew et al., 2013",
        "d^3 a batch",
    ),
    "refnet": _system(
        partial(meet, concatenated, refined),
        "concatenation, from which the inputs are refined (RefNet)",
        "Sankaran et al., 2021",
        "3 N d (N d + all inputs)",
    ),
    "rmfe": _system(
        meet_rmfe,
        "concatenation, modalities made to matter by functional entropy (RMFE)",
        "Gat et al., 2020",
        "ten noisy copies, differentiated twice",
    ),
    "mfm_vectors": _system(
        partial(meet, factorised, reconstructed),
        "a code of all modalities and one of each, which make the inputs (MFM of vectors)",
        "Tsai et al., 2019; Liang et al., 2021",
        "4 d (N d + all inputs)",
    ),
    "mvae": _system(
        partial(meet, variational, Bound),
        "product of Gaussian codes, which make the inputs (MVAE)",
        "Wu and Goodman, 2018",
        "twice 2 d (N d + all inputs)",
    ),
}
