"""Training that keeps modalities in balance, around any fusion: OGM-GE and MMPareto, as systems.

A linear head on what reaches the fusion of each modality tells what it alone predicts. What lies
before that is the modality's encoder, whose gradients are changed; the fusion and what follows it
learn as ever, and the prediction is the network's own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deq_fusion.examples.paradigms.around import Around, named, recipe_around
from deq_fusion.examples.paradigms.blended import pooled
from deq_fusion.training_structures import gradient_modulation, pareto
from deq_fusion.training_structures.comparison import Recipe, System
from deq_fusion.training_structures.gradient_modulation import parameters_behind
from deq_fusion.training_structures.objectives import loss_of


class Balanced(Around):
    """A model with a linear head on each feature that reaches its fusion.

    In training its `supervised_loss` is the sum of the heads' losses, each over the samples that
    have the modality where the fusion is told (`present`). In evaluation it is the host.

    Args:
        host: the model; in training it must call the fusion once, with the list of features.
        fusion: the fusion in it.
        input_dims: widths of the features. Of a sequence a head sees the mean over the time.
        outputs: width of a prediction.
        loss: of a head, of (prediction, truth).
    """

    def __init__(
        self,
        host: nn.Module,
        fusion: nn.Module,
        input_dims: Sequence[int],
        outputs: int,
        *,
        loss: Callable[..., Tensor],
    ) -> None:
        super().__init__(host, fusion)
        self.heads = nn.ModuleList(nn.Linear(width, outputs) for width in input_dims)
        self.loss = loss
        self.seen: list[tuple[Sequence[Tensor], Tensor | None]] = []

    def forward(self, inputs: Any) -> Any:
        """Returns what the host returns.

        Raises:
            ValueError: in training, unless the fusion is called once, on features of which one
                at least was learnt.
        """
        self.seen = []
        if not (self.training and torch.is_grad_enabled()):
            return self.host(inputs)
        options: dict[str, bool] = {"prepend": True, "with_kwargs": True}
        with self.fusion.register_forward_pre_hook(self._take, **options):
            output = self.host(inputs)
        if len(self.seen) != 1:
            raise ValueError(
                "balancing needs a model that calls its fusion once a batch, but "
                f"{type(self.host).__name__} called it {len(self.seen)} times"
            )
        return output

    def _take(self, fusion: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        given = list(args[0])
        behind = [parameters_behind(x) for x in given]
        if not any(behind):
            raise ValueError(
                "balancing needs encoders that learn before the fusion, but "
                f"{type(self.host).__name__} has none"
            )
        features, own = self.parted(given, behind)
        self.seen.append((own, kwargs.get("present")))
        return (features, *args[1:]), kwargs

    def parted(
        self, features: list[Tensor], behind: list[list[nn.Parameter]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the features as the fusion gets them, and as the heads do.

        Args:
            features: one for each modality.
            behind: the parameters of each one's encoder.
        """
        raise NotImplementedError

    def supervised_loss(self, truth: Tensor) -> Tensor | float:
        """Returns the sum of the heads' losses of the last training forward, a scalar."""
        if not self.seen:
            return 0.0
        (own, present), self.seen = self.seen[0], []
        pairs = [(head(pooled(x)), truth) for head, x in zip(self.heads, own, strict=True)]
        if present is not None:
            pairs = [(p[here], t[here]) for (p, t), here in zip(pairs, present.T, strict=True)]
        self.compared([(p.detach(), t) for p, t in pairs])
        return sum(loss_of(self.loss, p, t) if len(p) else 0 * p.sum() for p, t in pairs)

    def compared(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Is told (prediction, truth) of every head, before the backward."""


class OnTheFly(Balanced):
    """OGM-GE (Peng et al., 2022): gradients of encoders that lead are reduced, all are noised.

    The paper reads what a modality predicts off its part of a linear classifier behind
    concatenation. Behind other fusions there is none: a head learns on the feature, from which
    no gradient comes back. Parameters that several modalities share are left as they are.

    Args:
        host: see `Balanced`.
        fusion: likewise.
        input_dims: likewise.
        outputs: likewise.
        loss: likewise.
        alpha: how much is reduced, from 0, nothing.
        noise: whether noise is added.
        labels: whether labels may hold together, see `probability_of_truth`.
    """

    def __init__(
        self,
        host: nn.Module,
        fusion: nn.Module,
        input_dims: Sequence[int],
        outputs: int,
        *,
        loss: Callable[..., Tensor],
        alpha: float,
        noise: bool,
        labels: bool,
    ) -> None:
        super().__init__(host, fusion, input_dims, outputs, loss=loss)
        self.alpha, self.noise, self.labels = alpha, noise, labels
        self.encoders: list[list[nn.Parameter]] = []
        self.handles: list[RemovableHandle] = []

    def forward(self, inputs: Any) -> Any:
        """Returns what the host returns, see `Balanced`."""
        self.released()
        return super().forward(inputs)

    def released(self) -> None:
        """Lets gradients be what they are again."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def parted(
        self, features: list[Tensor], behind: list[list[nn.Parameter]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the features for the fusion, and for the heads without a way back."""
        self.encoders = gradient_modulation.apart(behind)
        return features, [x.detach() for x in features]

    def compared(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Sets what the next backward makes of the encoders' gradients."""
        scores = [
            gradient_modulation.probability_of_truth(p, t, labels=self.labels) for p, t in pairs
        ]
        factors = gradient_modulation.coefficients(torch.stack(scores), self.alpha)
        self.released()
        self.handles = gradient_modulation.modulate(self.encoders, factors, noise=self.noise)
        self.encoders = []


class Pareto(Balanced):
    """MMPareto (Wei and Hu, 2024): encoders learn from their heads as far as that does no harm.

    What an encoder learns by other ways than its feature, as by losses of the host, stays.

    Args:
        host: see `Balanced`.
        fusion: likewise.
        input_dims: likewise.
        outputs: likewise.
        loss: likewise.
        gamma: by which the encoders' gradients are lengthened.
    """

    def __init__(
        self,
        host: nn.Module,
        fusion: nn.Module,
        input_dims: Sequence[int],
        outputs: int,
        *,
        loss: Callable[..., Tensor],
        gamma: float,
    ) -> None:
        super().__init__(host, fusion, input_dims, outputs, loss=loss)
        self.gamma = gamma

    def parted(
        self, features: list[Tensor], behind: list[list[nn.Parameter]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the features for the fusion and for the heads, whose gradients then meet."""
        pairs = zip(features, behind, strict=True)
        met_pairs = [pareto.meeting(x, parameters, self.gamma) for x, parameters in pairs]
        return [a for a, _ in met_pairs], [b for _, b in met_pairs]


def meet_ogm_ge(
    of_heads: Callable[..., Tensor] | None,
    recipe: Recipe,
    *,
    fusion: str = "concat",
    alpha: float = 0.1,
    noise: bool = True,
) -> Recipe:
    """The recipe around a fusion, trained with OGM-GE; see `OnTheFly`.

    In the authors' release it ends after half of the training; here it goes on to the end.

    Args:
        of_heads: the loss of a head; None: the recipe's, which does if it takes no more.
        recipe: a benchmark's, of classes or labels.
        fusion: its name in the registry.
        alpha: how much is reduced; above 0.
        noise: whether noise is added, the GE of the name.

    Raises:
        ValueError: for numbers to predict, and for options that make no sense.
    """
    if recipe.task == "regression":
        raise ValueError("compares probabilities of what is true, and this benchmark has numbers")
    _check_positive(alpha=alpha)
    chosen = named(fusion, recipe)
    how: dict[str, Any] = {"alpha": alpha, "noise": noise, "labels": recipe.task == "multilabel"}
    wrap = partial(OnTheFly, loss=of_heads or recipe.objective, **how)
    return recipe_around(recipe, chosen, wrap, chosen.rate)


def meet_mmpareto(
    of_heads: Callable[..., Tensor] | None,
    recipe: Recipe,
    *,
    fusion: str = "concat",
    gamma: float = 1.5,
) -> Recipe:
    """The recipe around a fusion, trained with MMPareto; see `Pareto`.

    Args:
        of_heads: the loss of a head; None: the recipe's, which does if it takes no more.
        recipe: a benchmark's.
        fusion: its name in the registry.
        gamma: by which the encoders' gradients are lengthened; above 0.

    Raises:
        ValueError: for options that make no sense.
    """
    _check_positive(gamma=gamma)
    chosen = named(fusion, recipe)
    return recipe_around(
        recipe,
        chosen,
        partial(Pareto, loss=of_heads or recipe.objective, gamma=gamma),
        chosen.rate,
    )


def _check_positive(**numbers: Any) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise ValueError(f"{name} must be a positive number, got {value!r}")


def balanced(of_heads: Callable[..., Tensor] | None = None) -> dict[str, System]:
    """Returns OGM-GE and MMPareto by name.

    Args:
        of_heads: the loss of a modality's head, of (prediction, truth); by default the recipe's.
    """
    return {
        "ogm_ge": System(
            partial(meet_ogm_ge, of_heads),
            "a fusion (concat); in training encoders that lead learn more slowly (OGM-GE)",
            "Peng et al., 2022",
            "2 or more, with classes or labels; else as the fusion",
            "the fusion's, and in training N d outputs",
            modalities=(2, None),
        ),
        "mmpareto": System(
            partial(meet_mmpareto, of_heads),
            "a fusion (concat); in training encoders learn from heads of their own, where that "
            "does no harm (MMPareto)",
            "Wei and Hu, 2024",
            "2 or more; else as the fusion",
            "the fusion's, and in training N d outputs and three backwards of the encoders",
            modalities=(2, None),
        ),
    }
