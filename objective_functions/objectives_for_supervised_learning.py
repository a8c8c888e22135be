"""MultiBench's multimodal objectives, for the `objective` of its and our `train`.

Each function here returns a loss of (prediction, truth, args). Besides what `train` puts into
`args` it holds what the caller gives as `objective_args_dict`, at least {}; modules in it that
learn are `additional_optimizing_modules` as well:

    train(encoders, fusion, head, ..., additional_optimizing_modules=decoders,
          objective=MVAE_objective(2.0, [sigmloss1d, sigmloss1d], [1.0, 1.0]),
          objective_args_dict={"decoders": decoders})

The supervised part of each is `criterion`: of cross-entropy, squared and absolute error and binary
cross-entropy the truth is cast as `train` casts it. Any other is called with (prediction, truth).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cca import CCALoss
from .recon import Loss, Reconstruction, elbo_loss, recon_weighted_sum
from .regularization import RegularizationLoss

Args = Mapping[str, Any]
Objective = Callable[[Tensor, Tensor, Args], Tensor]
CROSS_ENTROPY = nn.CrossEntropyLoss()
BINARY_CROSS_ENTROPY = nn.BCEWithLogitsLoss()
OF_ENTRIES = (nn.BCEWithLogitsLoss, nn.MSELoss, nn.L1Loss)


def MFM_objective(
    ce_weight: float,
    modal_loss_funcs: Sequence[Loss],
    recon_weights: Sequence[float],
    input_to_float: bool = True,
    criterion: Loss = CROSS_ENTROPY,
) -> Objective:
    """Returns the objective of factorised representations (Tsai et al., 2019, arXiv:1806.06176).

        ce_weight * criterion + sum_m w_m loss_m(decoder_m([intermediate_m(r_m); fused]), x_m)

    with r_m the encoders' outputs. (Without the discrepancy of the codes from a normal
    distribution, as MultiBench has it; `unimodals.mfm.MFM` has it too.)

    Args:
        ce_weight: weight of the supervised part.
        modal_loss_funcs: loss_m, see `recon.recon_weighted_sum`.
        recon_weights: w_m.
        input_to_float: whether the x_m are cast to float32.
        criterion: the supervised part.

    Raises:
        ValueError: for unequal numbers of losses and weights; from the objective, if `args` lacks
            `decoders` or `intermediates`, one a modality.
    """
    reconstruction = recon_weighted_sum(modal_loss_funcs, recon_weights)
    return partial(
        _mfm,
        ce_weight=ce_weight,
        reconstruction=reconstruction,
        input_to_float=input_to_float,
        criterion=criterion,
    )


def MVAE_objective(
    ce_weight: float,
    modal_loss_funcs: Sequence[Loss],
    recon_weights: Sequence[float],
    input_to_float: bool = True,
    annealing: float = 1.0,
    criterion: Loss = CROSS_ENTROPY,
) -> Objective:
    """Returns the objective of the multimodal variational autoencoder (Wu and Goodman, 2018).

        ce_weight * criterion + ELBO(all modalities) + sum_m ELBO(modality m)

    where ELBO is the negative bound of `recon.elbo_loss`: of all modalities made from the fused
    code, and of each made from its own. The encoders return (mean, log variance), and the fusion
    too, see `fusions.MVAE`. Codes are drawn in training; otherwise they are the means.

    Args:
        ce_weight: weight of the supervised part.
        modal_loss_funcs: one a modality, see `recon.recon_weighted_sum`.
        recon_weights: one a modality.
        input_to_float: whether the inputs are cast to float32.
        annealing: weight of the divergences.
        criterion: the supervised part.

    Raises:
        ValueError: for unequal numbers of losses and weights; from the objective, if `args` lacks
            `decoders`, one a modality.
    """
    return partial(
        _mvae,
        ce_weight=ce_weight,
        elbo=elbo_loss(modal_loss_funcs, recon_weights, annealing),
        input_to_float=input_to_float,
        criterion=criterion,
    )


def CCA_objective(
    out_dim: int, cca_weight: float = 0.001, criterion: Loss = CROSS_ENTROPY
) -> Objective:
    """Returns the criterion, less the weighted canonical correlations of two encoders' outputs.

    Those of the first two modalities, see `cca.CCALoss`. One sample alone has no correlation: of a
    batch of one it is the criterion.

    Args:
        out_dim: how many correlations count, the largest; at most the width of the outputs.
        cca_weight: their weight.
        criterion: the supervised part.
    """
    correlation = CCALoss(out_dim, False)
    return partial(_cca, correlation=correlation, cca_weight=cca_weight, criterion=criterion)


def RefNet_objective(
    ref_weight: float, criterion: Loss = CROSS_ENTROPY, input_to_float: bool = True
) -> Objective:
    """Returns the criterion, plus the weighted distance of the inputs from what is made of them.

    The refiner maps the fused feature to all modalities, flattened side by side; the distance is
    the sum over the modalities of 1 - cosine (Sankaran et al., 2021, as MultiBench has it).

    Args:
        ref_weight: weight of the distance.
        criterion: the supervised part.
        input_to_float: whether the inputs are cast to float32.

    Raises:
        ValueError: from the objective, if `args` lacks `refiner`, or it is too narrow. Columns
            that it has beyond those of the inputs are left alone.
    """
    return partial(
        _refnet, ref_weight=ref_weight, criterion=criterion, input_to_float=input_to_float
    )


def RMFE_object(
    reg_weight: float = 1e-10,
    criterion: Loss = BINARY_CROSS_ENTROPY,
    is_packed: bool = False,
) -> Objective:
    """Returns the criterion, plus the regulariser that no modality be left out.

    See `regularization.RegularizationLoss`. Without gradients, as in validation, and of one sample,
    which gets no noise, it is the criterion alone.

    Args:
        reg_weight: weight of the regulariser.
        criterion: the supervised part, and what compares the predictions from noisy inputs.
        is_packed: as of `train`.
    """
    return partial(_rmfe, reg_weight=reg_weight, criterion=criterion, is_packed=is_packed)


def _mfm(
    pred: Tensor,
    truth: Tensor,
    args: Args,
    *,
    ce_weight: float,
    reconstruction: Reconstruction,
    input_to_float: bool,
    criterion: Loss,
) -> Tensor:
    reps, fused, inputs = _told(args, "reps", "fused", "inputs")
    decoders, intermediates = _told(args, "decoders", "intermediates", each=len(reps))
    recons = [
        decode(torch.cat([factor(rep), fused], dim=1))
        for decode, factor, rep in zip(decoders, intermediates, reps, strict=True)
    ]
    loss = reconstruction(recons, _originals(inputs, pred, input_to_float))
    return ce_weight * _supervised(pred, truth, criterion) + loss


def _mvae(
    pred: Tensor,
    truth: Tensor,
    args: Args,
    *,
    ce_weight: float,
    elbo: Callable[..., Tensor],
    input_to_float: bool,
    criterion: Loss,
) -> Tensor:
    reps, fused, inputs, training = _told(args, "reps", "fused", "inputs", "training")
    (decoders,) = _told(args, "decoders", each=len(reps))
    originals = _originals(inputs, pred, input_to_float)
    joint = [decode(_drawn(fused, training)) for decode in decoders]
    loss = elbo(joint, originals, *fused)
    for i, (decode, rep) in enumerate(zip(decoders, reps, strict=True)):
        alone: list[Tensor | None] = [None] * len(reps)
        alone[i] = decode(_drawn(rep, training))
        loss = loss + elbo(alone, originals, *rep)
    return loss + ce_weight * _supervised(pred, truth, criterion)


def _cca(
    pred: Tensor,
    truth: Tensor,
    args: Args,
    *,
    correlation: nn.Module,
    cca_weight: float,
    criterion: Loss,
) -> Tensor:
    (reps,) = _told(args, "reps")
    loss = _supervised(pred, truth, criterion)
    return loss if len(pred) == 1 else loss + cca_weight * correlation(*reps[:2])


def _refnet(
    pred: Tensor,
    truth: Tensor,
    args: Args,
    *,
    ref_weight: float,
    criterion: Loss,
    input_to_float: bool,
) -> Tensor:
    refiner, fused, inputs = _told(args, "refiner", "fused", "inputs")
    originals = [x.flatten(1) for x in _originals(inputs, pred, input_to_float)]
    widths, made = [x.shape[1] for x in originals], refiner(fused)
    if made.shape[1] < sum(widths):
        raise ValueError(
            f"the refiner must return at least the {sum(widths)} numbers of the flattened inputs "
            f"({' + '.join(map(str, widths))}), got {made.shape[1]}"
        )
    parts = made[:, : sum(widths)].split(widths, dim=1)
    distances = [
        F.cosine_embedding_loss(part, x, part.new_ones(len(part)))
        for part, x in zip(parts, originals, strict=True)
    ]
    return _supervised(pred, truth, criterion) + ref_weight * sum(distances)


def _rmfe(
    pred: Tensor,
    truth: Tensor,
    args: Args,
    *,
    reg_weight: float,
    criterion: Loss,
    is_packed: bool,
) -> Tensor:
    loss = _supervised(pred, truth, criterion)
    if not torch.is_grad_enabled() or len(pred) == 1:
        return loss
    model, inputs = _told(args, "model", "inputs")
    return loss + RegularizationLoss(criterion, model, reg_weight, is_packed)(pred, inputs)


def _told(args: Args | None, *names: str, each: int | None = None) -> list[Any]:
    """Returns what the arguments hold, lists of one a modality if `each` says of how many."""
    given = args or {}
    if missing := [name for name in names if name not in given]:
        raise ValueError(
            f"the objective needs {', '.join(missing)}, but was given {sorted(given)}; "
            "pass what `train` does not know of in objective_args_dict, at least {}"
        )
    values = [given[name] for name in names]
    if each is not None and {len(value) for value in values} != {each}:
        counts = {name: len(given[name]) for name in names}
        raise ValueError(f"there must be one of each for {each} modalities, got {counts}")
    return values


def _originals(inputs: Sequence[Tensor], like: Tensor, to_float: bool) -> list[Tensor]:
    if not all(isinstance(x, Tensor) for x in inputs):
        raise ValueError(
            "the objective reconstructs inputs that are tensors, one a modality, got "
            f"{[type(x).__name__ for x in inputs]}; it takes no packed batches"
        )
    return [x.to(like.device, torch.float32 if to_float else x.dtype) for x in inputs]


def _drawn(code: Sequence[Tensor], training: bool) -> Tensor:
    """Returns a draw from N(mu, exp(logvar)), differentiable; outside training the mean."""
    mu, logvar = code
    return torch.randn_like(mu) * (logvar / 2).exp() + mu if training else mu


def _supervised(pred: Tensor, truth: Tensor, criterion: Loss) -> Tensor:
    truth = truth.to(pred.device)
    if isinstance(criterion, nn.CrossEntropyLoss):
        labels = truth.squeeze(-1) if truth.dim() == pred.dim() else truth
        return criterion(pred, labels.long())
    if isinstance(criterion, OF_ENTRIES):
        return criterion(pred, _entries(truth, pred))
    return criterion(pred, truth)


def _entries(truth: Tensor, pred: Tensor) -> Tensor:
    """Returns the truth as floats of the prediction's shape, (n,) as (n, 1), never paired."""
    if truth.numel() != pred.numel() or len(truth) != len(pred):
        raise ValueError(
            "prediction and truth must have equally many entries, got shapes "
            f"{tuple(pred.shape)} and {tuple(truth.shape)}"
        )
    return truth.reshape(pred.shape).to(pred.dtype)
