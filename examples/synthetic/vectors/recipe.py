"""Vectors of known structure: which dependencies can a fusion represent, and learn from so many?

Each modality has an encoder of its own, and the head is linear, so that what lies between the
modalities is the fusion's to find. Concatenation, say, can add up what they tell, and no more.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from scipy.special import logit
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deq_fusion.datasets.synthetic.vectors import KINDS, Structure, get_dataloader
from deq_fusion.examples.noise import vectors
from deq_fusion.examples.synthetic.vectors.systems import systems
from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import classification
from deq_fusion.training_structures.Supervised_Learning import MMDL
from deq_fusion.unimodals.common_models import MLP

WIDTH, CLASSES = 32, 2
LEAST = 8  # samples to learn from
EPOCHS, FEWEST_EPOCHS = (
    100,
    20,
)  # at 2,000 samples; with fewer more, so that there are as many steps
SCORED = 4000  # samples: they cost next to nothing, and the score of a rule is known to 0.8 %
NEVER = 1e-6  # the probability that a score takes for 0


def recipe(
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    kind: Annotated[str, f"how the modalities tell the class: {', '.join(KINDS)}"] = "parity",
    modalities: Annotated[int, "how many, 2 to 5"] = 2,
    order: Annotated[
        int | None, "of parity and product, 2 to 6; by default the number of modalities"
    ] = None,
    samples: Annotated[int, "to learn from; a quarter as many select, 4,000 are scored"] = 2000,
    noise: Annotated[
        float,
        "probability that a sign is seen wrongly; of additive, product and steep the deviation "
        "of the noise",
    ] = 0.05,
    mislabelled: Annotated[float, "share of the classes to learn from that are wrong"] = 0.0,
    frequency: Annotated[int, "of steep: half turns a unit of each modality"] = 2,
    width: Annotated[int, "of each modality's vector"] = 8,
) -> Recipe:
    """Returns the recipe; a run is a seed, of the samples as of the training.

    Runs share no sample, so that what differs between them is independent from run to run, and
    tests need no correction for resampling.

    Raises:
        ValueError: for a folder, and for settings that make no sense.
    """
    if data_dir is not None or official:
        raise ValueError(
            "vectors are drawn, not read: leave out data_dir (--data-dir) and official (--official)"
        )
    if samples < LEAST:
        raise ValueError(
            f"samples must be {LEAST} or more, so that some are left to select by, got {samples}"
        )
    if not 0 <= mislabelled < 0.5:
        raise ValueError(
            "mislabelled must be a share from 0 to below 0.5, where nothing is left to learn, "
            f"got {mislabelled}"
        )
    structure = Structure(kind, modalities, order, noise, frequency, width)
    epochs = max(FEWEST_EPOCHS, EPOCHS * 2000 // samples)
    return Recipe(
        name=named(structure),
        modalities=structure.names,
        load=partial(load, structure, samples, mislabelled),
        build=build,
        objective=nn.functional.cross_entropy,
        metrics=classification,
        scores=[Score("accuracy"), Score("auc"), Score("f1_macro")],
        epochs=epochs,
        patience=max(10, 3 * epochs // 10),  # what is not additive is found late, after a plateau
        optimizer=partial(torch.optim.Adam, lr=2e-3),
        search={"lr": loguniform(5e-4, 1e-2)},
        floors={"bayes": partial(bayes_floor, structure), "linear": linear_floor},
        systems=systems(),
        noise=dict.fromkeys(structure.names, vectors),
        about=[known_answer(structure)],
    )


def named(structure: Structure) -> str:
    """Returns the name of a set, with the best possible accuracy."""
    details = f"{structure.modalities} modalities"
    if structure.kind in ("parity", "product"):
        details += f", order {structure.known_order}"
    if structure.kind == "steep":
        details += f", frequency {structure.frequency}"
    best = structure.accuracy()
    return f"synthetic {structure.kind}, {details} (the best possible accuracy is {best:.1%})"


def known_answer(structure: Structure) -> str:
    """Returns a sentence on the best possible accuracies, by all modalities and by each."""
    alone = ", ".join(f"{structure.accuracy([name]):.1%} {name}" for name in structure.names)
    return (
        f"The best possible accuracy is {structure.accuracy():.1%} with all modalities, and of "
        f"one alone: {alone}. The floor bayes is the rule that has it, on the samples drawn."
    )


def load(
    structure: Structure, samples: int, mislabelled: float, run: int, modalities: Sequence[str]
) -> Loaders:
    """Returns the loaders of a run, which draws samples of its own."""
    return get_dataloader(
        structure,
        sizes=(samples, samples // 4, SCORED),
        mislabelled=mislabelled,
        seed=run,
        modalities=modalities,
    )


def build(fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns an encoder for each modality, the fusion, and a linear head if it needs one."""
    views = train.dataset.tensors[:-1]
    encoders = [MLP(view.shape[1], 2 * WIDTH, WIDTH) for view in views]
    module, width = fusion([WIDTH] * len(views), WIDTH, CLASSES)
    head = nn.Identity() if width is None else nn.Linear(width, CLASSES)
    return MMDL(encoders, module, head)


def bayes_floor(structure: Structure, known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """The Bayes rule by the modalities that are there, as log-odds of class 1, (n, 2)."""
    *views, _ = _together([scored])
    chances = structure.posterior([view.numpy() for view in views], scored.dataset.modalities)
    return _of_odds(logit(chances.clip(NEVER, 1 - NEVER)))


def linear_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Logistic regression (C=1) on the concatenated vectors, as log-odds of class 1, (n, 2)."""
    *views, classes = _together(known)
    model = LogisticRegression(C=1.0, max_iter=2000)
    model.fit(torch.cat(views, 1).numpy(), classes.numpy())
    features = torch.cat(_together([scored])[:-1], 1)
    return _of_odds(model.decision_function(features.numpy()))


def _of_odds(odds: np.ndarray) -> Tensor:
    """Returns logits of both classes, (n, 2), whose difference the log-odds are."""
    return torch.from_numpy(np.stack([np.zeros_like(odds), odds], 1)).float()


def _together(loaders: Sequence[DataLoader]) -> list[Tensor]:
    """Returns the views and the classes of all batches, each as one tensor."""
    batches = [batch for loader in loaders for batch in loader]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]
