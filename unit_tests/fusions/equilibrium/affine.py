"""A map whose fixed point is known in closed form."""

import torch


def affine(batch=4, size=8, radius=0.8):
    """z -> A z + b with |A| = radius for each sample, and its fixed point (I - A)^-1 b."""
    a = torch.randn(batch, size, size)
    a = radius * a / torch.linalg.matrix_norm(a, 2).view(-1, 1, 1)
    b = torch.randn(batch, size)
    expected = torch.linalg.solve(torch.eye(size) - a, b)
    return lambda z: (a @ z.unsqueeze(2)).squeeze(2) + b, torch.zeros(batch, size), expected
