"""The multimodal transformer (Tsai et al., 2019), under MultiBench's names and signatures.

Parameters are drawn in MultiBench's order, so a seed gives the same ones, and state_dicts
cross in both directions. Dropout is off in evaluation.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import check_tensors
from .mult_encoder import (
    LayerNorm,
    Linear,
    SinusoidalPositionalEmbedding,
    TransformerEncoder,
    TransformerEncoderLayer,
    buffered_future_mask,
    fill_with_neg_inf,
    make_positions,
)

__all__ = [
    "LayerNorm",
    "Linear",
    "MULTModel",
    "SinusoidalPositionalEmbedding",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "buffered_future_mask",
    "fill_with_neg_inf",
    "make_positions",
]

for _part in (SinusoidalPositionalEmbedding, TransformerEncoder, TransformerEncoderLayer):
    _part.__module__ = __name__  # whole-model files name MultiBench's module, not ours


def _encoder(dim: int, layers: int, attn_dropout: float, hyp_params: Any) -> TransformerEncoder:
    """An encoder of this width and depth, with the settings that all of them share."""
    return TransformerEncoder(
        dim,
        hyp_params.num_heads,
        layers,
        attn_dropout=attn_dropout,
        relu_dropout=hyp_params.relu_dropout,
        res_dropout=hyp_params.res_dropout,
        embed_dropout=hyp_params.embed_dropout,
        attn_mask=hyp_params.attn_mask,
    )


class MULTModel(nn.Module):
    """Fuses sequences of equal length: each attends to each, itself included, then to itself.

    Every modality is mapped to width E. For modality i, M transformers attend from it to the
    modalities j = 1, ..., M; their results, concatenated, pass a transformer of width M E that
    attends to itself. The last steps h of the M results, of width M^2 E together, give
    out(h + W_2 relu(W_1 h)).

    Args:
        n_modalities: number of modalities, M.
        n_features: width of each modality's steps.
        hyp_params: a class or an object with the attributes of `DefaultHyperParams`.
    """

    class DefaultHyperParams:
        """MultiBench's settings; derive from it to change some.

        Attributes:
            num_heads: attention heads; they must divide embed_dim.
            layers: layers of a cross-modal transformer; the last ones have at least 3.
            attn_dropout: share of attention weights dropped in the last transformers.
            attn_dropout_modalities: that in the transformers that attend to modality j.
            relu_dropout, res_dropout, embed_dropout: shares dropped of a hidden layer, of what
                is added to a residual, and of an embedded input.
            out_dropout: share dropped of the hidden layer before the output.
            embed_dim: width E.
            attn_mask: let no step attend to a later one.
            output_dim: width of the output.
            all_steps: return the output of every step, not of the last one.
        """

        num_heads = 3
        layers = 3
        attn_dropout = 0.1
        attn_dropout_modalities = [0.0] * 1000
        relu_dropout = 0.1
        res_dropout = 0.1
        out_dropout = 0.0
        embed_dropout = 0.25
        embed_dim = 9
        attn_mask = True
        output_dim = 1
        all_steps = False

    def __init__(
        self, n_modalities: int, n_features: Sequence[int], hyp_params: Any = DefaultHyperParams
    ) -> None:
        super().__init__()
        source_dropouts = hyp_params.attn_dropout_modalities[:n_modalities]
        if not len(n_features) == len(source_dropouts) == n_modalities:
            raise ValueError(
                "n_features and attn_dropout_modalities must have an entry for each of "
                f"{n_modalities} modalities, got {len(n_features)} and {len(source_dropouts)}"
            )
        self.out_dropout, self.all_steps = hyp_params.out_dropout, hyp_params.all_steps
        width, layers = hyp_params.embed_dim, hyp_params.layers
        joint, combined = n_modalities * width, n_modalities**2 * width
        self.proj = nn.ModuleList(
            nn.Conv1d(features, width, kernel_size=1, bias=False) for features in n_features
        )
        self.trans = nn.ModuleList(
            nn.ModuleList(
                _encoder(width, layers, dropout, hyp_params) for dropout in source_dropouts
            )
            for _ in range(n_modalities)
        )
        self.trans_mems = nn.ModuleList(
            _encoder(joint, max(layers, 3), hyp_params.attn_dropout, hyp_params)
            for _ in range(n_modalities)
        )
        self.proj1 = nn.Linear(combined, combined)
        self.proj2 = nn.Linear(combined, combined)
        self.out_layer = nn.Linear(combined, hyp_params.output_dim)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Maps tensors (B, T, n_features[i]) to (B, output_dim); with all_steps, (B, T, ...)."""
        x = check_tensors(x)
        self._check(x)
        steps = [
            proj(v.transpose(1, 2)).permute(2, 0, 1)  # (T, B, E)
            for proj, v in zip(self.proj, x, strict=True)
        ]
        fused = []
        for target, across, memory in zip(steps, self.trans, self.trans_mems, strict=True):
            attended = [
                encode(target, source, source) for encode, source in zip(across, steps, strict=True)
            ]
            fused.append(memory(torch.cat(attended, dim=2)))
        last = torch.cat(fused, dim=2).transpose(0, 1)  # (B, T, M^2 E)
        if not self.all_steps:
            last = last[:, -1]
        hidden = F.dropout(self.proj1(last).relu(), self.out_dropout, self.training)
        return self.out_layer(last + self.proj2(hidden))

    def _check(self, x: Sequence[Tensor]) -> None:
        shapes, widths = [tuple(v.shape) for v in x], [proj.in_channels for proj in self.proj]
        if (
            any(len(shape) != 3 for shape in shapes)
            or [shape[2] for shape in shapes] != widths
            or len({shape[:2] for shape in shapes}) > 1
        ):
            raise ValueError(
                f"modalities must be (batch, time, n) with n = {widths} and one "
                f"batch and time for all, got shapes {shapes}; pad or align them first"
            )
