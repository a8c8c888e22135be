"""The network for own data: an encoder for each modality, a fusion, and a linear head."""

import inspect
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets import loaders
from deq_fusion.training_structures.comparison import Fusion
from deq_fusion.unimodals.common_models import GRU, MLP

from .training import DEFAULTS


class FusionNetwork(nn.Module):
    """Encoders, a fusion and a head, for a batch [x_1, ..., x_N, present, weight].

    Args:
        encoders: one a modality, (batch, ...) -> (batch, width).
        fusion: features -> the fused one, or the outputs where it predicts on its own.
        head: the fused feature -> (batch, outputs).
        units: mean and spread (outputs,) of the numbers to predict: outputs are in them, and their
            errors count in multiples of the spread. None of classes and labels.
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        fusion: nn.Module,
        head: nn.Module,
        units: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.encoders, self.fusion, self.head = nn.ModuleList(encoders), fusion, head
        mean, spread = (None, None) if units is None else units
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.told = "present" in inspect.signature(fusion.forward).parameters

    def forward(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the outputs, (batch, outputs), and where it is not 1 what each counts in the
        loss, (batch,) or (batch, outputs).

        Args:
            inputs: N modalities, (batch, d) or (batch, time, d); then, in any order, if they are
                there: `present` (batch, N) bool, which modalities a sample has, and `weight`
                (batch,), what it counts in the loss.
        """
        views, rest = inputs[: len(self.encoders)], inputs[len(self.encoders) :]
        present = next((x for x in rest if x.dtype == torch.bool), None)
        weight = next((x for x in rest if x.dtype != torch.bool), None)
        outputs = self.outputs(views, present)
        if self.spread is None:
            return outputs if weight is None else (outputs, weight)
        counts = self.spread.square().reciprocal()  # an error of one spread counts as 1
        return outputs, counts.expand_as(outputs) * (1 if weight is None else weight.unsqueeze(1))

    def outputs(self, views: Sequence[Tensor], present: Tensor | None = None) -> Tensor:
        """Returns the outputs alone, (batch, outputs); see `forward`."""
        features = [encode(x) for encode, x in zip(self.encoders, views, strict=True)]
        options = {}
        if present is not None:
            here = present.unsqueeze(-1).unbind(-2)  # N times (batch, 1)
            features = [torch.where(p, x, 0) for p, x in zip(here, features, strict=True)]
            options = {"present": present} if self.told else {}
        outputs = self.head(self.fusion(features, **options))
        return outputs if self.spread is None else self.mean + self.spread * outputs


def build_network(
    fusion: Fusion,
    shapes: Sequence[tuple[int, ...]],
    outputs: int,
    *,
    width: int = DEFAULTS.width,
    dropout: float = DEFAULTS.dropout,
    encoders: Sequence[nn.Module | None] | None = None,
    units: tuple[Tensor, Tensor] | None = None,
) -> FusionNetwork:
    """Returns a network with new parameters, from torch's global generator.

    Args:
        fusion: (input_dims, dim, outputs) -> (module, width of its result); the width is None
            where it predicts on its own.
        shapes: of a row of each modality, (d,) or (time, d).
        outputs: how many numbers are predicted.
        width: of every modality's feature, and asked of the fusion.
        dropout: share of an encoder's entries left out in training.
        encoders: one's own, a copy of which is trained, (batch, *shape) -> (batch, any width); in
            place of None, or of an entry that is None, comes an MLP for (d,) and a GRU for
            (time, d).
        units: see `FusionNetwork`.

    Raises:
        ValueError: for an encoder that cannot take its modality, or returns another shape.
    """
    encoders = [None] * len(shapes) if encoders is None else encoders
    pairs = list(zip(encoders, shapes, strict=True))
    built = [deepcopy(e) if e is not None else _encoder(s, width, dropout) for e, s in pairs]
    widths = [
        width if own is None else _width(module, shape)
        for module, (own, shape) in zip(built, pairs, strict=True)
    ]
    module, fused = fusion(widths, width, outputs)
    head = nn.Identity() if fused is None else nn.Linear(fused, outputs)
    return FusionNetwork(built, module, head, units)


def make_loader(
    views: Sequence[np.ndarray],
    truth: Tensor,
    *,
    present: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    batch_size: int | None = DEFAULTS.batch_size,
    shuffle: bool = False,
) -> DataLoader:
    """Returns a loader of batches [x_1, ..., x_N, (present), (weight), truth].

    Shuffling draws from torch's global generator, which `fit` seeds.

    Args:
        views: float32, (rows, d) or (rows, time, d) each.
        truth: (rows,) or (rows, outputs).
        present: (rows, N) bool; a loader goes without it where all are there.
        weight: (rows,) what each counts in the loss, on average 1 over all that is learnt from.
        batch_size: rows a batch; None: all.
        shuffle: whether each pass has a new order.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(view)) for view in views]
    if present is not None:
        tensors.append(torch.from_numpy(np.ascontiguousarray(present, dtype=bool)))
    if weight is not None:
        tensors.append(torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)))
    dataset = TensorDataset(*tensors, truth)
    return loaders.make_loader(dataset, batch_size=batch_size, shuffle=shuffle)


def in_double(network: FusionNetwork, views: Sequence[np.ndarray]) -> FusionNetwork:
    """Returns the network in evaluation mode, and in float64 where its device and all of its
    modules can: a sample's outputs are then the same, within 1e-7, whatever is beside it.

    Args:
        network: the network.
        views: a few rows of each modality, to try it with.
    """
    network.zero_grad()
    network.eval()
    try:
        double = deepcopy(network).double()
        like = next(double.parameters())
        with torch.no_grad():
            double.outputs([torch.from_numpy(view).to(like) for view in views])
    except (RuntimeError, TypeError, ValueError):
        return network
    return double


def _encoder(shape: tuple[int, ...], width: int, dropout: float) -> nn.Module:
    if len(shape) == 1:
        return MLP(shape[0], width, width, dropout=dropout > 0, dropoutp=dropout)
    return nn.Sequential(GRU(shape[1], width, last_only=True), nn.Dropout(dropout))


def _width(encoder: nn.Module, shape: tuple[int, ...]) -> int:
    """Returns the width of what one's own encoder returns, by a trial."""
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"an encoder must be an nn.Module, got {type(encoder).__name__}")
    training = encoder.training
    try:
        with torch.no_grad():
            result = encoder.eval()(torch.zeros(2, *shape))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{type(encoder).__name__} must take rows of shape {shape}, as they are after scaling "
            f"and encoding, but failed: {error}"
        ) from error
    finally:
        encoder.train(training)
    if not isinstance(result, Tensor) or result.shape[:-1] != (2,):
        came = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"{type(encoder).__name__} must return (batch, width), got {came}")
    return result.shape[-1]
