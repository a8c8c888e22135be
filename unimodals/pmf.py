"""PMF (Li et al., 2023): prompts carry messages between a frozen BERT and a frozen ViT."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pretrained import (
    BertEncoder,
    ViTEncoder,
    additive_mask,
    encoder_layers,
    layer_states,
    text_and_image,
)


class Prompts(nn.Module):
    """All that one modality learns in one fusion layer: three kinds of prompts, and a map.

    The prompts are (number, width) each, normal with deviation 0.02 at the start.

    Args:
        width: of this modality's states.
        other: of the other's, to which the map leads.
        hidden: width of the map's hidden layer.
        queries: number of query prompts, whose outputs are the message to the other modality.
        query_context: number of prompts beside them.
        fusion_context: number of prompts beside the other's message.
    """

    def __init__(
        self,
        width: int,
        other: int,
        hidden: int,
        *,
        queries: int,
        query_context: int,
        fusion_context: int,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.query_context = nn.Parameter(0.02 * torch.randn(query_context, width))
        self.fusion_context = nn.Parameter(0.02 * torch.randn(fusion_context, width))
        self.map = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, other))

    def message(self, layer: nn.Module, states: Tensor, mask: Tensor | None) -> Tensor:
        """Returns what the other modality is told, (batch, queries, other): the query pass."""
        output = _with(layer, states, mask, [self.query_context, self.queries])
        return self.map(output[:, -len(self.queries) :])

    def fused(
        self, layer: nn.Module, states: Tensor, mask: Tensor | None, message: Tensor
    ) -> Tensor:
        """Returns the states after the layer, which also reads the message: the fusion pass."""
        output = _with(layer, states, mask, [self.fusion_context, message])
        return output[:, : states.shape[1]]


def _with(
    layer: nn.Module, states: Tensor, mask: Tensor | None, appended: Sequence[Tensor]
) -> Tensor:
    """Returns the layer's output for the states and tokens behind them, which all may see."""
    more = [tokens.expand(len(states), -1, -1) for tokens in appended]
    joined = torch.cat([states, *more], dim=1)
    if mask is not None:
        mask = F.pad(mask, (0, joined.shape[1] - states.shape[1]))
    return layer_states(layer, joined, mask)


class PMF(nn.Module):
    """Prompt-based multimodal fusion: BERT and ViT stay as they are, prompts and maps learn.

    Li et al. (2023), section 3. All layers but the last `fusion_layers` see their own modality
    alone. Each of those is passed twice, with the same frozen weights. For the states x of one
    modality, a map M of two linear layers with a ReLU, and learnt prompts q, c and f:

        query pass     M(the last entries of layer([x; c; q])) is the message to the other modality
        fusion pass    x' = the first entries of layer([x; f; the other's message])

    The prediction is the mean of two linear heads, on BERT's last state at [CLS] and on ViT's
    after its layer normalisation. Padding of the text, which is 0, changes nothing.

    BERT and ViT have no gradients and are in evaluation mode, always. The release leaves f at its
    random start, since it asks for an attribute that is not there; here f learns, as the paper
    says of all prompts.

    Args:
        text: BERT at every token, `pooled=False`.
        image: ViT.
        outputs: numbers predicted for a sample.
        fusion_layers: number of layers, the last ones, that fuse.
        queries: number of query prompts q in each.
        query_context: number of prompts c.
        fusion_context: number of prompts f.
        hidden: width of the maps' hidden layer; by default half the larger width.

    Raises:
        ValueError: for sizes that do not fit; in the forward, for anything but tokens and images,
            or a text that is all padding.
    """

    def __init__(
        self,
        text: BertEncoder,
        image: ViTEncoder,
        outputs: int,
        *,
        fusion_layers: int = 2,
        queries: int = 4,
        query_context: int = 4,
        fusion_context: int = 4,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        most = min(len(encoder_layers(encoder.model)) for encoder in (text, image))
        if not 1 <= fusion_layers <= most or queries < 1 or min(query_context, fusion_context) < 0:
            raise ValueError(
                f"fusion_layers must be from 1 to {most}, the layers of the shorter encoder, and "
                f"there must be a query at least, got {fusion_layers} fusion layers and "
                f"{queries}, {query_context} and {fusion_context} prompts"
            )
        self.text, self.image = text, image
        for parameter in (*text.parameters(), *image.parameters()):
            parameter.requires_grad_(False)
        hidden = max(text.dim, image.dim) // 2 if hidden is None else hidden
        sizes = {
            "queries": queries,
            "query_context": query_context,
            "fusion_context": fusion_context,
        }

        def prompts(own: int, other: int) -> nn.ModuleList:
            layers = (Prompts(own, other, hidden, **sizes) for _ in range(fusion_layers))
            return nn.ModuleList(layers)

        self.text_prompts = prompts(text.dim, image.dim)
        self.image_prompts = prompts(image.dim, text.dim)
        self.text_head = nn.Linear(text.dim, outputs)
        self.image_head = nn.Linear(image.dim, outputs)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PMF":
        super().train(mode)
        self.text.eval()
        self.image.eval()
        return self

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        tokens, images = text_and_image(self.text, inputs)
        depth = len(self.text_prompts)
        text_layers, image_layers = (
            encoder_layers(encoder.model) for encoder in (self.text, self.image)
        )
        with torch.no_grad():
            text = self.text.model.embeddings(input_ids=tokens)
            mask = additive_mask(tokens != 0, text.dtype)
            for layer in text_layers[:-depth]:
                text = layer_states(layer, text, mask)
            image = self.image.embed(images)
            for layer in image_layers[:-depth]:
                image = layer_states(layer, image)
        fusing: Iterable[tuple[nn.Module, nn.Module, Any, Any]] = zip(
            *(text_layers[-depth:], image_layers[-depth:], self.text_prompts, self.image_prompts),
            strict=True,
        )
        for text_layer, image_layer, of_text, of_image in fusing:
            to_image = of_text.message(text_layer, text, mask)
            to_text = of_image.message(image_layer, image, None)
            text = of_text.fused(text_layer, text, mask, to_text)
            image = of_image.fused(image_layer, image, None, to_image)
        image = self.image.model.layernorm(image[:, 0])
        return (self.text_head(text[:, 0]) + self.image_head(image)) / 2
