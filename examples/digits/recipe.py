"""Digits in four modalities: small, embedded, seconds a run on a CPU."""

from argparse import Namespace
from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets.digits.get_data import get_dataloader
from training_structures.comparison import Fusion, Loaders, Recipe
from training_structures.metrics import classification
from training_structures.Supervised_Learning import MMDL
from unimodals.common_models import MLP

CLASSES, WIDTH = 10, 64


def recipe(args: Namespace) -> Recipe:
    """Returns the recipe; a run is a seed, on one fixed split."""
    if getattr(args, "data_dir", None) or getattr(args, "official", False):
        raise SystemExit("digits are embedded, on one split: leave out --data-dir and --official")
    return Recipe(
        name="digits, four quadrants as modalities",
        load=load,
        build=build,
        objective=nn.functional.cross_entropy,
        metrics=classification,
        epochs=30 if args.epochs is None else args.epochs,
        patience=8,
        optimizer=partial(torch.optim.Adam, lr=2e-3),
        # without a penalty the fused map leaves contraction now and then, and the loss jumps
        fusion_options={name: {"jacobian_weight": 1.0} for name in ("deq", "deq_paper")},
    )


def load(run: int) -> Loaders:
    """Returns the loaders; the split is the same for every run."""
    return get_dataloader(batch_size=128)


def build(fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns an encoder for each quadrant, the fusion, and a linear head."""
    views = train.dataset.tensors[:-1]
    encoders = [MLP(view.shape[1], WIDTH, WIDTH) for view in views]
    module, width = fusion([WIDTH] * len(views), WIDTH)
    return MMDL(encoders, module, nn.Linear(width, CLASSES))
