"""Genres of films from plot and poster: an encoder each, a fusion, a linear head.

`--set encoders=...` chooses the encoders of Ni et al. (2023), Table 2, with their published
batch sizes and rates:

- `vgg_word2vec` (default): the features of MM-IMDB's HDF5 file, or any in its layout, through
  MultiBench's maxout networks.
- `resnet_bert`: ResNet-152 and BERT, fine-tuned on posters and plots. `text_weights` and
  `image_weights` name local folders of their weights; without them small networks are trained
  from scratch, and plots are cut into word pieces learnt from train.
- `vgg_bert`: BERT, fine-tuned on the plots, and the image features of the HDF5 file.

Systems of the same table, with networks of their own, are in `systems`: `early` and `dynmm` take
the first of these encoders' data, `mmbt` the two others', `pmf` that of `resnet_bert`, with a ViT
(`vit_weights`). Table 2's late fusion is the fusion `concat`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.datasets.imdb import get_data, raw
from deq_fusion.datasets.imdb.films import read_films
from deq_fusion.examples.checks import check_positive, own_split
from deq_fusion.examples.imdb.systems import systems
from deq_fusion.examples.noise import images, tokens, vectors
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.objective_functions.multilabel import balanced_bce
from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import multilabel
from deq_fusion.training_structures.Supervised_Learning import MMDL
from deq_fusion.unimodals.common_models import MaxOut_MLP
from deq_fusion.unimodals.pretrained import BertEncoder, ResNetEncoder

MODALITIES = ("text", "image")
DEQ = [name for name in FUSIONS if name.startswith("deq")]
SCORES = (Score("f1_micro"), Score("f1_macro"))
HALVED = partial(ReduceLROnPlateau, mode="max", factor=0.5, patience=3)


@dataclass(frozen=True)
class Row:
    """How a row of Table 2 is trained: facts of its encoders."""

    width: int
    batch_size: int
    optimizer: Callable
    select: str
    epochs: int
    accumulate: int = 1
    scheduler: Callable | None = None


NOISE = {  # encoders -> noise of their text and of their image
    "vgg_word2vec": (vectors, vectors),
    "vgg_bert": (tokens, vectors),
    "resnet_bert": (tokens, images),
}
BCE = nn.functional.binary_cross_entropy_with_logits
ADAMW = torch.optim.AdamW
ROWS = {
    "vgg_word2vec": Row(512, 128, partial(ADAMW, lr=1e-3, weight_decay=1e-2), "f1_macro", 100),
    "vgg_bert": Row(
        768, 16, partial(ADAMW, lr=5e-5, weight_decay=1e-5), "f1_micro", 100, scheduler=HALVED
    ),
    "resnet_bert": Row(
        768, 16, partial(ADAMW, lr=1e-4, weight_decay=1e-6), "f1_micro", 100, 10, HALVED
    ),
}


def recipe(
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    encoders: Annotated[str, f"of Ni et al. (2023), Table 2: {', '.join(ROWS)}"] = "vgg_word2vec",
    text_weights: Annotated[
        str | None, "local folder of BERT's weights; by default a small one from scratch"
    ] = None,
    image_weights: Annotated[
        str | None, "local folder of ResNet's weights; by default a small one from scratch"
    ] = None,
    vit_weights: Annotated[
        str | None, "local folder of ViT's weights, for pmf; by default a small one, untrained"
    ] = None,
    width: Annotated[int | None, "of the fused feature; by default the encoders' published"] = None,
    lr: Annotated[float | None, "learning rate; by default the encoders' published"] = None,
    expert_lr: Annotated[
        float | None, "learning rate of dynmm's text expert; by default 1 / 80 of the others'"
    ] = None,
    balanced: Annotated[
        bool, "weigh a genre's presence by how rare it is in train; published results do not"
    ] = False,
    batch_size: Annotated[int | None, "films a step; by default the encoders' published"] = None,
    size: Annotated[int, "side of the posters in pixels"] = 224,
    length: Annotated[int, "the most tokens a plot"] = 512,
    cache: Annotated[str | None, "HDF5 file for decoded posters; by default none"] = None,
    workers: Annotated[int, "processes that read batches, besides the one that trains"] = 0,
) -> Recipe:
    """Returns the recipe for the films in a folder: the data's own split, a seed a run.

    Raises:
        ValueError: without a folder, and for settings that make no sense.
    """
    folder = own_split(data_dir, official, "the films; see datasets/imdb")
    if encoders not in ROWS:
        raise ValueError(f"encoders must be one of {list(ROWS)}, got {encoders!r}")
    check_positive(
        width=width, lr=lr, expert_lr=expert_lr, batch_size=batch_size, size=size, length=length
    )
    # of paths, unlike of texts, what is there decides whether runs are used again
    text_weights, image_weights, vit_weights = (
        Path(folder) if folder else None for folder in (text_weights, image_weights, vit_weights)
    )
    row = ROWS[encoders]
    reading = {"batch_size": batch_size or row.batch_size, "workers": workers}
    if encoders == "vgg_word2vec":
        load, build = partial(load_features, folder, reading), build_features
        floors = {"linear": linear_floor}
    else:
        reading |= {"size": size, "length": length}
        load = partial(load_raw, folder, encoders, text_weights, cache, reading)
        build, floors = partial(build_raw, text_weights, image_weights), {}
    optimizer = partial(row.optimizer, lr=lr) if lr else row.optimizer
    rate = optimizer.keywords["lr"]
    return Recipe(
        name=f"{folder.name}, {encoders}",
        modalities=MODALITIES,
        load=load,
        build=partial(build, width or row.width),
        objective=objective(folder, encoders) if balanced else BCE,
        metrics=multilabel,
        scores=SCORES,
        epochs=row.epochs,
        task="multilabel",
        select=row.select,
        patience=8,
        optimizer=optimizer,
        fusion_lr={name: rate / 10 for name in DEQ},
        scheduler=row.scheduler,
        accumulate=1 if batch_size else row.accumulate,
        search={"lr": loguniform(1e-4, 1e-2), "weight_decay": (1e-3, 1e-2, 1e-1)},
        floors=floors,
        noise=dict(zip(MODALITIES, NOISE[encoders], strict=True)),
        systems=systems(
            encoders=encoders,
            text_weights=text_weights,
            image_weights=image_weights,
            vit_weights=vit_weights,
            width=width or row.width,
            lr=lr,
            expert_lr=expert_lr,
            size=size,
        ),
    )


def objective(data_dir: Path, encoders: str) -> Callable[..., Tensor]:
    """Returns the balanced loss, by the shares of the genres in train."""
    if encoders == "vgg_word2vec":
        genres = get_data.get_dataloader(data_dir)[0].dataset.genres
    else:
        films = read_films(data_dir)
        genres = torch.from_numpy(films.labels[: films.sizes[0]])
    return partial(balanced_bce, shares=tuple(genres.mean(dim=0).tolist()))


def load_features(data_dir: Path, reading: dict, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns loaders of the HDF5 file's features, the same for every run."""
    return get_data.get_dataloader(data_dir, modalities=modalities, **reading)


