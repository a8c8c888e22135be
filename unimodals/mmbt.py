"""MMBT (Kiela et al., 2019): regions of an image are tokens of BERT, before those of its text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .pretrained import BertEncoder, ResNetEncoder, text_and_image

TEXT, IMAGE = 0, 1  # places among the inputs

GRIDS = {n: (n, 1) for n in (1, 2, 3, 5, 7)} | {4: (2, 2), 6: (3, 2), 8: (4, 2), 9: (3, 3)}
"""Rows and columns of so many regions, as the release cuts an image."""

ROUNDS = {"all": (), "text": ("image",), "image": ("text",), "new": ("text", "image")}
"""Round of training, named after what learns -> trained parts that do not."""


class ImageRegions(nn.Module):
    """ResNet's feature map, averaged over regions, (batch, 3, height, width) -> (batch, n, dim).

    Args:
        encoder: the ResNet.
        regions: n, from 1 to 9: full rows, or for 4, 6, 8 and 9 two or three a row (see `GRIDS`).

    Attributes:
        dim: width of a region's feature.
    """

    def __init__(self, encoder: ResNetEncoder, regions: int = 3) -> None:
        super().__init__()
        if regions not in GRIDS:
            raise ValueError(f"regions must be from 1 to 9, got {regions}")
        self.encoder = encoder
        self.pool = nn.AdaptiveAvgPool2d(GRIDS[regions])
        self.dim: int = encoder.dim

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.encoder.feature_map(images)).flatten(2).transpose(1, 2)


class MMBT(nn.Module):
    """A bitransformer of text and image: BERT reads both as one sequence, and learns whole.

    Kiela et al. (2019), section 3. For region features v_1, ..., v_n and a text of [CLS], pieces
    t_1, ..., t_m and [SEP] the sequence is

        token      [CLS]   A v_1 ... A v_n   [SEP]   t_1 ... t_m
        segment      0       0         0       0      1        1
        position     0       1         n     n + 1    0      m - 1

    with a learnt affine map A; positions start anew with the text, as in the release. The result
    is a linear map of BERT's pooled output. Padding, which is 0, changes nothing, and a text
    without pieces is as good as any: the image is there.

    In the round "image" BERT's layers do not learn, in "text" the image encoder does not, and in
    "new" neither; BERT's embeddings and pooler always do. See `rounds`. A forward in training sets
    `requires_grad` of both parts by the round, whatever it was.

    Args:
        text: BERT, with its pooler.
        image: maps images to region features, (batch, n, image_dim), or (batch, image_dim) for one
            region; `nn.Identity` for features that are there already.
        image_dim: their width.
        outputs: numbers predicted for a sample.

    Attributes:
        round: the round of training, a name of `ROUNDS`; None is "all".

    Raises:
        ValueError: for a BERT without pooler; in the forward, for anything but tokens and images,
            or a text that is all padding.
    """

    def __init__(self, text: BertEncoder, image: nn.Module, image_dim: int, outputs: int) -> None:
        super().__init__()
        if not text.pooled:
            raise ValueError("text must be a BertEncoder with its pooler; leave out pooled=False")
        self.text, self.image = text, image
        self.project = nn.Linear(image_dim, text.dim)
        self.head = nn.Linear(text.dim, outputs)
        self.round: str | None = None
        self._absent: int | None = None

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        tokens, images = text_and_image(self.text, inputs)
        if self.training:
            self._freeze(ROUNDS[self.round or "all"])
        regions = self.image(images)
        regions = regions.unsqueeze(1) if regions.ndim == 2 else regions
        if regions.ndim != 3 or regions.shape[2] != self.project.in_features:
            raise ValueError(
                f"the image's features must be (batch, regions, {self.project.in_features}), got "
                f"{tuple(regions.shape)}"
            )
        if self._absent == IMAGE:
            regions = regions[:, :0]
        return self.head(self._pooled(tokens, self.project(regions)))

    @contextmanager
    def without(self, modality: int) -> Iterator[None]:
        """Leaves the tokens of the text (0) or of the image (1) out of the sequence."""
        self._absent = modality
        try:
            yield
        finally:
            self._absent = None

    def _pooled(self, tokens: Tensor, regions: Tensor) -> Tensor:
        """Returns BERT's pooled output for the sequence of regions, then text."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        ends = (tokens != 0).long().mul(place).amax(dim=1, keepdim=True)  # the places of [SEP]
        words = self.text.model.get_input_embeddings()
        first, last, text = words(tokens[:, :1]), words(tokens.gather(1, ends)), tokens[:, 1:]
        before = torch.arange(regions.shape[1] + 2, device=tokens.device)
        seen = (text != 0) & (place[1:] != ends)
        if self._absent == TEXT:
            seen = torch.zeros_like(seen)
        return self.text.model(
            inputs_embeds=torch.cat([first, regions, last, words(text)], dim=1),
            token_type_ids=torch.cat([0 * before, 1 + 0 * place[1:]]).expand(len(tokens), -1),
            position_ids=torch.cat([before, place[:-1]]).expand(len(tokens), -1),
            attention_mask=torch.cat([seen.new_ones(len(tokens), len(before)), seen], 1).long(),
        ).pooler_output

    def _freeze(self, frozen: Sequence[str]) -> None:
        self.text.model.encoder.requires_grad_("text" not in frozen)
        self.image.requires_grad_("image" not in frozen)


def rounds(epoch: int, *, text: int = 5, image: int = 3) -> list[str]:
    """Returns the round of an epoch, for `fit`: what was trained before learns later.

    Args:
        epoch: its number, from 1.
        text: epochs in which BERT's layers do not learn; by default the release's example.
        image: epochs in which the image encoder does not.
    """
    limits = {"text": text, "image": image}
    frozen = tuple(part for part, last in limits.items() if epoch <= last)
    return [name for name, parts in ROUNDS.items() if parts == frozen]
