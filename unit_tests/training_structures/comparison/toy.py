"""A benchmark of two modalities that trains in a blink: `a` tells the truth, `b` is noise."""

from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from deq_fusion.training_structures.comparison import Recipe, Score, compare
from deq_fusion.training_structures.metrics import regression

EPOCHS, BATCHES, SIZES = 3, 2, (40, 20, 20)  # batches of training an epoch, samples of the parts


class Sum(nn.Module):
    def __init__(self, input_dims, dim, fail=False):
        super().__init__()
        self.scale, self.fail = nn.Parameter(torch.ones(())), fail

    def forward(self, features):
        if self.fail:
            raise RuntimeError("this fusion fails")
        return self.scale * sum(features)


class Concat(nn.Module):
    def forward(self, features):
        return torch.cat(features, 1)


def concat(input_dims, dim):
    return Concat(), sum(input_dims)


FUSIONS = {"sum": Sum, "concat": concat}


class Host(nn.Module):
    def __init__(self, fusion, width, outputs):
        super().__init__()
        self.fusion, self.head = fusion, nn.Linear(width, outputs)

    def forward(self, views):
        return self.head(self.fusion(views))


def load(run, modalities, regress=False):
    generator = torch.Generator().manual_seed(run)
    x, y = torch.randn(sum(SIZES), 2, 3, generator=generator), torch.arange(sum(SIZES)) % 2
    x[:, 0] += y.unsqueeze(1)
    views = {"a": x[:, 0], "b": x[:, 1]}
    truth = views["a"].sum(1, keepdim=True) if regress else y
    data = TensorDataset(*(views[name] for name in modalities), truth)
    parts = random_split(data, SIZES, generator=generator)
    return tuple(DataLoader(part, batch_size=SIZES[0] // BATCHES) for part in parts)


def truth_of(loader):
    return torch.cat([batch[-1] for batch in loader])


def build(fusion, train, outputs=2):
    views = train.dataset.dataset.tensors[:-1]
    return Host(*fusion([view.shape[1] for view in views], 3, outputs), outputs)


def metrics(prediction, truth):
    """Accuracy, and the mean probability of the true class."""
    sure = prediction.softmax(1).gather(1, truth.unsqueeze(1)).mean()
    return {"accuracy": float((prediction.argmax(1) == truth).float().mean()), "certainty": sure}


def majority(known, scored):
    labels = torch.cat([truth_of(loader) for loader in known])
    return nn.functional.one_hot(labels.mode().values, 2).float().expand(len(scored.dataset), 2)


def mean(known, scored):
    truths = torch.cat([truth_of(loader) for loader in known])
    return truths.mean().expand(len(scored.dataset), 1)


def recipe(**changes):
    settings = {
        "name": "toy",
        "modalities": ("a", "b"),
        "load": load,
        "build": build,
        "objective": nn.functional.cross_entropy,
        "metrics": metrics,
        "scores": [Score("accuracy"), Score("certainty", percent=False)],
        "epochs": EPOCHS,
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "floors": {"majority": majority},
    }
    return Recipe(**settings | changes)


def regression_recipe(**changes):
    """The same with numbers to predict: its score is an error, so less of it is better."""
    settings = {
        "name": "toy numbers",
        "load": partial(load, regress=True),
        "build": partial(build, outputs=1),
        "objective": nn.functional.mse_loss,
        "metrics": regression,
        "scores": [Score("mae", percent=False, lower=True)],
        "task": "regression",
        "floors": {"mean": mean},
    }
    return recipe(**settings | changes)


def run(folder, fusions=FUSIONS, runs=range(2), changes=None, **asked):
    """Returns the comparison of the toy fusions in a folder, the single modalities left out."""
    asked = {"unimodal": False, "progress": False} | asked
    return compare(recipe(**changes or {}), fusions, runs=runs, output=folder, **asked)


def scores(comparison):
    return {(r["method"], r["run"]): r["scores"] for r in comparison.results}
