"""A benchmark of your own: `deq-fusion compare --dataset deq_fusion.examples.own_dataset:recipe`.

Tables need no such file (`deq-fusion compare --table ...`); own loaders and networks do.
"""

from functools import partial
from typing import Annotated

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import classification
from deq_fusion.training_structures.Supervised_Learning import MMDL


def recipe(data_dir: None = None, *, width: Annotated[int, "of every feature"] = 16) -> Recipe:
    """Returns the benchmark: do a sound and a picture have the same sign?"""
    parts = {"modalities": ("sound", "picture"), "load": load, "build": partial(build, width)}
    learnt = {"objective": nn.functional.cross_entropy, "metrics": classification, "epochs": 30}
    return Recipe("two signs", scores=[Score("accuracy")], resplit=True, **parts, **learnt)


def load(run: int, modalities: list[str]) -> Loaders:
    """Returns loaders of train, valid and test; batches are [a tensor a modality, ..., labels]."""
    noise = torch.Generator().manual_seed(run)
    both = {name: torch.randn(900, 2, generator=noise) for name in ("sound", "picture")}
    labels = (both["sound"][:, 0] * both["picture"][:, 0] > 0).long()
    parts = [slice(0, 500), slice(500, 700), slice(700, 900)]
    sets = [TensorDataset(*(both[m][p] for m in modalities), labels[p]) for p in parts]
    return tuple(DataLoader(s, batch_size=50, shuffle=s is sets[0]) for s in sets)


def build(width: int, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns encoders, the fusion, and a head unless the fusion predicts on its own."""
    encoders = [nn.Sequential(nn.Linear(2, width), nn.Tanh()) for _ in train.dataset.tensors[1:]]
    module, fused = fusion([width] * len(encoders), width, 2)
    return MMDL(encoders, module, nn.Identity() if fused is None else nn.Linear(fused, 2))
