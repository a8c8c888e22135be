"""Recurrent networks step by step, for one sample, in numpy, from their formulas."""

import numpy as np
import torch


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def linear(layer, x):
    bias = 0 if layer.bias is None else array(layer.bias)
    return array(layer.weight) @ x + bias


def weights_of(module, end=""):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [array(getattr(module, name + end)) for name in names]


def cell(weights, x, h, c):
    w, u, b, d = weights
    i, f, g, o = np.split(w @ x + b + u @ h + d, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def lstm(weights, xs):
    """The states after each step of a sequence (steps, d)."""
    h = c = np.zeros(weights[1].shape[1])
    states = []
    for x in xs:
        h, c = cell(weights, x, h, c)
        states.append(h)
    return np.array(states)


def mean_square(pairs):
    """The mean over all entries of all samples' steps of (made, wanted) pairs."""
    squares = [(a - b) ** 2 for made, wanted in pairs for a, b in zip(made, wanted, strict=True)]
    return np.mean(squares)


def padded(dims, lengths, *, absent=()):
    """A batch of [sequences], [masks], with noise where nothing is; absent: (sample, modality)."""
    steps = max(lengths)
    values = [torch.randn(len(lengths), steps, d) for d in dims]
    mask = torch.arange(steps) < torch.tensor(lengths)[:, None]
    masks = [mask.clone() for _ in dims]
    for sample, modality in absent:
        masks[modality][sample] = False
    return values, masks


def numbers(values, masks):
    """The same for numpy: for each modality and sample (steps, d), zeros where it is absent."""
    lengths = np.any([mask.numpy() for mask in masks], 0).sum(1).clip(min=1)
    return [
        [
            np.where(m.numpy()[:, None], row.numpy(), 0)[:steps]
            for row, m, steps in zip(x, mask, lengths, strict=True)
        ]
        for x, mask in zip(values, masks, strict=True)
    ]