def load_raw(
    data_dir: Path,
    encoders: str,
    weights: Path | None,
    cache: str | None,
    reading: dict,
    run: int,
    modalities: Sequence[str],
) -> Loaders:
    """Returns loaders of plots and posters, or of the HDF5 file's image features for the latter."""
    return raw.get_dataloader(
        data_dir,
        modalities=modalities,
        tokens=None if weights is None else WordPieces.load(weights),
        cache=cache,
        features=data_dir if encoders == "vgg_bert" else None,
        **reading,
    )


def build_features(width: int, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns MultiBench's maxout network for each modality, the fusion, and a linear head."""
    hidden = {get_data.TEXT: width, get_data.IMAGE: 2 * width}
    data = train.dataset
    encoders = [
        MaxOut_MLP(width, hidden[view.name], dim, width, linear_layer=False)
        for view, dim in zip(data.views, data.widths, strict=True)
    ]
    return _assemble(encoders, width, fusion, data.genres.shape[1])


def build_raw(
    text_weights: Path | None,
    image_weights: Path | None,
    width: int,
    fusion: Fusion,
    train: DataLoader,
) -> nn.Module:
    """Returns BERT, ResNet-152 (or a maxout network for features), the fusion, a linear head."""
    data, encoders = train.dataset, []
    for modality in data.modalities:
        if modality == "text":
            bert = BertEncoder(text_weights, vocabulary=len(data.tokens))
            encoders.append(_widened(bert, width))
        elif data.images is None or data.images.dtype == np.uint8:
            encoders.append(_widened(ResNetEncoder(image_weights), width))
        else:
            features = data.images.shape[1]
            encoders.append(MaxOut_MLP(width, 1024, features, width, linear_layer=False))
    return _assemble(encoders, width, fusion, len(data.films.genres))


def _widened(encoder: nn.Module, width: int) -> nn.Module:
    """Returns the encoder with a linear map to the width, unless it has it."""
    return (
        encoder if encoder.dim == width else nn.Sequential(encoder, nn.Linear(encoder.dim, width))
    )


def _assemble(encoders: Sequence[nn.Module], width: int, fusion: Fusion, genres: int) -> nn.Module:
    module, out = fusion([width] * len(encoders), width, genres)
    return MMDL(encoders, module, nn.Identity() if out is None else nn.Linear(out, genres))


def linear_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """One logistic regression a genre (C = 1, balanced) on the concatenated features, as logits.

    Features are standardised, and divided by the root of their modality's width: otherwise the
    wide one drowns the others.
    """
    *views, genres = _joined(known)
    scalers = [StandardScaler().fit(view) for view in views]

    def features(views: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(scalers, views, strict=True)
        return np.concatenate([s.transform(v) / v.shape[1] ** 0.5 for s, v in pairs], axis=1)

    model = OneVsRestClassifier(LogisticRegression(class_weight="balanced", max_iter=500))
    model.fit(features(views), genres)
    return torch.from_numpy(model.decision_function(features(_joined([scored])[:-1])))


def _joined(loaders: Sequence[DataLoader]) -> list[np.ndarray]:
    batches = (batch for loader in loaders for batch in loader)
    return [torch.cat(parts).numpy() for parts in zip(*batches, strict=True)]
