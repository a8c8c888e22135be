"""Small models and data that tests of the loop share."""

from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures.fit import fit

SGD = partial(torch.optim.SGD, lr=0.1)
cross_entropy = nn.functional.cross_entropy


class Info:
    def __init__(self, steps):
        self.steps = steps

    def summary(self):
        return {"steps": self.steps}


class Fusion(nn.Module):
    """A stand-in: it keeps a loss and a report of the last forward, as an equilibrium would."""

    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(2 * width, width)
        self.auxiliary_loss, self.info = None, None

    def forward(self, features):
        fused = self.mix(torch.cat(features, 1))
        self.auxiliary_loss = fused.square().mean() if self.training else fused.new_zeros(())
        self.info = Info(float(len(fused)))
        return fused


class Model(nn.Module):
    """A host that passes on what its fusion keeps; it is to count once."""

    def __init__(self, width=4, dropout=0.0):
        super().__init__()
        self.encoders = nn.ModuleList([nn.Linear(3, width), nn.Linear(3, width)])
        self.fusion = Fusion(width)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(dropout)
        self.head = nn.Linear(width, 2)

    def forward(self, inputs):
        fused = self.fusion([f(x) for f, x in zip(self.encoders, inputs, strict=True)])
        return self.head(self.dropout(self.norm(fused)))

    @property
    def auxiliary_loss(self):
        return self.fusion.auxiliary_loss


class Plain(nn.Module):
    """A model without anything beside its output."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)

    def forward(self, inputs):
        return self.linear(torch.cat(inputs, 1))


def loader(samples=24, batch_size=6, seed=1, **options):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, samples, 3, generator=generator)
    label = (x[0, :, 0] * x[1, :, 0] > 0).long()
    return DataLoader(TensorDataset(x[0], x[1], label), batch_size=batch_size, **options)


def model_of(cls=Plain, **options):
    torch.manual_seed(0)
    return cls(**options)


def by_hand(model, batches, *, clip=None, lr=0.1):
    for x1, x2, y in batches:
        model.zero_grad()
        cross_entropy(model([x1, x2]), y).backward()
        if clip:
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            for p in model.parameters():
                p.grad *= min(1.0, clip / norm)
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
    return model


def assert_same(a, b, **tolerance):
    torch.testing.assert_close(dict(a.state_dict()), dict(b.state_dict()), **tolerance)


quiet_fit = partial(fit, progress=False)
