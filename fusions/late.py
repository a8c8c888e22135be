"""Late fusion: every modality predicts on its own, and the predictions are averaged."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .modalities import check_widths, finite, without_absent


class LateFusion(nn.Module):
    """Averages the predictions of one linear head for each modality.

        probabilities:  log (1/N) sum_i softmax(W_i x_i + b_i)
        otherwise:      (1/N) sum_i (W_i x_i + b_i)

    Cross-entropy applies to the first, which are log-probabilities; the second serves
    regression and several labels at once. The mean is over the modalities that are present.

    Args:
        input_dims: width of each modality's features.
        outputs: number of classes, or of predicted values.
        probabilities: whether to average probabilities or the outputs themselves.
    """

    def __init__(
        self, input_dims: Sequence[int], outputs: int, *, probabilities: bool = True
    ) -> None:
        super().__init__()
        check_widths(input_dims, outputs=outputs)
        if probabilities and outputs < 2:
            raise ValueError(
                f"probabilities=True must have at least 2 outputs (classes), got {outputs}; "
                "pass probabilities=False for a single value"
            )
        self.input_dims, self.probabilities = tuple(input_dims), probabilities
        self.heads = nn.ModuleList(nn.Linear(width, outputs) for width in input_dims)

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to (..., outputs).

        Args:
            features: floating-point tensors in the order of `input_dims`.
            present: (..., N) bool, the modalities that a sample has, one at least.
        """
        features = without_absent(self, features, self.input_dims, present)
        y = torch.stack([head(x) for head, x in zip(self.heads, features, strict=True)], -2)
        y = y.to(self.heads[0].weight.dtype)  # under autocast too
        absent = None if present is None else ~present.unsqueeze(-1)  # (..., N, 1)
        count = len(features) if present is None else present.sum(-1, keepdim=True)
        if not self.probabilities:
            return finite((y if absent is None else y.masked_fill(absent, 0)).sum(-2) / count)
        logs = y.log_softmax(-1)
        if absent is None:
            return finite(logs.logsumexp(-2) - math.log(count))
        return finite(logs.masked_fill(absent, -math.inf).logsumexp(-2) - count.to(logs).log())
