"""Losses of reconstructions, alone, summed over modalities, and as part of an ELBO."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
Reconstruction = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
HUGE = 99999  # a log variance; MultiBench's


def sigmloss1d(a: Tensor, b: Tensor) -> Tensor:
    """Returns the mean cross-entropy of sigmoid(a) against sigmoid(b), one number a sample.

    It is least where a = b, also for numbers outside [0, 1]. Computed from the logits a, so that
    it stays finite where sigmoid(a) rounds to 0 or 1.

    Args:
        a: (batch, width), the reconstruction.
        b: (batch, width), the original.
    """
    target = torch.sigmoid(b).to(a.dtype)
    return F.binary_cross_entropy_with_logits(a, target, reduction="none").mean(1)


def nosigmloss1d(a: Tensor, b: Tensor) -> Tensor:
    """Returns the mean cross-entropy of probabilities a against b, one number a sample.

    An a nearer to 0 or 1 than floats are to each other at 1 counts as that far, so that the loss
    and its gradient are finite.

    Args:
        a: (batch, width), the reconstruction, in [0, 1].
        b: (batch, width), the original.
    """
    nearest = torch.finfo(a.dtype).eps
    a = a.clamp(nearest, 1 - nearest)
    return -(b * a.log() + (1 - b) * (1 - a).log()).mean(1)


def sigmloss1dcentercrop(adim: int, bdim: int) -> Loss:
    """Returns `sigmloss1d` of images, the larger of which is cut to the other's size.

    From each border of the larger image, be it the reconstruction or the original, (bdim - adim)
    // 2 pixels are cut. The reconstruction stays the first argument of the cross-entropy, which is
    not symmetric; MultiBench exchanges the two where the reconstruction is larger.

    Args:
        adim: height and width of the smaller images.
        bdim: of the larger ones, (batch, channels, bdim, bdim).

    Raises:
        ValueError: if bdim is less than adim; from the loss, if the sizes do not fit.
    """
    if bdim < adim:
        raise ValueError(f"bdim must be at least adim, got {bdim} and {adim}")
    return partial(_cropped, border=(bdim - adim) // 2, bdim=bdim)


def recon_weighted_sum(
    modal_loss_funcs: Sequence[Loss], weights: Sequence[float]
) -> Reconstruction:
    """Returns (reconstructions, originals) -> the batch's mean of the weighted sum of the losses.

    Args:
        modal_loss_funcs: one a modality, (reconstruction, original) -> a number a sample, or one
            for all.
        weights: one a modality.

    Raises:
        ValueError: for unequal numbers of them, here or of what the result is called with.
    """
    _check_counts(modal_loss_funcs=modal_loss_funcs, weights=weights)
    return partial(_mean_total, losses=modal_loss_funcs, weights=weights)


def elbo_loss(
    modal_loss_funcs: Sequence[Loss], weights: Sequence[float], annealing: float = 1.0
) -> Callable[[Sequence[Tensor | None], Sequence[Tensor | None], Tensor, Tensor], Tensor]:
    """Returns (reconstructions, originals, mu, logvar) -> the negative evidence lower bound.

        mean over the batch of   sum_m w_m loss_m(x^_m, x_m) + annealing KL(N(mu, s^2) || N(0, I))

    (Kingma and Welling, 2014; of some modalities, Wu and Goodman, 2018.) A modality whose
    reconstruction is None takes no part.

    Args:
        modal_loss_funcs: as of `recon_weighted_sum`.
        weights: w_m.
        annealing: weight of the divergence.

    Raises:
        ValueError: as of `recon_weighted_sum`.
    """
    _check_counts(modal_loss_funcs=modal_loss_funcs, weights=weights)
    return partial(_negative_elbo, losses=modal_loss_funcs, weights=weights, annealing=annealing)


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """Returns KL(N(mu, exp(logvar)) || N(0, I)), a number a sample (Kingma and Welling, 2014, B).

    A log variance above 99999, whose exponential no float holds, counts itself, as in MultiBench.

    Args:
        mu: (batch, latent).
        logvar: (batch, latent).
    """
    huge = logvar > HUGE
    finite = logvar.masked_fill(huge, 0)  # else its gradient were 0 times infinity
    each = torch.where(huge, logvar, (finite.exp() + mu.square() - 1 - finite) / 2)
    return each.sum(1) if each.dim() > 1 else each


def _cropped(a: Tensor, b: Tensor, *, border: int, bdim: int) -> Tensor:
    inside = slice(border, bdim - border)
    if a.shape[2] > b.shape[2]:
        cut, whole = a[:, :, inside, inside], b
    else:
        cut, whole = b[:, :, inside, inside], a
    if cut.shape != whole.shape:
        raise ValueError(
            f"images cut to {tuple(cut.shape)} must have the shape of the others, got "
            f"{tuple(a.shape)} and {tuple(b.shape)} for a bdim of {bdim}; give "
            "sigmloss1dcentercrop their sizes"
        )
    a, b = (cut, whole) if whole is b else (whole, cut)
    return sigmloss1d(a.flatten(1), b.flatten(1))


def _mean_total(
    recons: Sequence[Tensor],
    origs: Sequence[Tensor],
    *,
    losses: Sequence[Loss],
    weights: Sequence[float],
) -> Tensor:
    return torch.mean(_total(recons, origs, losses, weights))


def _negative_elbo(
    recons: Sequence[Tensor | None],
    origs: Sequence[Tensor | None],
    mu: Tensor,
    logvar: Tensor,
    *,
    losses: Sequence[Loss],
    weights: Sequence[float],
    annealing: float,
) -> Tensor:
    divergence = kl_to_standard_normal(mu, logvar)
    return torch.mean(_total(recons, origs, losses, weights) + annealing * divergence)


def _total(recons: Sequence, origs: Sequence, losses: Sequence, weights: Sequence) -> Tensor:
    _check_counts(reconstructions=recons, originals=origs, modal_loss_funcs=losses)
    parts = zip(recons, origs, losses, weights, strict=True)
    return sum(w * loss(x, _shaped(y, x)) for x, y, loss, w in parts if x is not None)


def _shaped(original: Tensor, recon: Tensor) -> Tensor:
    """Returns the original, flattened as the reconstruction is."""
    if original.dim() == recon.dim():
        return original
    if original.numel() != recon.numel():
        raise ValueError(
            "a reconstruction must have as many numbers as its original, got shapes "
            f"{tuple(recon.shape)} and {tuple(original.shape)}"
        )
    return original.reshape(recon.shape)


def _check_counts(**given: Sequence) -> None:
    counts = {name: len(values) for name, values in given.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"there must be one of each for every modality, got {counts}")
