"""Encoders of text and pictures on transformers' networks, from local weights or untrained.

Nothing is ever downloaded. transformers, which they alone need: `pip install -e .[features]`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class BertEncoder(nn.Module):
    """BERT's pooled output, (batch, length) -> (batch, dim) (Devlin et al., 2019).

    That is tanh of a linear map of the state at the first token, [CLS]. Tokens are numbers of
    word pieces, 0 is padding and changes nothing. Whole numbers held as floats will do as well,
    which is what MultiBench's training loop makes of them.

    With `pooled=False` it is the last layer's state at every token, (batch, length, dim), and
    that map is left out; what the states at padding hold has no meaning.

    Args:
        weights: folder of a BERT as transformers saves it (`config.json`, `model.safetensors`);
            None is an untrained network of the sizes below, which a folder's own ones override.
        vocabulary: number of word pieces.
        width: of the hidden states and of the output.
        layers: number of layers.
        heads: attention heads in each.
        length: the most tokens a text may have.
        pooled: one vector a text; False: one a token.

    Attributes:
        dim: width of the output, 768 for BERT-base.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if it holds another network, or not all of this one's weights.
        ImportError: if transformers is not installed.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        vocabulary: int = 30522,
        width: int = 128,
        layers: int = 2,
        heads: int = 2,
        length: int = 512,
        pooled: bool = True,
    ) -> None:
        super().__init__()
        transformers = _transformers()
        if weights is None:
            _check_heads(width, heads)
            config = transformers.BertConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                max_position_embeddings=length,
            )
            self.model = transformers.BertModel(config, add_pooling_layer=pooled)
        else:
            name = "google-bert/bert-base-uncased"
            self.model = _load(transformers.BertModel, weights, name, add_pooling_layer=pooled)
        self.pooled = pooled
        self.dim: int = self.model.config.hidden_size

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.checked(tokens)
        output = self.model(input_ids=tokens, attention_mask=(tokens != 0).long())
        return output.pooler_output if self.pooled else output.last_hidden_state

    def checked(self, tokens: Tensor) -> Tensor:
        """Returns the tokens as whole numbers, once they have a shape that fits."""
        most = self.model.config.max_position_embeddings
        if tokens.ndim != 2 or tokens.shape[1] > most:
            raise ValueError(
                f"tokens must be (batch, length) with a length of {most} at most, got "
                f"{tuple(tokens.shape)}; cut the texts"
            )
        return tokens.long()


class ResNetEncoder(nn.Module):
    """ResNet's last feature map, averaged, (batch, 3, height, width) -> (batch, dim).

    He et al. (2016). Pictures are RGB in 0 ... 255, uint8 or as floats; they are normalised here,
    with ImageNet's mean and deviation.

    Args:
        weights: folder of a ResNet as transformers saves it (`config.json`,
            `model.safetensors`); None is an untrained network of basic blocks.
        widths: channels of its stages.
        depths: blocks in each stage.

    Attributes:
        dim: channels of the last stage, 2048 for ResNet-152.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if it holds another network, or not all of this one's weights.
        ImportError: if transformers is not installed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        widths: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        transformers = _transformers()
        if weights is None:
            if len(widths) != len(depths):
                raise ValueError(
                    f"widths and depths must have one entry a stage, got {widths} and {depths}"
                )
            config = transformers.ResNetConfig(
                embedding_size=widths[0],
                hidden_sizes=list(widths),
                depths=list(depths),
                layer_type="basic",
            )
            self.model = transformers.ResNetModel(config)
        else:
            self.model = _load(transformers.ResNetModel, weights, "microsoft/resnet-152")
        self.dim: int = self.model.config.hidden_sizes[-1]
        for name, numbers in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            scaled = 255 * torch.tensor(numbers).view(3, 1, 1)
            self.register_buffer(name, scaled, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.feature_map(images).mean(dim=(2, 3))

    def grid(self, images: Tensor) -> Tensor:
        """Returns the feature at every position, row by row, (batch, positions, dim)."""
        return self.feature_map(images).flatten(2).transpose(1, 2)

    def feature_map(self, images: Tensor) -> Tensor:
        """Returns the last feature map, (batch, dim, rows, columns)."""
        _check_images(images)
        normal = (images.to(self.mean.dtype) - self.mean) / self.std
        return self.model(normal).last_hidden_state


class ViTEncoder(nn.Module):
    """ViT's state at every token, (batch, 3, size, size) -> (batch, 1 + patches, dim).

    Dosovitskiy et al. (2021). The first token is [CLS], the others are the patches, row by row; a
    layer normalisation ends it. Pictures are RGB in 0 ... 255, uint8 or as floats; here they are
    brought to -1 ... 1, as the published weights want them.

    Args:
        weights: folder of a ViT as transformers saves it (`config.json`, `model.safetensors`);
            None is an untrained network of the sizes below, which a folder's own ones override.
        size: side of the pictures in pixels.
        patch: side of a patch, which divides it.
        width: of the states.
        layers: number of layers.
        heads: attention heads in each.

    Attributes:
        dim: width of the states, 768 for ViT-base.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if it holds another network, or not all of this one's weights; or for sizes
            that make no network.
        ImportError: if transformers is not installed.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        size: int = 224,
        patch: int = 16,
        width: int = 128,
        layers: int = 4,
        heads: int = 2,
    ) -> None:
        super().__init__()
        transformers = _transformers()
        if weights is None:
            _check_heads(width, heads)
            if size % patch:
                raise ValueError(f"patch must divide size, got patches of {patch} in {size} pixels")
            config = transformers.ViTConfig(
                image_size=size,
                patch_size=patch,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
            )
            self.model = transformers.ViTModel(config, add_pooling_layer=False)
        else:
            name = "google/vit-base-patch16-224-in21k"
            self.model = _load(transformers.ViTModel, weights, name, add_pooling_layer=False)
        self.dim: int = self.model.config.hidden_size

    def forward(self, images: Tensor) -> Tensor:
        states = self.embed(images)
        for layer in encoder_layers(self.model):
            states = layer_states(layer, states)
        return self.model.layernorm(states)

    def embed(self, images: Tensor) -> Tensor:
        """Returns the tokens before the first layer, (batch, 1 + patches, dim)."""
        _check_images(images)
        size = self.model.config.image_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if images.shape[2:] != sides:
            raise ValueError(
                f"images must be {sides[0]} x {sides[1]} pixels, as this ViT has learnt them, got "
                f"{images.shape[2]} x {images.shape[3]}; read them with that size"
            )
        return self.model.embeddings(images.to(self.model.dtype) / 127.5 - 1)


