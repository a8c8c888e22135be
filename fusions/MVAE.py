"""Gaussian experts on one latent code, multiplied: the fusion of MVAE (Wu and Goodman, 2018).

The product of Gaussian densities is one but for a factor: their precisions add up, and weigh their
means (Cao and Fleet, 2014, arXiv:1410.7827).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class ProductOfExperts(nn.Module):
    """The product of one Gaussian expert a modality, and of a standard normal prior.

    With the precisions T_m = 1 / (exp(logvar_m) + eps) of the modalities, and that of the prior,
    T_0 = 1 / (1 + eps),

        mu = sum_m T_m mu_m / (T_0 + sum_m T_m),    logvar = -log(T_0 + sum_m T_m)

    computed from the logarithms of the T, so that neither a very sure nor a very unsure expert
    overflows.

    Args:
        size: (number of priors, any number, latent), as MultiBench gives it: (1, 40, 200).

    Raises:
        ValueError: for another size.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = _checked(size)

    def forward(
        self, mus: Iterable[Tensor], logvars: Iterable[Tensor], eps: float = 1e-8
    ) -> tuple[Tensor, Tensor]:
        """Maps the experts' means and log variances, (batch, latent) each, to the product's.

        Args:
            mus: one a modality, or a tensor (modalities, batch, latent).
            logvars: likewise.
            eps: added to every variance.

        Raises:
            ValueError: for shapes that differ, or another latent width than that of `size`.
        """
        return _product(self.size, list(mus), list(logvars), eps)


class ProductOfExperts_Zipped(nn.Module):
    """`ProductOfExperts` of [(mean, log variance), ...], as encoders that return pairs give them.

    The head of an `MMDL` gets the mean, and `MVAE_objective` both.

    Args:
        size: as of `ProductOfExperts`.

    Raises:
        ValueError: likewise.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = _checked(size)

    def forward(
        self, zipped: Iterable[Sequence[Tensor]], eps: float = 1e-8
    ) -> tuple[Tensor, Tensor]:
        """Maps a pair of (batch, latent) for each modality to the product's pair."""
        pairs = list(zipped)
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError(
                "every modality must be a pair (mean, log variance), got "
                f"{[len(pair) for pair in pairs]} items; let its encoder return both"
            )
        mus, logvars = [mu for mu, _ in pairs], [logvar for _, logvar in pairs]
        return _product(self.size, mus, logvars, eps)


def _checked(size: Sequence[int]) -> Sequence[int]:
    if len(size) != 3 or size[0] < 0 or size[2] < 1:
        raise ValueError(
            "size must be (number of priors, any number, width of the latent code), "
            f"got {tuple(size)}"
        )
    return size


def _product(
    size: Sequence[int], mus: list[Tensor], logvars: list[Tensor], eps: float
) -> tuple[Tensor, Tensor]:
    """Returns mean and log variance of the experts' and the priors' product."""
    shapes = [tuple(x.shape) for x in (*mus, *logvars)]
    fits = len(mus) == len(logvars) and len(set(shapes)) == 1 and len(shapes[0]) == 2
    if not fits or shapes[0][1] != size[2]:
        raise ValueError(
            f"every expert must have a mean and a log variance (batch, {size[2]}), got "
            f"shapes {shapes[: len(mus)]} and {shapes[len(mus) :]}"
        )
    prior = mus[0].new_zeros(size[0], *shapes[0])
    means = torch.cat([prior, torch.stack(mus)])  # (experts, batch, latent)
    logs = torch.cat([prior, torch.stack(logvars)])
    log_precisions = -torch.logaddexp(logs, logs.new_tensor(eps).log())
    weights = log_precisions.softmax(0)
    return (weights * means).sum(0), -log_precisions.logsumexp(0)
