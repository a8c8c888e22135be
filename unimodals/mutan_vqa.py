"""Mutan's hosts for questions about images (Ben-younes et al., 2017), with any fusion.

Sizes and dropout are those of the authors' release for VQA-v2, where the two differ by whether
the question attends to regions of the image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .skip_thought import SkipThought
from .vqa import masked_mean


class MutanNoAtt(nn.Module):
    """Answers from fusion([question, image]), the image being one vector.

        h_q = tanh(Q dropout(q) + c),    h_v = tanh(V dropout(v) + d)
        logits = W dropout(fusion([h_q, h_v])) + b

    with q the state of `SkipThought` and v the image, or the mean of its regions. The published
    fusion is `fusions.mutan.Mutan([360, 360], 360, hidden=None, rank=10)`.

    Args:
        words: size of the question vocabulary, padding included.
        image_dim: width of the image's features.
        answers: number of answers.
        fusion: maps two (batch, hidden) tensors, of question and image, to (batch, fused_dim).
        fused_dim: width of the fused feature; None if the fusion returns the logits itself.
        question_dim: width of q, `dim` of `SkipThought`.
        embedding: width of a word's vector, of `SkipThought`.
        question_dropout: `dropout` of `SkipThought`.
        weights: of `SkipThought`.
        hidden: width of h_q and h_v.
        dropout: probability of dropout on all but the question's words.
    """

    def __init__(
        self,
        words: int,
        image_dim: int,
        answers: int,
        fusion: nn.Module,
        fused_dim: int | None,
        *,
        question_dim: int = 2400,
        embedding: int = 620,
        question_dropout: float = 0.25,
        weights: Mapping[str, Any] | None = None,
        hidden: int = 360,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.image_dim = image_dim
        self.question = SkipThought(
            words, question_dim, embedding=embedding, dropout=question_dropout, weights=weights
        )
        self.dropout = nn.Dropout(dropout)
        self.embed_question = nn.Linear(question_dim, hidden)
        self.embed_image = nn.Linear(image_dim, hidden)
        self.fusion = fusion
        self.head = _head(fused_dim, answers, dropout)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps [tokens, image] to logits (batch, answers).

        Args:
            inputs: tokens (batch, length) int64, 0 is padding; and image, (batch, image_dim) or
                (batch, regions, image_dim), of which regions of zeros are padding.

        Raises:
            ValueError: for inputs that do not fit.
        """
        tokens, image = _pair(inputs, self.image_dim, ranks=(2, 3))
        if image.dim() == 3:
            image = masked_mean(image, _filled(image))
        textual = self.embed_question(self.dropout(self.question(tokens))).tanh()
        visual = self.embed_image(self.dropout(image)).tanh()
        return self.head(self.fusion([textual, visual]))


class GlimpseAttention(nn.Module):
    """A question's glimpses of an image: means over its regions (Ben-younes et al., 2017).

        v_p = tanh(W_v dropout(x_p) + b_v),    u = tanh(W_q dropout(q) + b_q)
        z_p = sum_{r=1..R} (A_r v_p + a_r) * (B_r u + b_r)
        s_p = C dropout(z_p) + c,    glimpse_g = sum_p softmax_p(s_pg) x_p

    over the regions p that are not padding.

    Args:
        question_dim: width of the question q.
        image_dim: width of a region x_p.
        hidden: width of v_p and u.
        attended: width of z_p.
        rank: R, the number of products.
        glimpses: number of glimpses.
        dropout: probability of dropout.
    """

    def __init__(
        self,
        question_dim: int,
        image_dim: int,
        *,
        hidden: int = 310,
        attended: int = 510,
        rank: int = 5,
        glimpses: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.dropout = nn.Dropout(dropout)
        self.image = nn.Linear(image_dim, hidden)
        self.question = nn.Linear(question_dim, hidden)
        self.image_factors = nn.Linear(hidden, rank * attended)
        self.question_factors = nn.Linear(hidden, rank * attended)
        self.scores = nn.Linear(attended, glimpses)

    def forward(self, question: Tensor, regions: Tensor) -> Tensor:
        """Maps a question and (batch, regions, image_dim) to (batch, glimpses, image_dim).

        Regions of zeros are padding; the glimpses of an image without regions are zero.
        """
        v = self.image_factors(self.image(self.dropout(regions)).tanh())
        u = self.question_factors(self.question(self.dropout(question)).tanh())
        products = (v * u.unsqueeze(1)).unflatten(2, (self.rank, -1))
        scores = self.scores(self.dropout(products.sum(dim=2)))  # (batch, regions, glimpses)
        # not -inf, of which a softmax over padding alone would make NaN
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~_filled(regions).unsqueeze(2), lowest)
        return scores.softmax(dim=1).transpose(1, 2) @ regions


