"""Small data and estimators that are quick to fit, and modules of one's own, for several tests."""

import numpy as np
import torch
from sklearn.datasets import load_wine
from torch import nn

from deq_fusion.estimators import FusionClassifier, FusionRegressor

QUICK = {"epochs": 4, "width": 8, "random_state": 0}
PARTS = {"acid": slice(0, 6), "colour": slice(6, 13)}
X, NUMBERS = load_wine(return_X_y=True)
Y = np.array(["barolo", "grignolino", "barbera"])[NUMBERS]
VIEWS = {name: X[:, part] for name, part in PARTS.items()}


class Own(nn.Module):
    """A fusion of one's own: a sum of maps, with a constant that stays float32."""

    def __init__(self, input_dims, dim, scale=1.0):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, dim) for width in input_dims)
        self.scale = scale

    def forward(self, features):
        return self.scale * sum(f(x) for f, x in zip(self.maps, features, strict=True))


def pair(input_dims, dim, gain=2.0):
    """A function that returns a fusion of another width."""
    return nn.Sequential(Joined(), nn.Linear(sum(input_dims), dim + 3)), dim + 3


class Joined(nn.Module):
    """Features side by side."""

    def forward(self, features):
        return torch.cat(features, 1)


def classifier(fusion="gmu", **options) -> FusionClassifier:
    """An unfitted classifier of few epochs."""
    return FusionClassifier(fusion, **QUICK | options)


def regressor(fusion="gmu", **options) -> FusionRegressor:
    """An unfitted regressor of few epochs."""
    return FusionRegressor(fusion, **QUICK | options)


def mixed(rows: int = 40):
    """A frame with numbers, text, bools and missing cells, and what may be learnt from it."""
    import pandas as pd

    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": draw.normal(50, 10, rows),
            "sex": draw.choice(["f", "m"], rows),
            "treated": draw.random(rows) > 0.5,
            "dose": draw.normal(size=rows),
        }
    )
    y = np.where((frame["sex"] == "f") ^ (frame["dose"] > 0), "ill", "well")
    frame.loc[3, "age"], frame.loc[5, "sex"] = np.nan, None
    return frame, y
