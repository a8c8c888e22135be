"""MOGONET (Wang et al., 2021) on omics: as published, but validation selects the epoch."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from scipy.stats import loguniform
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader

from deq_fusion.fusions.vcdn import VCDN
from deq_fusion.objective_functions.mogonet import mogonet_loss
from deq_fusion.training_structures.comparison import Fusion, Recipe
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.run import History
from deq_fusion.unimodals.mogonet import MOGONET

EPOCHS = 3000  # as published
PRETRAINING = 6  # one epoch in so many, the first ones, is of the views alone: 500, as published
SMALL_OF = {  # number of classes -> as published for ROSMAP, which has two
    2: {"neighbours": 2, "hidden": (200, 200, 100)},
}
LARGE: dict[str, Any] = {"neighbours": 10, "hidden": (400, 400, 200)}  # and for BRCA


def meet(inductive: bool, recipe: Recipe) -> Recipe:
    """Returns the recipe as MOGONET meets it: its network, loss, and alternating training."""
    return replace(
        recipe,
        build=partial(build, inductive),
        objective=mogonet_loss,
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        parameters=groups,
        scheduler=partial(halved_for_views, epochs=EPOCHS),
        clip_norm=None,
        epochs=EPOCHS,
        train=train,
        search={"lr": loguniform(3e-4, 3e-3), "weight_decay": (0.0, 1e-4, 1e-3)},
    )


def build(inductive: bool, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns MOGONET for the patients of a train part, with VCDN whatever the fusion."""
    *views, labels = train.dataset.tensors
    classes = int(labels.max()) + 1
    joint = VCDN(len(views), classes) if len(views) > 1 else None
    sizes = SMALL_OF.get(classes, LARGE)
    return MOGONET(views, labels, joint, inductive=inductive, **sizes)


def train(model: MOGONET, *data: Any, epochs: int, **settings: Any) -> History:
    """Trains the views alone first, then them and the fusion in turn; see `fit`."""
    alone = epochs if model.fusion is None else epochs // PRETRAINING
    return fit(model, *data, epochs=epochs, rounds=partial(rounds, alone), **settings)


def rounds(alone: int, epoch: int) -> tuple[str, ...]:
    """Returns the rounds of an epoch, from 1, of which the first `alone` are of the views."""
    return ("views",) if epoch <= alone else ("views", "fused")


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Returns the views' parameters and the fusion's, which have rates of their own."""
    own = [p for name, p in model.named_parameters() if not name.startswith("fusion.")]
    joint = [] if model.fusion is None else [{"params": list(model.fusion.parameters())}]
    return [{"params": own}, *joint]


def halved_for_views(optimizer: torch.optim.Optimizer, *, epochs: int) -> LRScheduler:
    """Halves the rate of the views after pre-training, and leaves that of the fusion."""
    alone = epochs // PRETRAINING
    factors = [lambda epoch: 1.0 if epoch < alone else 0.5, lambda epoch: 1.0]
    return LambdaLR(optimizer, factors[: len(optimizer.param_groups)])
