"""Contrastive losses: noise-contrastive estimation with a memory, and of pairs by similarity."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

eps = 1e-7  # MultiBench's; added to the probabilities that divide


class AliasMethod(nn.Module):
    """Draws from a discrete distribution in constant time (Walker, 1977; Vose, 1991).

    Every one of the K outcomes has a column, of which a share `prob` is its own, and the rest
    belongs to the outcome `alias`; a draw takes a column, then one of the two.

    Args:
        probs: K probabilities, or numbers in proportion to them.

    Attributes:
        prob: (K,), the share of each column that is its own.
        alias: (K,), to which outcome the rest belongs.

    Raises:
        ValueError: for numbers that are negative, or all zero.
    """

    prob: Tensor
    alias: Tensor

    def __init__(self, probs: Tensor | Sequence[float]) -> None:
        super().__init__()
        shares = torch.as_tensor(probs).double().cpu()
        if shares.dim() != 1 or not shares.sum() > 0 or shares.min() < 0:
            raise ValueError(f"probs must be numbers of at least 0, not all 0, got {probs}")
        columns = (len(shares) * shares / shares.sum()).tolist()
        alias = [0] * len(columns)
        small = [k for k, share in enumerate(columns) if share < 1]
        large = [k for k, share in enumerate(columns) if share >= 1]
        while small and large:
            poor, rich = small.pop(), large.pop()
            alias[poor] = rich
            columns[rich] -= 1 - columns[poor]
            (small if columns[rich] < 1 else large).append(rich)
        for k in small + large:  # full, but for rounding
            columns[k] = 1.0
        # moved with the module, and no part of its state_dict
        self.register_buffer("prob", torch.tensor(columns, dtype=torch.float32), persistent=False)
        self.register_buffer("alias", torch.tensor(alias), persistent=False)

    def draw(self, N: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns N outcomes, (N,) of whole numbers below K.

        Args:
            N: how many.
            generator: of the random numbers; by default torch's own.
        """
        columns = torch.zeros(N, dtype=torch.long, device=self.prob.device)
        columns.random_(0, len(self.prob), generator=generator)
        own = torch.bernoulli(self.prob[columns], generator=generator).bool()
        return torch.where(own, columns, self.alias[columns])


