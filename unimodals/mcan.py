"""MCAN (Yu et al., 2019, arXiv:1906.10770): a host for questions about images, with any fusion."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .mcan_layers import AttentionFlattening, AttentionLayer, LayerNorm, Tokens
from .vqa import PAD

PRESETS: Mapping[str, Mapping[str, int]] = {
    "small": {"hidden": 512, "out": 1024},
    "large": {"hidden": 1024, "out": 2048},
}
"""The sizes of the authors' release, options of `MCAN`; both have 6 layers of 8 heads."""


class MCAN(nn.Module):
    """Attends within a question and from an image to it, fuses both, and scores the answers.

        y = SA^L(LSTM(embedding of the words))                   (batch, words, hidden)
        x = SGA^L(linear map of the regions; guided by y)        (batch, regions, hidden)
        logits = W LN(fusion([flattened y, flattened x])) + b

    with the layers of `mcan_layers`; every layer of the image is guided by the last one of the
    question (Yu et al., 2019, sections 3 and 4: encoder-decoder). The published fusion is the sum.

    Without `words`, or without `region_dim`, the model has the other modality alone: the fusion
    is given one feature, and an image without a question goes through SA for SGA.

    Args:
        fusion: maps a list of (batch, out) tensors, the question's first, to (batch, fused_dim).
        fused_dim: width of the fused feature; None if the fusion returns the logits itself, and
            then there is neither LN nor W.
        answers: number of answers, 3129 as published.
        words: size of the vocabulary, padding (0) included; None for a model without question.
        region_dim: width of a region's features; None for a model without image.
        hidden: width of the tokens.
        out: width of the features that are fused.
        layers: L, the number of layers of each modality.
        heads: number of heads of each attention.
        dropout: probability of dropout, see `mcan_layers`.
        embedding: width of a word's vector.
        vectors: (words, embedding), what the words' vectors start as; None is drawn at random.

    Raises:
        ValueError: for options that do not fit.
    """

    def __init__(
        self,
        fusion: nn.Module,
        fused_dim: int | None,
        answers: int,
        *,
        words: int | None = None,
        region_dim: int | None = None,
        hidden: int = 512,
        out: int = 1024,
        layers: int = 6,
        heads: int = 8,
        dropout: float = 0.1,
        embedding: int = 300,
        vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        embeds: dict[str, nn.Module] = {}
        if words is not None:
            embeds["question"] = QuestionTokens(words, hidden, embedding=embedding, vectors=vectors)
        if region_dim is not None:
            embeds["image"] = RegionTokens(region_dim, hidden)
        if not embeds:
            raise ValueError("words or region_dim must be given: a model of neither reads nothing")
        options = {"out": out, "layers": layers, "heads": heads, "dropout": dropout}
        self.branches = nn.ModuleDict()
        for name, embed in embeds.items():
            guided = bool(self.branches)
            self.branches[name] = Branch(embed, hidden, guided=guided, **options)
        self.fusion = fusion
        self.head: nn.Module = nn.Identity()
        if fused_dim is not None:
            self.head = nn.Sequential(LayerNorm(fused_dim), nn.Linear(fused_dim, answers))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps a question and an image, or the one that the model has, to logits (batch, answers).

        Args:
            inputs: words (batch, length) int64, padded on the right with 0; and regions
                (batch, regions, region_dim), of which rows of zeros are padding. A question
                without words, or an image without regions, counts as one token of padding.

        Raises:
            ValueError: for inputs that do not fit.
            TypeError: for words that are no whole numbers.
        """
        if isinstance(inputs, Tensor) or len(inputs) != len(self.branches):
            came = "one tensor" if isinstance(inputs, Tensor) else f"{len(inputs)}"
            raise ValueError(
                f"inputs must be {list(self.branches)}, as the model was built, got {came}"
            )
        features, tokens = [], None
        for branch, x in zip(self.branches.values(), inputs, strict=True):
            tokens = branch(x, tokens)
            features.append(branch.flatten(tokens))
        return self.head(self.fusion(features))


class Branch(nn.Module):
    """A modality's layers over its tokens; `flatten` turns these into the feature to fuse.

    Args:
        embed: maps the modality's input to tokens of width `hidden`.
        hidden: width of the tokens.
        out: see `MCAN`.
        layers: likewise.
        heads: likewise.
        dropout: likewise.
        guided: whether every layer attends to the tokens of another modality as well.
    """

    def __init__(
        self,
        embed: nn.Module,
        hidden: int,
        *,
        out: int,
        layers: int,
        heads: int,
        dropout: float = 0.1,
        guided: bool = False,
    ) -> None:
        super().__init__()
        self.embed = embed
        self.layers = nn.ModuleList(
            AttentionLayer(hidden, heads, dropout=dropout, guided=guided) for _ in range(layers)
        )
        self.flatten = AttentionFlattening(hidden, out, dropout=dropout)

    def forward(self, x: Tensor, guide: Tokens | None = None) -> Tokens:
        tokens = self.embed(x)
        for layer in self.layers:
            tokens = layer(tokens, guide)
        return tokens


class QuestionTokens(nn.Module):
    """A question as the states of an LSTM at each of its words (Yu et al., 2019, section 4.1).

    Args:
        words: size of the vocabulary, padding included.
        dim: width of the states.
        embedding: width of a word's vector.
        vectors: (words, embedding), what the words' vectors start as.
    """

    def __init__(
        self, words: int, dim: int, *, embedding: int = 300, vectors: Tensor | None = None
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=PAD)
        self.lstm = nn.LSTM(embedding, dim, batch_first=True)
        if vectors is not None:
            if vectors.shape != (words, embedding):
                raise ValueError(
                    f"vectors must have shape (words, embedding) = ({words}, {embedding}), got "
                    f"{tuple(vectors.shape)}; a word without a vector needs a row, too"
                )
            with torch.no_grad():
                self.embedding.weight.copy_(vectors)

    def forward(self, question: Tensor) -> Tokens:
        """Maps words (batch, length), padded on the right, to tokens of width `dim`."""
        if question.ndim != 2 or not question.shape[1]:
            raise ValueError(
                f"the question must be (batch, length) numbers of words, got "
                f"{tuple(question.shape)}"
            )
        if question.is_floating_point():
            raise TypeError(
                f"the question must be whole numbers of words, got {question.dtype}; "
                "give it as int64"
            )
        # padding comes last, so that no word's state has seen it
        states, _ = self.lstm(self.embedding(question))
        return Tokens(states, _at_least_one(question != PAD))


class RegionTokens(nn.Module):
    """An image as linear maps of its regions' features (Yu et al., 2019, section 4.1).

    Args:
        region_dim: width of a region's features.
        dim: width of the tokens.
    """

    def __init__(self, region_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(region_dim, dim)

    def forward(self, image: Tensor) -> Tokens:
        """Maps (batch, regions, region_dim) to tokens; regions of zeros are padding."""
        width = self.linear.in_features
        if image.ndim != 3 or image.shape[2] != width or not image.shape[1]:
            raise ValueError(
                f"the image must be (batch, regions, {width}), got {tuple(image.shape)}; "
                "region_dim is the width that it must have"
            )
        return Tokens(self.linear(image), _at_least_one((image != 0).any(dim=2)))


def _at_least_one(kept: Tensor) -> Tensor:
    """Keeps the first token where there is none: a softmax over nothing is not a number."""
    first = torch.arange(kept.shape[1], device=kept.device) == 0
    return kept | (first & ~kept.any(dim=1, keepdim=True))
