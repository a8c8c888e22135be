"""Quality-aware multimodal fusion, QMF (Zhang et al., 2023, arXiv:2306.02050)."""

import math
from collections.abc import Sequence

from torch import Tensor

from .equilibrium import checks
from .late_unimodal import Kept, LateUnimodal

SCALE = 0.1  # of the confidences, as released


class QMF(LateUnimodal):
    """Adds up the logits of each modality's linear head, weighted by their confidence.

        l_i = W_i x_i + b_i,    c_i = 0.1 log sum_k exp l_ik,    logits = sum_i c_i l_i

    The energy log sum exp is low where a head knows little. Besides the cross-entropy of every
    head, `supervised_loss` has a ranking: of two samples of the batch, neighbours in it, the one
    with the larger loss is to have the lower confidence,

        rank_weight * sum_i mean_b max(0, s_b (c_ib - c_i,b+1) - |r_ib - r_i,b+1|)

    r_ib is the loss of sample b and modality i, brought to [0, 1] within the batch (0 where all
    are the same), and s_b the sign of r_ib - r_i,b+1. The release subtracts the margin, as here,
    so that confidences within it may be in any order. It takes r from the losses of a sample
    added up over all epochs, for which a module would have to know which sample is which: here
    they are those of the moment. A pair counts where both have the modality. An absent one has
    no weight.

    The result are log-probabilities.

    Args:
        input_dims: width of each modality's features.
        num_classes: at least 2.
        rank_weight: weight of the ranking, 0 or more.
    """

    def __init__(
        self, input_dims: Sequence[int], num_classes: int, *, rank_weight: float = 1.0
    ) -> None:
        super().__init__(input_dims, num_classes)
        checks.check_range("rank_weight", rank_weight, 0, math.inf)
        self.rank_weight = rank_weight

    def weights(self, kept: Kept) -> Tensor:
        """Returns the confidences c_i, (..., N)."""
        return SCALE * kept.outputs.logsumexp(-1)

    def further_loss(self, kept: Kept, losses: Tensor) -> Tensor | float:
        """Returns the weighted ranking."""
        if not self.rank_weight:
            return 0.0
        here = kept.here.reshape(-1, losses.shape[-1])  # (B, N)
        ranks = unit_range(losses.detach().reshape_as(here), here)
        confidence = self.weights(kept).reshape_as(here)
        gap = ranks - ranks.roll(-1, 0)
        excess = gap.sign() * (confidence - confidence.roll(-1, 0)) - gap.abs()
        counted = (here & here.roll(-1, 0)).to(losses.dtype)
        pairs = (excess.clamp_min(0) * counted).sum(0) / counted.sum(0).clamp_min(1)
        return self.rank_weight * pairs.sum()


def unit_range(x: Tensor, counted: Tensor) -> Tensor:
    """Returns x (B, N) brought to [0, 1] column by column, over what is counted; else 0.

    A column whose counted entries are all the same becomes 0, not 0 / 0.
    """
    low = x.masked_fill(~counted, math.inf).amin(0)
    spread = x.masked_fill(~counted, -math.inf).amax(0) - low
    usable = counted & (spread > 0)
    return ((x - low) / spread).where(usable, 0)
