"""I2MoE (Xin et al., 2025, arXiv:2505.19190): experts for the ways in which modalities interact.

Of N modalities each has an expert of what it alone tells, one expert is of what they tell
together, one of what each tells by itself already. What makes them so is a loss of how an expert's
output y changes to y_i when modality i is replaced by noise:

    uniqueness of m    mean over i != m of max(0, |y - y_i| - |y - y_m| + 1)
    synergy            mean over i of similarity(y, y_i)
    redundancy         mean over i of 1 - similarity(y, y_i)

and the prediction is a mean of the outputs, weighted by a network of all features, sample by
sample.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import check_widths

MARGIN = 1.0


class Expert(nn.Module):
    """A fusion and a linear head.

    Args:
        fusion: maps a list of (batch, d_i) tensors to (batch, width).
        width: of its result.
        outputs: width of the prediction.
    """

    def __init__(self, fusion: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.fusion, self.head = fusion, nn.Linear(width, outputs)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features (batch, d_i) to (batch, outputs), see `InteractionExperts`."""
        told = {} if present is None else {"present": present}
        return self.head(self.fusion(features, **told))


class InteractionExperts(nn.Module):
    """A mixture of experts that each see one kind of interaction; it predicts on its own.

    The loss that makes them so is `auxiliary_loss`, the mean over the experts times `weight`. The
    similarity in it is the cosine of the outputs. Numbers to predict are too few for an angle:
    with `numbers` it is exp(-|y - y_i|^2), our own choice, bounded as the cosine is. (The
    authors' release takes squared distances there, which nothing bounds from below.)

    In training every expert is called once, with the batch and its N noised copies as one batch.

    Args:
        experts: N + 2 modules, of features to (batch, outputs): that of each modality, that of
            synergy, that of redundancy.
        input_dims: widths d_i of the features.
        numbers: whether the outputs are numbers to predict, and not logits.
        weight: of the loss.
        hidden: width of the network that weighs the experts.
        dropout: in that network.

    Raises:
        ValueError: for fewer than two modalities, or another number of experts.
    """

    def __init__(
        self,
        experts: Iterable[nn.Module],
        input_dims: Sequence[int],
        *,
        numbers: bool = False,
        weight: float = 0.01,
        hidden: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_widths(input_dims, hidden=hidden)
        self.experts, count = nn.ModuleList(experts), len(input_dims)
        if count < 2 or len(self.experts) != count + 2:
            raise ValueError(
                "experts must be one for each of two modalities or more, one of synergy and one of "
                f"redundancy, got {len(self.experts)} for {count} modalities"
            )
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        self.input_dims, self.numbers, self.weight = tuple(input_dims), numbers, weight
        self.weigh = nn.Sequential(
            nn.Linear(sum(input_dims), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, count + 2),
        )
        self.auxiliary_loss: Tensor | None = None

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, (batch, d_i) tensors, to the prediction, (batch, outputs).

        Args:
            features: one for each modality.
            present: (batch, N) bool, the modalities that a sample has; noise replaces no others.
        """
        self.auxiliary_loss = None
        shares = self.importance(features, present=present)
        if self.training and torch.is_grad_enabled():
            outputs = self._noised(features, present)
            self.auxiliary_loss = self.weight * self.interaction_loss(outputs)
            outputs = outputs[:, 0]
        else:
            outputs = torch.stack([expert(features, present=present) for expert in self.experts])
        return torch.einsum("ebk,be->bk", outputs, shares)

    def importance(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Returns what each expert's output counts, (batch, N + 2), which sums to 1.

        Args:
            features: see `forward`.
            present: see `forward`; what is absent is seen as zeros.
        """
        if present is not None:
            pairs = zip(features, present.unbind(1), strict=True)
            features = [torch.where(here[:, None], x, 0) for x, here in pairs]
        return self.weigh(torch.cat(list(features), 1)).softmax(1)

    def _noised(self, features: Sequence[Tensor], present: Tensor | None) -> Tensor:
        """Returns outputs, (experts, 1 + N, batch, outputs), as they are and without each."""
        count = len(features)
        together = None if present is None else present.repeat(1 + count, 1)
        outputs = []
        for expert in self.experts:
            copies = [
                torch.cat([torch.randn_like(x) if i + 1 == k else x for k in range(1 + count)])
                for i, x in enumerate(features)
            ]
            made = expert(copies, present=together)
            outputs.append(made.unflatten(0, (1 + count, -1)))
        return torch.stack(outputs)

    def interaction_loss(self, outputs: Tensor) -> Tensor:
        """Returns the mean of the experts' losses, a scalar.

        Args:
            outputs: (N + 2, 1 + N, batch, outputs): of each expert its output, then those with
                modality 0, 1, ... replaced.
        """
        losses = [_uniqueness(own, m) for m, own in enumerate(outputs[:-2])]
        synergy, redundancy = (self._similarity(own[:1], own[1:]).mean() for own in outputs[-2:])
        return torch.stack([*losses, synergy, 1 - redundancy]).mean()

    def _similarity(self, a: Tensor, b: Tensor) -> Tensor:
        if self.numbers:
            return (-(a - b).square().sum(-1)).exp()
        return F.cosine_similarity(a, b, dim=-1)


def _uniqueness(outputs: Tensor, modality: int) -> Tensor:
    """Returns the triplet loss: replacing that modality matters more than replacing another."""
    whole, *noised = outputs
    away = noised.pop(modality)
    losses = [F.triplet_margin_loss(whole, near, away, margin=MARGIN) for near in noised]
    return torch.stack(losses).mean()
