"""MultiBench's simple fusions, under its names and signatures.

Parameters are drawn in MultiBench's order, so a seed gives the same ones, and state_dicts
cross in both directions, `LowRankTensorFusion`'s excepted. Dropout is off in evaluation.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .finance import EarlyFusionTransformer, LateFusionTransformer
from .modalities import check_tensors
from .multiplicative import MultiplicativeInteractions2Modal, MultiplicativeInteractions3Modal
from .tensor_fusion import LowRankTensorFusion, TensorFusion

for _fusion in (
    EarlyFusionTransformer,
    LateFusionTransformer,
    LowRankTensorFusion,
    MultiplicativeInteractions2Modal,
    MultiplicativeInteractions3Modal,
    TensorFusion,
):
    _fusion.__module__ = __name__  # whole-model files name MultiBench's module, not ours


class Concat(nn.Module):
    """Flattens every modality from dimension 1 and concatenates them on it."""

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps tensors (batch, ...) to (batch, sum of their flattened sizes)."""
        return torch.cat([x.flatten(1) for x in check_tensors(modalities)], dim=1)


class ConcatEarly(nn.Module):
    """Concatenates sequences of equal length step by step."""

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps tensors (batch, time, d_i) to (batch, time, sum of the d_i)."""
        modalities = check_tensors(modalities)
        if any(x.ndim != 3 or x.shape[:2] != modalities[0].shape[:2] for x in modalities):
            raise ValueError(
                "modalities must be (batch, time, width) with one batch and time for all, got "
                f"shapes {[tuple(x.shape) for x in modalities]}; pad or align them first"
            )
        return torch.cat(modalities, dim=2)


class Stack(nn.Module):
    """Flattens every modality from dimension 1 and stacks them on a new last dimension."""

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps M tensors (batch, ...) of equal flattened size D to (batch, D, M)."""
        return torch.stack([x.flatten(1) for x in check_tensors(modalities)], dim=2)


class ConcatWithLinear(nn.Module):
    """Concatenates modalities, without flattening, and applies a linear layer.

    Args:
        input_dim: width of the last dimension of the concatenation.
        output_dim: width of the last dimension of the result.
        concat_dim: dimension on which the modalities are concatenated. That of time, where it
            is not the last, joins the sequences end to end.
    """

    def __init__(self, input_dim: int, output_dim: int, concat_dim: int = 1) -> None:
        super().__init__()
        self.fc = nn.Linear(input_dim, output_dim)
        self.concat_dim = concat_dim

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps tensors that differ in `concat_dim` only to (..., output_dim)."""
        return self.fc(torch.cat(check_tensors(modalities), dim=self.concat_dim))


class FiLM(nn.Module):
    """Scales and shifts one modality by maps of others, gamma(x_g) * x + beta(x_b).

    Feature-wise linear modulation (Perez et al., 2018, equation 2), of MultiBench's older tree.

    Args:
        gamma_generation_network: x_g to the scale, which has the shape of x or broadcasts.
        beta_generation_network: x_b to the shift, likewise.
        base_modal: index of the modality x.
        gamma_generate_modal: index of the modality x_g.
        beta_generate_modal: index of the modality x_b.
    """

    def __init__(
        self,
        gamma_generation_network: nn.Module,
        beta_generation_network: nn.Module,
        base_modal: int = 0,
        gamma_generate_modal: int = 1,
        beta_generate_modal: int = 1,
    ) -> None:
        super().__init__()
        self.g_net, self.b_net = gamma_generation_network, beta_generation_network
        self.base_modal = base_modal
        self.ggen_modal, self.bgen_modal = gamma_generate_modal, beta_generate_modal

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps the modalities to a tensor of the shape of the base modality."""
        modalities = check_tensors(modalities)
        indices = (self.base_modal, self.ggen_modal, self.bgen_modal)
        if len(modalities) <= max(indices):
            raise ValueError(
                f"FiLM reads the modalities {indices}, got {len(modalities)} of them; "
                "pass them all, or construct it with other indices"
            )
        base, gamma_source, beta_source = (modalities[index] for index in indices)
        return self.g_net(gamma_source) * base + self.b_net(beta_source)


class NLgate(nn.Module):
    """Adds to one modality what its positions attend to in another.

    The non-local block (Wang et al., 2018) with a softmax of dot products, as Wang, Tran and
    Feiszli (2020) fuse with it:

        y = q + softmax(q k) v,

    q from the first modality, viewed as (batch, thw_dim, c_dim), k and v from the second,
    viewed as (batch, c_dim, tf_dim) and (batch, tf_dim, c_dim), and the softmax over tf_dim.
    The views keep the order of the entries: nothing is transposed, and without linear layers
    the batch is whatever the views leave.

    Args:
        thw_dim: positions of the first modality.
        c_dim: width of a position.
        tf_dim: positions of the second modality.
        q_linear: (in, out) of a linear layer on the first modality; None for none.
        k_linear: that of the layer to the keys.
        v_linear: that of the layer to the values.
    """

    def __init__(
        self,
        thw_dim: int,
        c_dim: int,
        tf_dim: int,
        q_linear: tuple[int, int] | None = None,
        k_linear: tuple[int, int] | None = None,
        v_linear: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.thw_dim, self.c_dim, self.tf_dim = thw_dim, c_dim, tf_dim
        self.qli = None if q_linear is None else nn.Linear(*q_linear)
        self.kli = None if k_linear is None else nn.Linear(*k_linear)
        self.vli = None if v_linear is None else nn.Linear(*v_linear)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Maps two tensors, of any shape that the views fit, to (batch, thw_dim * c_dim)."""
        x = check_tensors(x)
        if len(x) != 2:
            raise ValueError(f"NLgate takes 2 modalities, query and key, got {len(x)}")
        q = self._view("q", self.qli, x[0], self.thw_dim, self.c_dim)
        k = self._view("k", self.kli, x[1], self.c_dim, self.tf_dim)
        v = self._view("v", self.vli, x[1], self.tf_dim, self.c_dim)
        if not len(q) == len(k) == len(v):
            raise ValueError(
                "the views of q, k and v must have one batch size, "
                f"got {len(q)}, {len(k)} and {len(v)}; see thw_dim, c_dim and tf_dim"
            )
        return (q + (q @ k).softmax(dim=2) @ v).flatten(1)

    @staticmethod
    def _view(role: str, linear: nn.Linear | None, x: Tensor, rows: int, columns: int) -> Tensor:
        x = x if linear is None else linear(x)
        if x.numel() % (rows * columns):
            raise ValueError(
                f"the entries of {role} must fill matrices {rows} x {columns}, "
                f"got shape {tuple(x.shape)}; choose other dimensions or a {role}_linear"
            )
        return x.reshape(-1, rows, columns)
