"""CM-BERT on CMU-MOSI (Yang et al., 2020): what its hosts change of the recipe in `recipe.py`.

- `cm_bert`: the published host, which fuses two attention maps, column by column. Its own fusion
  is `weighted_sum` (but for a bias that the softmax takes out again).
- `cm_bert_pooled`: its parts with a fusion of two vectors, of the text and of the audio.

Either reads one of two sets: `mosi_utterance.npz`, whose audio is an utterance's vector, put at
each of its tokens and so not aligned to words (`datasets/affect/transcripts.py`), or CM-BERT's
tables beside its audio pickle (`datasets/affect/cm_bert.py`), as they are. A modality alone goes
without host: BERT and a linear map for the text, as the BERT of the paper's Table 3, or the mean
of the audio.

The rates follow the published plan, and change after every epoch, not after every step. Not as
published: the moments of AdamW are corrected for their start, no gradient is clipped, and all
parameters are trained, the embeddings and the last map, too.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import loguniform
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from deq_fusion.datasets.affect import cm_bert as tables
from deq_fusion.datasets.affect import transcripts
from deq_fusion.datasets.affect.utterance import FILE as UTTERANCES
from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.examples.noise import sequences, tokens
from deq_fusion.examples.parts import in_parts
from deq_fusion.training_structures.comparison import Fusion, Loaders
from deq_fusion.unimodals.cm_bert import (
    CMBERT,
    ENCODER_RATE,
    FUSION_RATE,
    CMBERTPooled,
    parameter_groups,
)
from deq_fusion.unimodals.pretrained import BertEncoder

HOSTS = ("cm_bert", "cm_bert_pooled")
FILES = (UTTERANCES, "MOSI_cmu_audio_CLS.pickle")
LENGTH, BATCH_SIZE, INNER, DROPOUT = 50, 24, 30, 0.1  # as the release has them
EPOCHS = 3  # of pretrained weights, as the release has it
# the best of 1e-4, 3e-4 and 1e-3 on validation, of one run with concatenated vectors
SMALL_EPOCHS, SMALL_PATIENCE, SMALL_RATE = 12, 5, 1e-4
VOCABULARY = 2000  # the most word pieces that are learnt from train
SINGLE_WIDTH = 40  # of a fusion of one modality; 4 divides it, and so do a map's 5 groups
WARM = 0.1
PARTS = 5  # of a column, whose 50 entries 4 does not divide


def fields(
    host: str,
    path: Path,
    *,
    text_weights: str | None,
    patience: int | None,
    fusion_lr: float,
) -> dict[str, Any]:
    """Returns what a `Recipe` with this host has of its own.

    Args:
        host: one of `HOSTS`.
        path: `mosi_utterance.npz`, or the audio pickle in the folder of CM-BERT's tables.
        text_weights: local folder of BERT's weights; none: a small one from scratch, on word
            pieces learnt from train.
        patience: in epochs; None: none with weights, `SMALL_PATIENCE` without.
        fusion_lr: learning rate of what lies between the text encoder and the last map.
    """
    small = text_weights is None
    epochs = SMALL_EPOCHS if small else EPOCHS
    rate, low, high = (SMALL_RATE, 3e-5, 1e-3) if small else (ENCODER_RATE, 1e-5, 1e-4)
    what = "CM-BERT" if host == "cm_bert" else "CM-BERT's parts, pooled"
    bert = "small BERT from scratch" if small else Path(text_weights).name
    audio = "utterance-level" if path.name == UTTERANCES else "word-aligned"
    return {
        "name": f"CMU-MOSI, {what}, {bert}, {audio} audio",
        "modalities": tables.MODALITIES,
        "load": partial(load, path, text_weights),
        # of a path, unlike of a text, what is there decides whether runs are used again
        "build": partial(build, host, None if small else Path(text_weights)),
        "objective": half_squared_error,
        "epochs": epochs,
        "patience": patience or (SMALL_PATIENCE if small else None),
        "optimizer": partial(adamw, lr=rate, fusion_lr=fusion_lr),
        "parameters": parameter_groups,
        "scheduler": partial(warm_up, epochs=epochs),
        "fusion_options": in_parts(PARTS) if host == "cm_bert" else {},
        "search": {"lr": loguniform(low, high), "fusion_lr": loguniform(3e-4, 3e-2)},
        "floors": {"linear": linear_floor},
        "noise": {"text": tokens, "audio": sequences},
    }


def load(path: Path, weights: str | None, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of a run; of the npz, the run's number chooses validation's videos."""
    if list(modalities) == ["audio", "text"]:
        raise ValueError("CM-BERT reads text, then audio, got audio, text; name them in this order")
    reading = {"modalities": modalities, "length": LENGTH, "batch_size": BATCH_SIZE}
    if path.name == UTTERANCES:
        texts = transcripts.read_parts(path, split_seed=run)["train"].texts
        return transcripts.get_dataloader(path, _pieces(weights, texts), split_seed=run, **reading)
    texts = tables.read_parts(path.parent, None)["train"].texts
    return tables.get_dataloader(path.parent, path, _pieces(weights, texts), **reading)