def encoder_layers(model: Any) -> nn.ModuleList:
    """Returns the layers of transformers' BERT or ViT, which its releases keep in two places."""
    return model.encoder.layer if hasattr(model, "encoder") else model.layers


def layer_states(layer: nn.Module, states: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns what such a layer makes of states, (batch, tokens, dim) like them.

    Args:
        layer: one of `encoder_layers`.
        states: (batch, tokens, dim).
        mask: added to the attention's logits, (batch, 1, 1, tokens); see `additive_mask`.
    """
    output = layer(states, mask)
    return output[0] if isinstance(output, tuple) else output  # older releases return a tuple


def additive_mask(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns what hides tokens from attention, (batch, 1, 1, tokens), from which are valid."""
    hidden = torch.zeros(valid.shape, dtype=dtype, device=valid.device)
    return hidden.masked_fill(~valid, torch.finfo(dtype).min)[:, None, None]


def text_and_image(encoder: BertEncoder, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns tokens, as whole numbers, and images, once they are of the same samples.

    Raises:
        ValueError: if one is missing, or a text is no text: a row without [CLS] at its start.
    """
    if len(inputs) != 2 or len(inputs[0]) != len(inputs[1]):
        raise ValueError(
            "inputs must be tokens and images of the same samples, both of them, got "
            f"{[tuple(x.shape) for x in inputs]}"
        )
    tokens = encoder.checked(inputs[0])
    empty = ~(tokens != 0)[:, :1].any(dim=1)
    if empty.any():
        raise ValueError(
            f"every text must begin with [CLS], but that of sample {int(empty.int().argmax())} is "
            "all padding; an empty text is [CLS] [SEP]"
        )
    return tokens, inputs[1]


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"heads must divide width, got {heads} heads of width {width}")


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images must be (batch, 3, height, width), got {tuple(images.shape)}; "
            "turn them to RGB, channels first"
        )


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "this encoder is built on transformers, which cannot be imported; install it with "
            "`pip install -e .[features]`"
        ) from error
    return transformers


def _load(network: type[nn.Module], weights: str | Path, name: str, **options: bool) -> nn.Module:
    """Reads a network, built with `options`, from a local folder, whole or not at all."""
    folder = Path(weights)
    kind = network.config_class.model_type
    get = f"get it with: hf download {name} --local-dir {folder}"
    # Seen here first: transformers takes a folder that is not there for a name on its hub.
    missing = [
        part for part in ("config.json", "model.safetensors") if not (folder / part).exists()
    ]
    if missing:
        raise FileNotFoundError(
            f"the folder {folder} must hold config.json and model.safetensors, as transformers "
            f"saves them, but has no {' and no '.join(missing)}; {get}"
        )
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        if found != kind:
            raise ValueError(f"it holds a network of type {found!r}")
        with _quiet():
            model, report = network.from_pretrained(
                folder.absolute(),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # transformers, safetensors and json raise many kinds
        raise ValueError(f"{folder} must hold a {kind}, but {error}; {get}") from error
    absent = sorted(key for key in report["missing_keys"] if "num_batches_tracked" not in key)
    if absent:
        raise ValueError(
            f"{folder} must hold all weights of a {kind}, but {len(absent)} are missing, "
            f"the first is {absent[0]}; {get}"
        )
    return model.to(torch.get_default_dtype()).train()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from printing bars and reports of weights that are not needed."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
