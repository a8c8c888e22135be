"""The fusions that MFAS searches among (Perez-Rua et al., 2019, "MFAS: Multimodal Fusion
Architecture Search").

A configuration is an array of integers (layers, modalities + 1): a row for every fusion layer, in
which stand the layer that is taken of each modality's encoder, and the nonlinearity. The search is
`training_structures.architecture_search`; how one configuration is trained, MultiBench's
`train_sampled_models` and `train_track_acc`, is found here under its names.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NONLINEARITIES = (nn.ReLU, nn.Sigmoid, nn.LeakyReLU)
"""By the number that stands in the last column of a configuration."""

TRAINING = ("train_sampled_models", "train_track_acc")


class Searchable(nn.Module):
    """Encoders, the fusion of their layers that a configuration describes, and a linear head.

    Fusion layer l is h_l = g_l(W_l [x_1, ..., x_M, h_{l-1}] + b_l), x_m the output of
    layer conf[l, m] of encoder m, g_l by `NONLINEARITIES`. With `alphas` every layer weighs its
    modalities first, see `Alphas`.

    Args:
        layered_encoders: one a modality, in the order of the inputs. Each maps an input to
            [dropped, output of layer 0, of layer 1, ...], (batch, width) each, as MultiBench's do
            with `output_each_layer=True`.
        rep_size: width of every fusion layer.
        classes: width of the prediction.
        conf: the configuration.
        sub_sizes: of every encoder the widths of its layers.
        alphas: whether every layer weighs its modalities. (MultiBench fails if so.)

    Raises:
        ValueError: for a configuration that does not fit the encoders.
    """

    def __init__(
        self,
        layered_encoders: Iterable[nn.Module],
        rep_size: int,
        classes: int,
        conf: np.ndarray | Sequence[Sequence[int]],
        sub_sizes: Sequence[Sequence[int]],
        alphas: bool = False,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(layered_encoders)
        self.using_alphas = alphas
        self.conf = np.array(conf)
        self.subs = sub_sizes
        self.hidden = rep_size
        self.classes = classes
        self._check()
        if alphas:
            self.alphas = self.alphasgen()
        self.fusion_layers = self.fcs()
        self.head = nn.Linear(rep_size, classes)
        for module in self.modules():  # last, after what is drawn without them
            if isinstance(module, Alphas):
                nn.init.normal_(module.alpha_x, 0.0, 0.1)

    def _check(self) -> None:
        if len(self.subs) != len(self.encoders):
            raise ValueError(
                f"sub_sizes must hold the widths of the layers of each of the {len(self.encoders)} "
                f"encoders, got {self.subs}"
            )
        limits = [*map(len, self.subs), len(NONLINEARITIES)]
        known = self.conf.ndim == 2 and self.conf.shape[1] == len(limits) and len(self.conf)
        if not known or not np.all((self.conf >= 0) & (self.conf < limits)):
            raise ValueError(
                "conf must have a row for every fusion layer, with a layer of each encoder and a "
                f"nonlinearity, from 0 to less than {limits}, got {self.conf.tolist()}"
            )

    def forward(self, inputs: Sequence[Any]) -> Tensor:
        """Maps one input a modality to the prediction (batch, classes)."""
        layers = [f(x)[1:] for f, x in zip(self.encoders, inputs, strict=True)]
        fused: list[Tensor] = []  # nothing, before the first layer
        for number, row in enumerate(self.conf):
            taken = [self._taken(layers, m, int(row[m])) for m in range(len(layers))]
            if self.using_alphas:
                taken = self.alphas[number](taken)
            fused = [self.fusion_layers[number](torch.cat([*taken, *fused], dim=1))]
        return self.head(fused[0])

    def _taken(self, layers: Sequence[Sequence[Tensor]], modality: int, layer: int) -> Tensor:
        """Returns a layer of an encoder, if it is as wide as it should be."""
        there, width = layers[modality], self.subs[modality][layer]
        if layer >= len(there) or tuple(there[layer].shape[1:]) != (width,):
            shapes = [tuple(x.shape) for x in there]
            raise ValueError(
                f"encoder {modality} must return [dropped, layer 0, layer 1, ...], its layer "
                f"{layer} (batch, {width}), got {shapes} after the dropped one; sub_sizes must "
                "tell the layers' widths"
            )
        return there[layer]

    def central_params(self) -> list[dict[str, Any]]:
        """Returns the parameters but the encoders', in groups for an optimiser."""
        weights = [self.alphas] if self.using_alphas else []
        parts: list[nn.Module] = [*weights, self.fusion_layers, self.head]
        return [{"params": part.parameters()} for part in parts]

    def fcs(self) -> nn.ModuleList:
        """Returns new fusion layers."""
        layers = []
        for number, row in enumerate(self.conf):
            width = sum(sizes[i] for sizes, i in zip(self.subs, row[:-1], strict=True))
            width += self.hidden if number else 0
            nonlinearity = NONLINEARITIES[row[-1]]()
            layers.append(nn.Sequential(nn.Linear(width, self.hidden), nonlinearity))
        return nn.ModuleList(layers)

    def alphasgen(self) -> nn.ModuleList:
        """Returns new weights of the modalities, for every fusion layer."""
        return nn.ModuleList(Alphas(len(self.encoders)) for _ in self.conf)


class Alphas(nn.Module):
    """One learned weight a modality, by which its feature is multiplied; they add up to 1.

    The weights are a softmax of (a_1, ..., a_{M-1}, 0): for two modalities sigmoid(a) and
    1 - sigmoid(a), as in the authors' code, which has no more.

    Args:
        modalities: their number, M.
    """

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.alpha_x = nn.Parameter(torch.zeros(modalities - 1))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps features (batch, d_m) to as many, each times its weight."""
        weights = torch.cat([self.alpha_x, self.alpha_x.new_zeros(1)]).softmax(0)
        return [x * w for x, w in zip(features, weights, strict=True)]


def get_possible_layer_configurations(max_labels: Sequence[int]) -> list[list[int]]:
    """Returns all that a fusion layer can be, in lexical order.

    Args:
        max_labels: the number of layers of each encoder, and that of nonlinearities.
    """
    return [list(row) for row in product(*map(range, max_labels))]


def __getattr__(name: str) -> Any:
    """Finds MultiBench's training of configurations, which needs the folder with the loop."""
    if name not in TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    beside = __package__.removesuffix("fusions")  # of a checkout, whose root is on the path, ""
    return getattr(import_module(f"{beside}training_structures.candidates"), name)