def _pieces(weights: str | None, texts: Sequence[str]) -> WordPieces:
    return WordPieces.load(weights) if weights else WordPieces.train(texts, size=VOCABULARY)


def build(host: str, weights: Path | None, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns the host around the fusion, or one modality alone with it."""
    *views, _ = train.dataset.tensors
    if views[0].is_floating_point():
        module, width = fusion([INNER], SINGLE_WIDTH, 1)
        return AudioAlone(views[0].shape[2], module, width)
    bert = BertEncoder(weights, vocabulary=VOCABULARY, length=LENGTH, pooled=False)
    if len(views) == 1:
        return TextAlone(bert, *fusion([bert.dim], SINGLE_WIDTH, 1))
    audio_dim = views[1].shape[2]
    if host == "cm_bert_pooled":
        module, width = fusion([bert.dim, INNER], bert.dim, 1)
        options = {"inner": INNER, "dropout": DROPOUT}
        return CMBERTPooled(bert, audio_dim, module, fused_dim=width, **options)
    module, width = fusion([LENGTH, LENGTH], LENGTH, 1)
    width = 1 if width is None else width  # what predicts on its own gives a token's score
    return CMBERT(bert, audio_dim, module, length=LENGTH, fused_dim=width, inner=INNER)


class TextAlone(nn.Module):
    """The text alone: a linear map of Dropout(fusion([X[0]])), X being BERT's states."""

    def __init__(self, text: nn.Module, fusion: nn.Module, width: int | None) -> None:
        super().__init__()
        self.text, self.fusion, self.regressor = text, fusion, _regressor(width)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps [tokens (batch, length) int64] to (batch, 1)."""
        return self.regressor(self.fusion([self.text(inputs[0])[:, 0]]))


class AudioAlone(nn.Module):
    """The audio alone: a linear map of Dropout(fusion([mean of A_j W_a]))."""

    def __init__(self, audio_dim: int, fusion: nn.Module, width: int | None) -> None:
        super().__init__()
        self.project_audio = nn.Linear(audio_dim, INNER, bias=False)
        self.fusion, self.regressor = fusion, _regressor(width)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps [audio (batch, length, audio_dim)] to (batch, 1); steps of zeros do not count."""
        steps = inputs[0].any(dim=2).sum(dim=1, keepdim=True).clamp_min(1)
        return self.regressor(self.fusion([self.project_audio(inputs[0].sum(dim=1) / steps)]))


def _regressor(width: int | None) -> nn.Module:
    if width is None:
        return nn.Identity()
    return nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(width, 1))


def linear_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Ridge regression (alpha 1) on tf-idf of the word pieces, and on the mean audio, (n, 1)."""
    *views, labels = map(torch.cat, zip(*(loader.dataset.tensors for loader in known), strict=True))
    *others, _ = scored.dataset.tensors
    learnt, wanted = [], []
    for view, other in zip(views, others, strict=True):
        if view.is_floating_point():
            pair = view.mean(1).numpy(), other.mean(1).numpy()
        else:
            rows = [[" ".join(map(str, row[row > 0].tolist())) for row in v] for v in (view, other)]
            counts = TfidfVectorizer(token_pattern=r"\d+").fit(rows[0])
            pair = tuple(counts.transform(texts).toarray() for texts in rows)
        learnt.append(pair[0])
        wanted.append(pair[1])
    model = Ridge(alpha=1).fit(np.hstack(learnt), labels.flatten().numpy())
    return torch.from_numpy(model.predict(np.hstack(wanted))).float()[:, None]


def half_squared_error(prediction: Tensor, truth: Tensor) -> Tensor:
    """Returns the mean of (prediction - truth)^2 / 2."""
    return nn.functional.mse_loss(prediction, truth) / 2


def adamw(groups: list[dict[str, Any]], *, lr: float, fusion_lr: float) -> Optimizer:
    """Returns AdamW for `parameter_groups`, with these rates for the two published ones."""
    rates = {ENCODER_RATE: lr, FUSION_RATE: fusion_lr}
    return torch.optim.AdamW([group | {"lr": rates[group["lr"]]} for group in groups])


def warm_up(optimizer: Optimizer, *, epochs: int) -> LRScheduler:
    """The rates rise for a tenth of the training, and then fall to 0, linearly.

    After a share x of it they are multiplied by x / 0.1 and then by 1 - x. An epoch has what is
    due in its middle.
    """

    def factor(epoch: int) -> float:
        share = (epoch + 0.5) / epochs
        return share / WARM if share < WARM else max(0.0, 1 - share)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
