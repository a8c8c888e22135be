"""Aligned sequences whose answer is known: fusions meet the streams themselves, step by step."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from scipy.stats import loguniform
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deq_fusion.datasets.synthetic.sequences import MODALITIES, bayes_mse, get_dataloader
from deq_fusion.examples.checks import check_positive
from deq_fusion.examples.noise import sequences
from deq_fusion.examples.synthetic.systems import systems
from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import regression
from deq_fusion.training_structures.Supervised_Learning import MMDL

WIDTH = 32
LEAST = 8  # sequences to learn from


def recipe(
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    steps: Annotated[int, "of a sequence"] = 8,
    noise: Annotated[float, "deviation of the noise in what is to be told"] = 0.3,
    train: Annotated[
        int, "sequences to learn from; a quarter as many select, half as many are scored"
    ] = 4000,
) -> Recipe:
    """Returns the recipe; a run is a seed, of the sequences as of the training.

    Raises:
        ValueError: for a folder, and for settings that make no sense.
    """
    if data_dir is not None or official:
        raise ValueError(
            "sequences are drawn, not read: leave out data_dir (--data-dir) and official "
            "(--official)"
        )
    check_positive(steps=steps, noise=noise)
    if train < LEAST:
        raise ValueError(
            f"train must be {LEAST} or more, so that some are left to select and to score by, got "
            f"{train}"
        )
    best = bayes_mse(steps=steps, noise=noise)
    return Recipe(
        name=f"synthetic aligned sequences (the best possible mse is {best:.3g})",
        modalities=MODALITIES,
        load=partial(load, steps, noise, train),
        build=build,
        objective=nn.functional.mse_loss,
        metrics=regression,
        scores=[Score("mse", percent=False, lower=True), Score("corr", percent=False)],
        epochs=30,
        patience=10,
        task="regression",
        features="sequences",
        resplit=True,
        optimizer=partial(torch.optim.Adam, lr=1e-2),
        search={"lr": loguniform(1e-3, 3e-2)},
        floors={"constant": constant_floor, "linear": linear_floor},
        systems=systems(),
        noise=dict.fromkeys(MODALITIES, sequences),
    )


def load(steps: int, noise: float, train: int, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of a run, which draws sequences of its own."""
    sizes = train, train // 4, train // 2
    return get_dataloader(sizes=sizes, steps=steps, noise=noise, seed=run, modalities=modalities)


class Read(nn.Module):
    """A linear head; of a sequence, which a single modality is, behind the state of a GRU."""

    def __init__(self, width: int, *, sequence: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(width, WIDTH, batch_first=True) if sequence else None
        self.linear = nn.Linear(WIDTH if sequence else width, 1)

    def forward(self, fused: Tensor) -> Tensor:
        return self.linear(fused if self.gru is None else self.gru(fused)[1][-1])


def build(fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns the streams as they are, the fusion, and a head if it needs one."""
    views = train.dataset.tensors[:-1]
    module, width = fusion([view.shape[-1] for view in views], WIDTH, 1)
    encoders = [nn.Identity() for _ in views]
    if width is None:
        return MMDL(encoders, module, nn.Identity())
    with torch.no_grad():
        fused = module.eval()([view[:2] for view in views])
    module.train()
    return MMDL(encoders, module, Read(width, sequence=fused.dim() > 2))


def _together(loaders: Sequence[DataLoader]) -> list[Tensor]:
    """Returns the views and the truth of all batches, each as one tensor."""
    batches = [batch for loader in loaders for batch in loader]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def constant_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """The mean of what is known, (n, 1)."""
    return _together(known)[-1].mean().expand(len(_together([scored])[-1]), 1)


def linear_floor(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Ridge regression (alpha 10) on all numbers of all steps, (n, 1)."""
    *views, truth = _together(known)
    flat = torch.cat([view.flatten(1) for view in views], 1).numpy()
    model = Ridge(alpha=10).fit(flat, truth.flatten().numpy())
    seen = torch.cat([view.flatten(1) for view in _together([scored])[:-1]], 1)
    return torch.from_numpy(model.predict(seen.numpy())).float()[:, None]
