"""Graphs of patients, with loops, and graph convolutions with dense matrices, in numpy."""

import numpy as np


def cosine(a, b):
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def least_similarity(view, k):
    """The threshold that keeps k pairs a patient and the one at which it is cut."""
    n = len(view)
    pairs = sorted((cosine(view[i], view[j]) for i in range(n) for j in range(n)), reverse=True)
    return pairs[k * n] - 1e-12


def normalised(edges):
    edges = edges + np.eye(len(edges))
    return edges / np.abs(edges).sum(1, keepdims=True)


def training_graph(view, k):
    n, least = len(view), least_similarity(view, k)
    edges = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and cosine(view[i], view[j]) >= least:
                edges[i, j] = cosine(view[i], view[j])
    return normalised(edges)


def new_graph(view, new, k, *, inductive):
    """The graph of patients of training, first, and new ones."""
    n, m, least = len(view), len(new), least_similarity(view, k)
    edges = np.zeros((n + m, n + m))
    for i in range(n):
        for j in range(m):
            if cosine(view[i], new[j]) >= least:
                edges[i, n + j] = edges[n + j, i] = cosine(view[i], new[j])
    graph = normalised(edges)
    if inductive:  # nothing of the new reaches those of training, who keep their own graph
        graph[:n] = 0
        graph[:n, :n] = training_graph(view, k)
    return graph


def leaky(x):
    return np.where(x > 0, x, 0.25 * x)


def convolved(model, number, graph, x):
    """The logits of a view for all nodes of a dense graph."""
    first, biases = model.first[number].detach().numpy(), [b.detach().numpy() for b in model.biases]
    weights = [first, *(w[number].detach().numpy() for w in model.later)]
    for weight, bias in zip(weights[:-1], biases, strict=False):
        x = leaky(graph @ (x @ weight) + bias[number])
    return x @ weights[-1] + biases[-1][number]