class MutanAtt(nn.Module):
    """Answers from fusion([glimpses, question]), the question attending to the image's regions.

        v = [tanh(V_1 dropout(glimpse_1) + c_1), ..., tanh(V_G dropout(glimpse_G) + c_G)]
        logits = W dropout(fusion([v, tanh(Q dropout(q) + c)])) + b

    with q the state of `SkipThought` and the glimpses of `GlimpseAttention`, which stays as
    published whatever fusion is here. The published one is `fusions.mutan.Mutan([620, 310], 510,
    hidden=None, rank=5)`.

    Args:
        words: size of the question vocabulary, padding included.
        image_dim: width of a region's features.
        answers: number of answers.
        fusion: maps [(batch, glimpses * hidden), (batch, hidden)] to (batch, fused_dim).
        fused_dim: width of the fused feature; None if the fusion returns the logits itself.
        question_dim: width of q, `dim` of `SkipThought`.
        embedding: width of a word's vector, of `SkipThought`.
        question_dropout: `dropout` of `SkipThought`.
        weights: of `SkipThought`.
        hidden: width of the embedded question and of every embedded glimpse.
        attended: of `GlimpseAttention`.
        rank: of `GlimpseAttention`.
        glimpses: G, of `GlimpseAttention`.
        dropout: probability of dropout on all but the question's words.
    """

    def __init__(
        self,
        words: int,
        image_dim: int,
        answers: int,
        fusion: nn.Module,
        fused_dim: int | None,
        *,
        question_dim: int = 2400,
        embedding: int = 620,
        question_dropout: float = 0.25,
        weights: Mapping[str, Any] | None = None,
        hidden: int = 310,
        attended: int = 510,
        rank: int = 5,
        glimpses: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.image_dim = image_dim
        self.question = SkipThought(
            words, question_dim, embedding=embedding, dropout=question_dropout, weights=weights
        )
        sizes = {"hidden": hidden, "attended": attended, "rank": rank, "glimpses": glimpses}
        self.attention = GlimpseAttention(question_dim, image_dim, dropout=dropout, **sizes)
        self.dropout = nn.Dropout(dropout)
        self.embed_glimpses = nn.ModuleList(nn.Linear(image_dim, hidden) for _ in range(glimpses))
        self.embed_question = nn.Linear(question_dim, hidden)
        self.fusion = fusion
        self.head = _head(fused_dim, answers, dropout)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps [tokens, regions] to logits (batch, answers).

        Args:
            inputs: tokens (batch, length) int64, 0 is padding; and the image, (batch, regions,
                image_dim), of which regions of zeros are padding.

        Raises:
            ValueError: for inputs that do not fit.
        """
        tokens, regions = _pair(inputs, self.image_dim, ranks=(3,))
        question = self.question(tokens)
        glimpses = self.dropout(self.attention(question, regions)).unbind(dim=1)
        layers = zip(self.embed_glimpses, glimpses, strict=True)
        visual = torch.cat([layer(x).tanh() for layer, x in layers], dim=1)
        textual = self.embed_question(self.dropout(question)).tanh()
        return self.head(self.fusion([visual, textual]))


def _head(fused_dim: int | None, answers: int, dropout: float) -> nn.Module:
    if fused_dim is None:
        return nn.Identity()
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(fused_dim, answers))


def _filled(regions: Tensor) -> Tensor:
    """Returns which regions are not padding, (batch, regions)."""
    return (regions != 0).any(dim=2)


def _pair(inputs: Sequence[Tensor], image_dim: int, ranks: Sequence[int]) -> Sequence[Tensor]:
    """Returns tokens and image, of which the shape is checked."""
    if isinstance(inputs, Tensor) or len(inputs) != 2:
        came = "one tensor" if isinstance(inputs, Tensor) else f"{len(inputs)}"
        raise ValueError(f"inputs must be [tokens, image], got {came}; load both modalities")
    tokens, image = inputs
    if image.dim() not in ranks or image.shape[-1] != image_dim or len(image) != len(tokens):
        shapes = {2: f"({len(tokens)}, {image_dim})", 3: f"({len(tokens)}, regions, {image_dim})"}
        raise ValueError(
            f"image must be {' or '.join(shapes[rank] for rank in ranks)}, a row for each "
            f"question, got {tuple(image.shape)}; build the model with the features' width"
        )
    return tokens, image