class NCEAverage(nn.Module):
    """Scores of two modalities' features against a memory of those of all samples.

    A sample's feature of one modality meets the other modality's memory of the sample itself,
    first, and of K drawn ones (contrastive multiview coding: Tian et al., 2019; memory: Wu et
    al., 2018),

        out_l[b, k] = exp(memory_ab[idx[b, k]] . l[b] / T) / Z_l,    out_ab likewise

    with Z = n mean(exp(...)) of the first batch, constant from there on; with `use_softmax` the
    products divided by T alone. In training the samples' memories then move to their features,
    m memory + (1 - m) feature, of length 1.

    Args:
        inputSize: width of the features.
        outputSize: n, number of samples.
        K: number of drawn samples.
        T: temperature.
        momentum: m.
        use_softmax: return the products, for `NCESoftmaxLoss`.

    Attributes:
        params: K, T, Z_l, Z_ab (-1 until they are set) and m.
        memory_l: (n, width), of the features l.
        memory_ab: (n, width), of the features ab.
    """

    params: Tensor
    memory_l: Tensor
    memory_ab: Tensor

    def __init__(
        self,
        inputSize: int,
        outputSize: int,
        K: int,
        T: float = 0.07,
        momentum: float = 0.5,
        use_softmax: bool = False,
    ) -> None:
        super().__init__()
        self.nLem = outputSize
        self.unigrams = torch.ones(self.nLem)
        self.multinomial = AliasMethod(self.unigrams)
        self.K = K
        self.use_softmax = use_softmax
        self.register_buffer("params", torch.tensor([K, T, -1, -1, momentum]))
        bound = 1 / math.sqrt(inputSize / 3)
        for name in ("memory_l", "memory_ab"):
            drawn = torch.rand(outputSize, inputSize)
            self.register_buffer(name, drawn.mul_(2 * bound).add_(-bound))

    def forward(
        self,
        l: Tensor,  # noqa: E741
        ab: Tensor,
        y: Tensor,
        idx: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns (out_l, out_ab), (batch, K + 1, 1) each.

        Args:
            l: (batch, width), features of the first modality, of length 1.
            ab: (batch, width), of the second.
            y: (batch,), which samples they are.
            idx: (batch, K + 1), the samples that they meet; by default y and K drawn ones.
        """
        if idx is None:
            idx = self.multinomial.draw(len(y) * (self.K + 1)).view(len(y), -1)
            idx[:, 0] = y
        # copies of the memory, which is written below
        out_l = self.memory_ab[idx] @ l.unsqueeze(2)
        out_ab = self.memory_l[idx] @ ab.unsqueeze(2)
        outs = [out / self.params[1] for out in (out_l, out_ab)]
        if not self.use_softmax:
            outs = [self._normalised(out.exp(), slot) for slot, out in enumerate(outs, start=2)]
        if self.training:
            self._remember(self.memory_l, l, y)
            self._remember(self.memory_ab, ab, y)
        return outs[0], outs[1]

    def _normalised(self, out: Tensor, slot: int) -> Tensor:
        """Divides by the constant in a slot of `params`, estimated here if it is not yet known."""
        constant = self.params[slot].clone()
        if constant < 0:
            constant = out.detach().mean() * len(self.memory_l)
            if self.training:
                self.params[slot] = constant
        return out / constant

    @torch.no_grad()
    def _remember(self, memory: Tensor, features: Tensor, y: Tensor) -> None:
        momentum = self.params[4]
        moved = momentum * memory[y] + (1 - momentum) * features
        memory[y] = F.normalize(moved, dim=1).to(memory.dtype)


class NCECriterion(nn.Module):
    """Noise-contrastive estimation (Gutmann and Hyvarinen, 2010; as of Wu et al., 2018).

    Tells the true sample's probability p_0 from those of m noise samples, p_1 to p_m, each drawn
    with probability 1 / n,

        loss = -mean over the batch of   log p_0 / (p_0 + m / n) + sum_k log (m / n) / (p_k + m / n)

    with 1e-7 added to what divides.

    Args:
        n_data: n.
    """

    def __init__(self, n_data: int) -> None:
        super().__init__()
        self.n_data = n_data

    def forward(self, x: Tensor) -> Tensor:
        """Maps scores (batch, m + 1), the true sample's first, to a loss (1,).

        They may have a last dimension of size 1, as `NCEAverage` returns them.
        """
        x = x.reshape(len(x), -1)
        noise = (x.shape[1] - 1) / self.n_data
        true = (x[:, :1] / (x[:, :1] + noise + eps)).log()
        drawn = (noise / (x[:, 1:] + noise + eps)).log()
        return -(true.sum() + drawn.sum()).reshape(1) / len(x)


class NCESoftmaxLoss(nn.Module):
    """Cross-entropy of scores, the true sample's the first of each (van den Oord et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x: Tensor) -> Tensor:
        """Maps logits (batch, m + 1), or (batch, m + 1, 1), to a scalar."""
        return self.criterion(x.reshape(len(x), -1), x.new_zeros(len(x), dtype=torch.long))


class MultiSimilarityLoss(nn.Module):
    """Similar features for samples that share a label (multi-similarity: Wang et al., 2019).

    For every sample i and label k that it has, with the similarities s_ij = f_i . f_j, positive
    pairs are the j that have the label (and s_ij < 1 - 1e-5, which leaves out i itself), negative
    ones those that have not. Of them count

        P = {positive: s_ij - margin < max over the negative},  N = {negative: s_ij + margin > min
        over the positive}

    and the loss is, over the number of all such (i, k), the sum of

        log(1 + sum_P exp(-a (s_ij - thresh))) / a + log(1 + sum_N exp(b (s_ij - thresh))) / b

    which is 0 where P is empty, and with it N.

    Attributes:
        thresh: 0.5.
        margin: 0.1.
        scale_pos: a.
        scale_neg: b.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thresh = 0.5
        self.margin = 0.1
        self.scale_pos = 5e-2
        self.scale_neg = 2e-3

    def forward(self, feats: Tensor, labels: Tensor) -> Tensor:
        """Maps features (batch, width) of length 1 and labels (batch, K) of 0 and 1 to a scalar."""
        if feats.dim() != 2 or labels.dim() != 2 or len(feats) != len(labels):
            raise ValueError(
                "feats and labels must be (batch, width) and (batch, labels), got "
                f"{tuple(feats.shape)} and {tuple(labels.shape)}"
            )
        similar, has = feats @ feats.mT, (labels == 1)
        sums = [
            self._of_label(similar[own], own, column == 0)
            for own, column in zip(has.T, labels.T, strict=True)
            if own.any()
        ]
        if not sums:
            return feats.new_zeros((), requires_grad=True)
        return sum(sums) / has.sum()

    def _of_label(self, similar: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Returns the sum over the samples with a label, whose similarities (n, batch) come."""
        positive, negative = positive & (similar < 1 - 1e-5), negative.expand_as(similar)
        least = similar.masked_fill(~positive, math.inf).amin(1, keepdim=True)
        most = similar.masked_fill(~negative, -math.inf).amax(1, keepdim=True)
        positive = positive & (similar - self.margin < most)
        negative = negative & (similar + self.margin > least)
        away = similar - self.thresh
        pull = _log_one_plus_sum_exp(-self.scale_pos * away, positive) / self.scale_pos
        push = _log_one_plus_sum_exp(self.scale_neg * away, negative) / self.scale_neg
        return (pull + push).sum()


def _log_one_plus_sum_exp(x: Tensor, where: Tensor) -> Tensor:
    """Returns log(1 + sum of exp(x) where told) of every row."""
    return F.pad(x.masked_fill(~where, -math.inf), (1, 0)).logsumexp(1)
