"""Aligned sequences: modalities that share their steps, and masks of what is there."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Aligned(NamedTuple):
    """The sequences of a batch, padded on the right.

    Attributes:
        values: a (batch, steps, d_m) tensor for each modality, zero where its mask is False.
        masks: (batch, steps) bool for each modality, true where it has a step.
        mask: (batch, steps) bool, true where any modality has one; true in the first step of a
            sample that has none at all, which counts as one step of zeros.
    """

    values: list[Tensor]
    masks: list[Tensor]
    mask: Tensor


def align(inputs: Sequence, input_dims: Sequence[int]) -> Aligned:
    """Returns a batch of any of the layouts of vectors and sequences as aligned sequences.

    Args:
        inputs: vectors, (batch, d_m) for each modality, which are sequences of one step; or
            sequences without padding, (batch, steps, d_m); or the pair of [sequences] and
            [masks], (batch, steps) bool, true where there is a step.
        input_dims: the widths d_m.

    Raises:
        ValueError: for other shapes, and for sequences that are not aligned: where a sample has
            a modality at all, it has the same steps as the others, from the first one on.
    """
    values, masks = _read(inputs)
    shapes = [tuple(x.shape) for x in values]
    if [shape[2:] for shape in shapes] != [(width,) for width in input_dims]:
        raise ValueError(
            f"sequences must be (batch, steps, d) with the widths {list(input_dims)}, one for each "
            f"modality, got {shapes}"
        )
    if len({shape[:2] for shape in shapes}) > 1:
        raise ValueError(
            "sequences must be aligned, the same steps in every modality, got (batch, steps) of "
            f"{[shape[:2] for shape in shapes]}; align them to words, or pool each to a vector"
        )
    if masks is None:
        mask = torch.ones(shapes[0][:2], dtype=torch.bool, device=values[0].device)
        return Aligned(values, [mask] * len(values), mask)
    if [(tuple(m.shape), m.dtype) for m in masks] != [(shapes[0][:2], torch.bool)] * len(values):
        raise ValueError(
            f"masks must be bool of shape {shapes[0][:2]}, one for each modality, got "
            f"{[(tuple(m.shape), str(m.dtype)) for m in masks]}"
        )
    return _masked(values, masks)


def _read(inputs: Sequence) -> tuple[list[Tensor], list[Tensor] | None]:
    """Returns the sequences as (batch, steps, d_m), and the masks if there are any."""
    if isinstance(inputs, (list, tuple)) and inputs:
        if all(isinstance(x, Tensor) for x in inputs):
            return [x.unsqueeze(1) if x.dim() == 2 else x for x in inputs], None
        if len(inputs) == 2 and all(isinstance(x, (list, tuple)) for x in inputs):
            return list(inputs[0]), list(inputs[1])
    raise ValueError(
        "inputs must be a list of tensors, vectors or sequences of the modalities, or the pair of "
        f"[sequences] and [masks], got {type(inputs).__name__}"
    )


def _masked(values: list[Tensor], masks: list[Tensor]) -> Aligned:
    stacked = torch.stack(masks)
    mask = stacked.any(0)
    gaps = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    differs = (stacked.any(2, keepdim=True) & (stacked != mask)).any(2).any(0)
    if (wrong := gaps | differs).any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            "sequences must be aligned: a modality that a sample has, has the steps of the others, "
            f"without gaps, but sample {row} of the batch has {stacked[:, row].sum(1).tolist()} "
            "steps; align them to words, or pool each to a vector"
        )
    values = [x.masked_fill(~m.unsqueeze(-1), 0) for x, m in zip(values, masks, strict=True)]
    return Aligned(values, masks, with_a_step(mask))


def with_a_step(mask: Tensor) -> Tensor:
    """Returns a mask, (batch, steps) bool, that is true in the first step of samples with none."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(1, keepdim=True))


def run_lstm(lstm: nn.LSTM, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the states of an LSTM, and the last one, as if there were no padding.

    Args:
        lstm: of one layer, `batch_first`.
        x: (batch, steps, d), padded on the right.
        mask: (batch, steps) bool, true in the first step at least.

    Returns:
        The states, (batch, steps, directions x dim), zero in padding; and the last one of each
        direction side by side, (batch, directions x dim).
    """
    if mask.all():
        states, (last, _) = _run(lstm, x)
    else:
        lengths = mask.sum(1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        packed, (last, _) = lstm(packed)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    return states, last.transpose(0, 1).flatten(1)


def _run(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Runs an LSTM; not in float16 where autocast wants that of a CPU, for which torch has none."""
    narrowed = x.is_cpu and torch.is_autocast_enabled("cpu")
    if not narrowed or torch.get_autocast_dtype("cpu") != torch.float16:
        return lstm(x)
    with torch.autocast("cpu", enabled=False):
        return lstm(x.to(lstm.weight_ih_l0.dtype))


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of (prediction - target)^2 over all entries of the steps that are there.

    Args:
        prediction: (batch, steps, d).
        target: (batch, steps, d).
        mask: (batch, steps) bool; zero is returned where no step is true.
    """
    square = (prediction - target).square().sum(2).masked_fill(~mask, 0)
    return square.sum() / (mask.sum().clamp(min=1) * target.shape[2])


class AlignedModel(nn.Module):
    """A model of aligned sequences that has a loss of its own in training, besides its prediction.

    A forward of a subclass leaves it in `_own_loss`, or None.

    Args:
        input_dims: width of each modality's steps.
    """

    def __init__(self, input_dims: Sequence[int]) -> None:
        super().__init__()
        self.input_dims = tuple(input_dims)
        self._own_loss: Tensor | None = None

    @property
    def auxiliary_loss(self) -> Tensor:
        """Weighted loss of the last training forward, a scalar; otherwise zero."""
        if self._own_loss is not None:
            return self._own_loss
        return next(self.parameters()).new_zeros(())

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "_own_loss": None}


def check_dims(input_dims: Sequence[int], **counts: int) -> None:
    """Raises ValueError unless there are two modalities or more, and widths and counts are >= 1."""
    if len(input_dims) < 2 or min(input_dims) < 1:
        raise ValueError(
            "input_dims must list the widths of two modalities or more, each at least 1, got "
            f"{list(input_dims)}"
        )
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_weights(**weights: float) -> None:
    """Raises ValueError unless every weight is at least 0 and finite."""
    for name, value in weights.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")
