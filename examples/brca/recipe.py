"""Multi-omics classification with MM-Dynamics as the host (Ni et al., 2023, Table 1).

`--set sizes=...` chooses how large the host is and how it is trained:

- `ours` (default): small, so that runs take seconds.
- `base`: as Han et al. (2022) have it, whose fusion is `concat`.
- `authors`: as the release of Ni et al. (2023) has it around DEQ fusion. What comes nearest to
  that is `deq_paper`, with the release's Jacobian weight and bound on the steps; `deq` has its own.

The epoch is selected on validation data in all three. Published is another choice: `base` takes
the last epoch, `authors` the best of those that it looks at on test data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from deq_fusion.datasets.brca.get_data import get_dataloader
from deq_fusion.examples.brca.systems import systems
from deq_fusion.examples.checks import check_positive
from deq_fusion.examples.noise import vectors
from deq_fusion.objective_functions.mm_dynamics import mm_dynamics_loss
from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import classification
from deq_fusion.unimodals.gridge import GRidge
from deq_fusion.unimodals.mm_dynamics import MMDynamics

VIEWS = {"mRNA": 1, "methylation": 2, "miRNA": 3}  # MOGONET's numbers
SCORES = "accuracy", "f1_weighted", "f1_macro", "auc", "accuracy_4", "f1_weighted_4", "f1_macro_4"


@dataclass(frozen=True)
class Sizes:
    """How large MM-Dynamics is, and how it is trained; `label` says so in tables."""

    label: str
    hidden: int
    epochs: int
    lr: float
    objective: Callable[..., Tensor] = mm_dynamics_loss
    scheduler: Callable | None = None
    clip_norm: float | None = None
    fusion_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


PUBLISHED = {"epochs": 2501, "lr": 1e-4, "scheduler": partial(StepLR, step_size=500, gamma=0.2)}
SIZES = {
    "ours": Sizes("MM-Dynamics", hidden=128, epochs=300, lr=1e-3),
    "base": Sizes("MM-Dynamics as of Han et al.", hidden=1000, **PUBLISHED),
    "authors": Sizes(
        "MM-Dynamics as of Ni et al.",
        hidden=500,
        objective=partial(mm_dynamics_loss, growth=1.5),
        clip_norm=30.0,
        fusion_options={"deq_paper": {"jacobian_weight": 20.0, "max_steps": 105}},
        **PUBLISHED,
    ),
}


def recipe(
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    sizes: Annotated[
        str, f"how large the host is, and how it is trained: {', '.join(SIZES)}"
    ] = "ours",
    hidden: Annotated[int | None, "width of the features; by default that of sizes"] = None,
    balanced: Annotated[
        bool, "let all classes count alike in training, and select by macro F1; published do not"
    ] = False,
) -> Recipe:
    """Returns the recipe for the set in a folder.

    A run is a seed and a fresh stratified split of all patients, or of the `official` split a
    seed on the files' own. Batches are the full training part, as published.

    Raises:
        ValueError: without a folder, and for settings that make no sense.
    """
    if data_dir is None:
        raise ValueError(
            "data_dir (--data-dir) must name the folder of the csv files; get them with: "
            "deq-fusion prepare brca --data-dir DIR"
        )
    if sizes not in SIZES:
        raise ValueError(f"sizes must be one of {list(SIZES)}, got {sizes!r}")
    check_positive(hidden=hidden)
    folder, chosen = Path(data_dir), SIZES[sizes]
    split = "official split" if official else "fresh splits"
    return Recipe(
        name=f"{folder.name}, {chosen.label}, {split}{', classes balanced' * balanced}",
        modalities=tuple(VIEWS),
        load=partial(load, folder, official),
        build=partial(build, hidden or chosen.hidden),
        objective=partial(chosen.objective, balanced=True) if balanced else chosen.objective,
        metrics=scores,
        scores=[Score(name) for name in SCORES],
        epochs=chosen.epochs,
        select="f1_macro" if balanced else "accuracy",
        optimizer=partial(torch.optim.Adam, lr=chosen.lr, weight_decay=1e-4),
        scheduler=chosen.scheduler,
        clip_norm=chosen.clip_norm,
        resplit=not official,
        fusion_options=chosen.fusion_options,
        search={
            "lr": loguniform(0.3 * chosen.lr, 5 * chosen.lr),
            "weight_decay": (1e-5, 1e-4, 1e-3),
        },
        floors={"linear": linear_floor, "gridge": gridge_floor},
        systems=systems(),
        noise=dict.fromkeys(VIEWS, vectors),
    )


def load(data_dir: Path, official: bool, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of a run; the validation part is cut by the run's number."""
    numbers = [VIEWS[name] for name in modalities]
    return get_dataloader(data_dir, modalities=numbers, split_seed=run, resplit=not official)


def build(hidden: int, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns MM-Dynamics of width `hidden` around the fusion."""
    *views, labels = train.dataset.tensors
    classes = int(labels.max()) + 1
    module, width = fusion([hidden] * len(views), hidden, classes)
    return MMDynamics([view.shape[1] for view in views], hidden, classes, module, width)


def scores(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns accuracy, F1 scores and, for two classes, AUC.

    With five classes, PAM50's, also those over the patients of the four classes other than
    class 0 (Normal-like), of which there may be a handful.
    """
    result = classification(prediction, truth)
    kept = truth != 0
    if prediction.shape[1] == 5 and kept.any():
        guess, truth = prediction[kept].argmax(1), truth[kept]
        result["accuracy_4"] = float((guess == truth).double().mean())
        for average in ("weighted", "macro"):
            result[f"f1_{average}_4"] = float(
                f1_score(truth, guess, labels=[1, 2, 3, 4], average=average, zero_division=0)
            )
    return result


def linear_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Logistic regression (C=0.1) on the concatenated features, as log-probabilities."""
    *views, labels = _whole(*known)
    model = LogisticRegression(C=0.1, max_iter=2000)
    model.fit(torch.cat(views, 1).numpy(), labels.numpy())
    features = torch.cat([torch.cat(batch[:-1], 1) for batch in scored])
    return torch.from_numpy(model.predict_log_proba(features.numpy()))


def gridge_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """GRidge (van de Wiel et al., 2016), a group of columns for each omics, as log-probabilities.

    It chooses its penalties by leaving out samples of all that it learns from.
    """
    *views, labels = (part.numpy() for part in _whole(*known))
    model = GRidge().fit(views, labels)
    shares = model.predict_proba([part.numpy() for part in _whole(scored)[:-1]])
    return torch.from_numpy(np.log(np.maximum(shares, np.finfo(float).tiny)))


def _whole(*loaders: DataLoader) -> list[Tensor]:
    """Returns the views and the labels of all batches of the loaders."""
    batches = (batch for loader in loaders for batch in loader)
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]
