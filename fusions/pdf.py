"""Predictive dynamic fusion, PDF (Cao et al., 2024, arXiv:2406.04802)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .late_unimodal import Kept, LateUnimodal
from .modalities import check_widths

STEEP = 15.0  # from here on log softplus(-u) is -u to 2e-7


class PDF(LateUnimodal):
    """Adds up the logits of each modality's linear head, weighted by predicted confidences.

    A small network per modality predicts how probable its head finds the true class, p_i =
    sigmoid(u_i). The weights come from that (mono-confidence) and from how the others compare
    (holo-confidence), and are constants to the gradient:

        h_i = sum_{j != i} log p_j / sum_j log p_j
        w = softmax_i(k_i (p_i + h_i)),    logits = sum_i w_i l_i

    k_i = 1 in training. In evaluation it holds down a modality whose prediction is nearer to
    uniform than the others', with D_i the mean of |softmax(l_i) - 1/K| over the classes:

        k_i = min(1, D_i / mean_{j != i} D_j)

    `supervised_loss` is the sum over modalities of the cross-entropy of l_i and of
    |p_i - softmax(l_i)_y|, y the true class. The networks see features, and the probabilities,
    without a gradient. All is over the modalities that are present. For two modalities these are
    the formulas of the release, for more k_i is by the mean.

    -log p_i = softplus(-u_i), and 1 - h is the softmax of the logarithms of these: no p is 0 or 1
    here, and nothing is divided by zero, which is where the release gets its NaNs from. Its
    networks have no nonlinearity between their linear maps; here there is a ReLU.

    The result are log-probabilities.

    Args:
        input_dims: width of each modality's features.
        num_classes: K, at least 2.
        hidden: width of the networks that predict p_i.
    """

    def __init__(self, input_dims: Sequence[int], num_classes: int, *, hidden: int = 64) -> None:
        super().__init__(input_dims, num_classes)
        check_widths(input_dims, hidden=hidden)
        self.confidence = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            for width in input_dims
        )

    def weights(self, kept: Kept) -> Tensor:
        """Returns the weights w_i, (..., N), detached."""
        with torch.no_grad():
            u = self._predicted(kept)
            belief = u.sigmoid() + holo_confidence(u, kept.here)
            if not self.training:
                belief = belief * calibration(kept.outputs.softmax(-1), kept.here)
            return belief.masked_fill(~kept.here, -torch.inf).softmax(-1)

    def further_loss(self, kept: Kept, losses: Tensor) -> Tensor | float:
        """Returns how far the predicted confidences are off, summed over modalities."""
        true = (-losses.detach()).exp()  # the losses are -log of the true class's probability
        off = (self._predicted(kept).sigmoid() - true).abs()
        return off.where(kept.here, 0).sum(-1).mean()

    def _predicted(self, kept: Kept) -> Tensor:
        """Returns u_i, (..., N)."""
        pairs = zip(self.confidence, kept.features, strict=True)
        u = torch.cat([network(x.detach()) for network, x in pairs], -1)
        return u.to(kept.outputs.dtype)


def holo_confidence(u: Tensor, here: Tensor) -> Tensor:
    """Returns h_i of p_i = sigmoid(u_i) over the modalities that are here, (..., N) each."""
    surprise = torch.where(u > STEEP, -u, F.softplus(-u.clamp(max=STEEP)).log())  # log -log p
    return 1 - surprise.masked_fill(~here, -torch.inf).softmax(-1)


def calibration(probabilities: Tensor, here: Tensor) -> Tensor:
    """Returns k_i of probabilities (..., N, K), (..., N); 1 where all others are uniform."""
    far = (probabilities - 1 / probabilities.shape[-1]).abs().mean(-1).where(here, 0)
    others = far.sum(-1, keepdim=True) - far
    own = far * (here.sum(-1, keepdim=True) - 1)
    least = own >= others
    return torch.where(least, 1, own / torch.where(least, 1, others))
