"""DynMM (Xue and Marculescu, 2023): a gate sends every sample to one of several experts."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .common_models import MLP


class OneModality(nn.Module):
    """An expert that reads one of the inputs alone, a list of them -> the network's output.

    Args:
        network: what maps that input.
        index: its place in the list.
    """

    def __init__(self, network: nn.Module, index: int = 0) -> None:
        super().__init__()
        self.network, self.index = network, index

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.network(inputs[self.index])


@dataclass(frozen=True)
class Shares:
    """How a batch was shared out.

    Attributes:
        experts: share of the samples that each expert got.
    """

    experts: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """Returns the shares under names, `share_of_expert_1` and so on."""
        return {f"share_of_expert_{i}": share for i, share in enumerate(self.experts, start=1)}


class DynMM(nn.Module):
    """Dynamic multimodal fusion on the level of modalities: each sample is one expert's.

    A gate reads all inputs x, flattened and joined, and weighs the experts E_k (Xue and
    Marculescu, 2023, sections 3.1 and 3.3):

        p = softmax(gate(x) / temperature)
        y = sum_k g_k E_k(x),    g = one_hot(argmax_k p_k)
        loss = task loss + cost_weight * mean over samples of sum_k costs_k g_k

    In training g passes the gradient of p straight through, dg/dp = 1, and every expert sees every
    sample. In evaluation an expert sees only the samples that are its own: the work of the others
    is saved, not multiplied by zero.

    The published procedure first trains every expert on its own, then the whole.

    Args:
        experts: modules that map the list of inputs to (batch, ...) of one shape, the cheapest
            first.
        input_dims: numbers a sample of each input, which the gate reads.
        hidden: width of the gate's hidden layer.
        costs: what each expert costs; by default 1 for the last and 0 for the others, as in the
            release.
        cost_weight: lambda, weight of the mean cost in the loss.
        temperature: of the softmax; positive.

    Attributes:
        auxiliary_loss: the weighted cost of the last forward in training; None after another.
        info: `Shares` of the last forward.

    Raises:
        ValueError: for other numbers; in the forward, for inputs of other sizes.
    """

    costs: Tensor

    def __init__(
        self,
        experts: Sequence[nn.Module],
        input_dims: Sequence[int],
        *,
        hidden: int = 128,
        costs: Sequence[float] | None = None,
        cost_weight: float = 0.1,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        costs = [0.0] * (len(experts) - 1) + [1.0] if costs is None else list(costs)
        if len(experts) < 2 or len(costs) != len(experts):
            raise ValueError(
                f"there must be two or more experts, and a cost for each, got {len(experts)} "
                f"experts and {len(costs)} costs"
            )
        if not temperature > 0 or not cost_weight >= 0:
            raise ValueError(
                "temperature must be positive, and cost_weight not negative, got "
                f"{temperature} and {cost_weight}"
            )
        self.experts = nn.ModuleList(experts)
        self.gate = MLP(sum(input_dims), hidden, len(experts))
        self.input_dims = tuple(input_dims)
        self.register_buffer("costs", torch.tensor(costs), persistent=False)
        self.cost_weight, self.temperature = cost_weight, temperature
        self.auxiliary_loss: Tensor | None = None
        self.info: Shares | None = None
        self._left: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "auxiliary_loss": None}

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        if self._left is not None:
            return self.experts[self._left](inputs)
        logits = self.gate(self._joined(inputs))
        if not self.training:
            self.auxiliary_loss = None
            return self._routed(inputs, logits.argmax(dim=1))
        weights = straight_through(logits / self.temperature)
        self.auxiliary_loss = self.cost_weight * (weights @ self.costs).mean()
        self.info = Shares(tuple(weights.detach().mean(dim=0).tolist()))
        outputs = torch.stack([expert(inputs) for expert in self.experts], dim=1)
        return torch.einsum("bk,bk...->b...", weights, outputs)

    def without(self, modality: int) -> AbstractContextManager[None] | None:
        """Returns a context in which a modality is not read; None if no expert can do without it.

        All samples go to the first expert of another modality alone, for the gate reads all.
        """
        for k, expert in enumerate(self.experts):
            if isinstance(expert, OneModality) and expert.index != modality:
                return self._only(k)
        return None

    @contextmanager
    def _only(self, expert: int) -> Iterator[None]:
        self._left = expert
        try:
            yield
        finally:
            self._left = None

    def _joined(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns all numbers of each sample, (batch, sum of input_dims)."""
        flat = [x.flatten(1) for x in inputs]
        sizes = tuple(x.shape[1] for x in flat)
        if sizes != self.input_dims:
            raise ValueError(
                f"inputs must be a list of tensors with {list(self.input_dims)} numbers a sample, "
                f"got {list(sizes)}; give all modalities, in the order of input_dims"
            )
        return torch.cat(flat, dim=1)

    def _routed(self, inputs: Sequence[Tensor], chosen: Tensor) -> Tensor:
        """Returns each sample's output from the expert that is chosen for it, and from no other."""
        rows = [(chosen == k).nonzero().squeeze(1) for k in range(len(self.experts))]
        self.info = Shares(tuple(len(own) / max(len(chosen), 1) for own in rows))
        outputs = [
            expert([x[own] for x in inputs])
            for expert, own in zip(self.experts, rows, strict=True)
            if len(own) or not len(chosen)
        ]
        return torch.cat(outputs)[torch.cat(rows).argsort()]


def straight_through(logits: Tensor) -> Tensor:
    """Returns the one-hot vector of the largest logit, with the gradient of their softmax.

    Bengio et al. (2013). Forward it is exactly 0 or 1.

    Args:
        logits: (batch, choices).
    """
    soft = logits.softmax(dim=1)
    hard = torch.zeros_like(soft).scatter(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())
