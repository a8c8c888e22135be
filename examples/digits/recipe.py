"""Digits in four modalities: small, embedded, seconds a run on a CPU."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from scipy.stats import loguniform
from torch import nn
from torch.utils.data import DataLoader

from deq_fusion.datasets.digits.get_data import QUADRANTS, get_dataloader
from deq_fusion.examples.digits.systems import systems
from deq_fusion.examples.noise import vectors
from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import classification
from deq_fusion.training_structures.Supervised_Learning import MMDL
from deq_fusion.unimodals.common_models import MLP

CLASSES, WIDTH, DROPOUT = 10, 64, 0.2
OPTIONS = {
    # without a penalty the fused map leaves contraction now and then, and the loss jumps
    **dict.fromkeys(("deq", "deq_one_step", "deq_neumann", "deq_paper"), {"jacobian_weight": 1.0}),
    "evidential": {"anneal_steps": 450},  # the paper's 50 epochs, of 9 batches here
}


def recipe(data_dir: str | Path | None = None, *, official: bool = False) -> Recipe:
    """Returns the recipe; a run is a seed, on one fixed split."""
    if data_dir is not None or official:
        raise ValueError(
            "digits are embedded, on one split: leave out data_dir (--data-dir) and official "
            "(--official)"
        )
    return Recipe(
        name="digits, four quadrants as modalities",
        modalities=QUADRANTS,
        load=load,
        build=build,
        objective=nn.functional.cross_entropy,
        metrics=classification,
        scores=[Score("accuracy"), Score("f1_macro")],
        epochs=60,
        select="accuracy",
        patience=10,
        search={"lr": loguniform(5e-4, 1e-2)},
        optimizer=partial(torch.optim.Adam, lr=2e-3),
        fusion_options=OPTIONS,
        systems=systems(),
        noise=dict.fromkeys(QUADRANTS, vectors),
    )


def load(run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of these quadrants; the split is the same for every run."""
    return get_dataloader(batch_size=128, modalities=modalities)


def build(fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns an encoder for each quadrant, the fusion, and a linear head."""
    views = train.dataset.tensors[:-1]
    encoders = [MLP(view.shape[1], WIDTH, WIDTH, dropout=True, dropoutp=DROPOUT) for view in views]
    module, width = fusion([WIDTH] * len(views), WIDTH, CLASSES)
    head = nn.Identity() if width is None else nn.Linear(width, CLASSES)
    return MMDL(encoders, module, head)
