"""Data, encoders and a search small enough that tests run many of them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures import architecture_search
from deq_fusion.training_structures.candidates import Trial
from deq_fusion.unimodals.common_models import MLP
from deq_fusion.utils.surrogate import SimpleRecurrentSurrogate


def accuracy(prediction, truth):
    return {"accuracy": (prediction.argmax(1) == truth).double().mean().item()}


QUIET = Trial(metrics=accuracy, folder=None, quiet=True)
WIDTHS = (3, 4, 5)


def sizes(modalities=2):
    return [(width, 6, 4) for width in WIDTHS[:modalities]]


def encoders(modalities=2, seed=0):
    """MLPs, which return [0, input, hidden, output] when they are told to."""
    torch.manual_seed(seed)
    return [MLP(width, 6, 4, dropout=True) for width in WIDTHS[:modalities]]


def loaders(modalities=2, classes=2, count=20):
    """Two classes that differ in every modality; the training data are shuffled."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    parts = []
    for _ in range(2):
        inputs = [
            torch.randn(count, width, generator=draw) + labels[:, None]
            for width in WIDTHS[:modalities]
        ]
        parts.append(TensorDataset(*inputs, labels))
    shuffling = torch.Generator().manual_seed(1)
    return {
        "train": DataLoader(parts[0], 8, shuffle=True, generator=shuffling),
        "dev": DataLoader(parts[1], 8),
    }


def surrogate(modalities=2, seed=2):
    torch.manual_seed(seed)
    return SimpleRecurrentSurrogate(6, modalities + 1, 5)


def search(learner=None, modalities=2, data=None, labels=None, **changed):
    """A search of four steps; returns what it knows."""
    data = data or loaders(modalities)
    options = {"epochs": 1, "search_iter": 2, "num_samples": 3, "epoch_surrogate": 2}
    options |= {"max_progression_levels": 2, "batch_size": 8, "seed": 5, "device": "cpu"}
    options |= {"trial": QUIET, "eta_max": 0.05, "unimodal_files": encoders(modalities)}
    options |= changed
    return architecture_search.train(
        rep_size=7,
        classes=2,
        sub_sizes=sizes(modalities),
        train_data=data["train"],
        valid_data=data["dev"],
        surrogate=learner or surrogate(modalities),
        max_labels=labels or [2] * (modalities + 1),
        **options,
    )


class Several(nn.Module):
    """A model with two predictions, and no layers to search."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, 2) for width in WIDTHS[:2])

    def forward(self, inputs):
        return tuple(head(x) for head, x in zip(self.heads, inputs, strict=True))
