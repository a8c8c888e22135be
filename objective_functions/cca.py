"""Canonical correlation of two modalities as a loss (Andrew et al., 2013)."""

import torch
from torch import Tensor, nn

RIDGE = 1e-3  # r_1 and r_2, added to the covariances, and once more to squared correlations


class CCALoss(nn.Module):
    """Minus the sum of the canonical correlations of two features over a batch.

    They are the singular values of T = S_11^(-1/2) S_12 S_22^(-1/2), with the covariances S of the
    batch and r added to the diagonals of S_11 and S_22 (Andrew et al., 2013),

        loss = -sum_i s_i,   or of the k largest   loss = -sum_{i <= k} sqrt(s_i^2 + r)

    the latter as MultiBench smooths the root, r = 1e-3 in either place. Computed in float64 with
    Cholesky factors L L' of S_11 and S_22 in place of the roots: L_1^(-1) S_12 L_2^(-T) has the
    same singular values, and a gradient where eigenvalues of S_11 and S_22 coincide.

    (MultiBench's sum of all of them takes the root of T'T entry by entry, which is no sum of
    singular values.)

    Args:
        outdim_size: k.
        use_all_singular_values: take all of them, not the k largest.
        device: where the features are moved; by default they stay.
    """

    def __init__(
        self,
        outdim_size: int,
        use_all_singular_values: bool,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.outdim_size = outdim_size
        self.use_all_singular_values = use_all_singular_values
        self.device = device

    def forward(self, H1: Tensor, H2: Tensor) -> Tensor:
        """Maps features (batch, d_1) and (batch, d_2) to a scalar.

        Raises:
            ValueError: for features that are not finite or of other shapes, fewer than two
                samples, or a k above the smaller width.
        """
        self._check(H1, H2)
        first, second = (h.to(self.device or h.device, torch.float64) for h in (H1, H2))
        first, second = (h - h.mean(0) for h in (first, second))
        roots = [torch.linalg.cholesky(_ridged(h)) for h in (first, second)]
        shared = first.mT @ second / (len(first) - 1)
        half = torch.linalg.solve_triangular(roots[0], shared, upper=False)
        whitened = torch.linalg.solve_triangular(roots[1], half.mT, upper=False)
        correlations = torch.linalg.svdvals(whitened)  # from the largest
        if not self.use_all_singular_values:
            correlations = (correlations[: self.outdim_size].square() + RIDGE).sqrt()
        return -correlations.sum().to(H1.dtype)

    def _check(self, H1: Tensor, H2: Tensor) -> None:
        shapes = tuple(H1.shape), tuple(H2.shape)
        if H1.dim() != 2 or H2.dim() != 2 or len(H1) != len(H2):
            raise ValueError(f"features must be (batch, d_1) and (batch, d_2), got {shapes}")
        if len(H1) < 2:
            raise ValueError(
                "a correlation must have at least two samples, got a batch of one; take another "
                "batch_size, or drop_last=True"
            )
        if not self.use_all_singular_values and self.outdim_size > min(H1.shape[1], H2.shape[1]):
            raise ValueError(
                f"outdim_size must be at most the smaller width of the features {shapes}, got "
                f"{self.outdim_size}"
            )
        if not (H1.isfinite().all() and H2.isfinite().all()):
            raise ValueError("features must be finite, but one of the two modalities' is not")


def _ridged(centred: Tensor) -> Tensor:
    covariance = centred.mT @ centred / (len(centred) - 1)
    return covariance + RIDGE * torch.eye(len(covariance)).to(covariance)
