"""Sentiment from utterance-level features: an encoder a modality, a fusion, a linear head."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from scipy.stats import loguniform
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets.affect.utterance import MODALITIES, get_dataloader
from training_structures.comparison import Fusion, Loaders, Recipe, Score
from training_structures.metrics import sentiment
from training_structures.Supervised_Learning import MMDL
from unimodals.common_models import MLP

# chosen on validation for concatenation and DEQ fusion alike; the neighbours do as well
WIDTH, DROPOUT = 64, 0.3
BATCH_SIZE, EPOCHS, PATIENCE = 32, 100, 10
OPTIMIZER = partial(torch.optim.AdamW, lr=5e-4, weight_decay=0.01)
SCORES = (
    Score("mae", percent=False, lower=True),
    Score("corr", percent=False),
    *map(Score, ("acc7", "acc2", "f1", "acc2_nonzero", "f1_nonzero")),
)


def recipe(args: Namespace) -> Recipe:
    """Returns the recipe for the file in `args.data_dir`: its own test part, a seed a run."""
    if args.data_dir is None:
        raise SystemExit("--data-dir must name the folder of mosi_utterance.npz")
    if args.official:
        raise SystemExit("the file's own split is the only one: leave out --official")
    return Recipe(
        name="CMU-MOSI, utterance-level features",
        modalities=MODALITIES,
        load=partial(load, args.data_dir),
        build=build,
        objective=nn.functional.l1_loss,
        metrics=sentiment,
        scores=SCORES,
        epochs=EPOCHS if args.epochs is None else args.epochs,
        task="regression",
        patience=PATIENCE,
        optimizer=OPTIMIZER,
        search={"lr": loguniform(1e-4, 3e-3), "weight_decay": (1e-3, 1e-2, 1e-1)},
        floors={"linear": linear_floor},
    )


def load(path: Path, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of a run; the validation videos are chosen by the run's number."""
    return get_dataloader(path, modalities=modalities, batch_size=BATCH_SIZE, split_seed=run)


def build(fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns an encoder for each modality, the fusion, and a linear head if it needs one."""
    views = train.dataset.tensors[:-1]
    encoders = [MLP(v.shape[1], WIDTH, WIDTH, dropout=True, dropoutp=DROPOUT) for v in views]
    module, width = fusion([WIDTH] * len(views), WIDTH, 1)
    return MMDL(encoders, module, nn.Identity() if width is None else nn.Linear(width, 1))


def linear_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Ridge regression (alpha 300) on the concatenated features, (n, 1)."""
    *views, labels = (
        torch.cat(parts) for parts in zip(*(b for loader in known for b in loader), strict=True)
    )
    model = Ridge(alpha=300).fit(torch.cat(views, 1).numpy(), labels.flatten().numpy())
    features = torch.cat([torch.cat(batch[:-1], 1) for batch in scored])
    return torch.from_numpy(model.predict(features.numpy())).float()[:, None]
