"""Graphs of patients who are alike: cosine similarity, kept above a threshold.

As MOGONET has them (Wang et al., 2021, Methods, equations 2 to 4, and its code). Of patients x_i
and x_j of one omics with s_ij = x_i . x_j / (||x_i|| ||x_j||), the adjacency is s_ij where that is
at least the threshold, and 0 elsewhere; itself every patient gets the weight 1. Rows are then
divided by the sum of their absolute values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-8  # the least product of two norms


def similarities(a: Tensor, b: Tensor) -> Tensor:
    """Returns the cosines (n, m) of the rows of a, (n, d), and b, (m, d); 0 for a row of zeros.

    Autocast does not round them: which side of a threshold they lie on decides who is joined.
    """
    with torch.autocast(a.device.type, enabled=False):
        norms = a.norm(dim=1, keepdim=True) * b.norm(dim=1)
        return (a @ b.T) / norms.clamp(min=TINY)


def threshold(view: Tensor, neighbours: int) -> Tensor:
    """Returns the similarity from which a pair is kept, a scalar.

    It keeps `neighbours` pairs (i, j) a patient on average, where a patient's pair with itself
    is one and (i, j) is another than (j, i): with 2, a patient has one neighbour on average.

    Args:
        view: (n, d) features of the patients to learn from.
        neighbours: k, at least 1 and less than n.
    """
    count = len(view)
    if not 1 <= neighbours < count:
        raise ValueError(
            f"neighbours must lie between 1 and the number of patients less one, {count - 1}, "
            f"got {neighbours}"
        )
    ordered = similarities(view, view).flatten().sort(descending=True).values
    return ordered[neighbours * count]


def adjacency(view: Tensor, least: Tensor) -> Tensor:
    """Returns the normalised adjacency (n, n) of the patients to learn from.

    Args:
        view: (n, d) their features.
        least: the threshold, a scalar.
    """
    edges = kept(similarities(view, view), least)
    edges = torch.maximum(edges, edges.T)  # rounding may keep one half of a pair
    return F.normalize(edges.fill_diagonal_(1), p=1, dim=1)


def kept(cosines: Tensor, least: Tensor) -> Tensor:
    """Returns the similarities that are at least `least`, a scalar, and zeros for the others."""
    return torch.where(cosines >= least, cosines, 0)
