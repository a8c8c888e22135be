"""The plain prototype: deep equilibrium fusion as one would first write it.

Block by block, autograd's vector-Jacobian products, textbook Anderson acceleration, every sample
evaluated until the last has converged. Raw injection; weights rescaled once on the first batch,
so that the recurrent term has a fixed share of the spread of the injected one.

It is the yardstick of the table: the authors' module took RELEASED times as long as such a
prototype, both measured in one run on one thread, 55 forward and 56 backward evaluations.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RELEASED = {  # (batch, modalities, width) -> time of the authors' module, in prototypes
    (612, 3, 500): 5.3,
    (128, 2, 512): 6.4,
    (24, 2, 768): 7.4,
    (64, 2, 1024): 6.7,
    (64, 2, 2048): 5.5,
}


class Prototype(nn.Module):
    """Fuses (batch, d) features of n modalities; `tol` bounds every sample's relative residual."""

    def __init__(self, n: int, dim: int, *, tol: float, groups: int = 4, share: float = 0.5):
        super().__init__()
        self.tol, self.share, self.groups = tol, share, groups
        self.cells = nn.ModuleList(
            nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim)]) for _ in range(n)
        )
        self.gate, self.fuse = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, dim) for _ in range(3 * n + 1))
        self.weights = nn.Parameter(torch.ones(n))
        self.calibrated = False

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the fused feature, (batch, d)."""
        if not self.calibrated:
            self._calibrate([x.detach() for x in features])
        states = []
        for i, x in enumerate(features):
            inputs = [x, *self.cells[i].parameters(), *self._norms_of(i)]
            cell = lambda z, x, *_, i=i: self._cell(i, z, x)  # noqa: E731
            states.append(_fixed_point(cell, inputs, self.tol))
        x_fuse = (self.weights[:, None, None] * torch.stack(list(features))).sum(0)
        context = F.linear(sum(states), self.gate.weight)
        parameters = [
            *self.gate.parameters(),
            *self.fuse.parameters(),
            *self.norms[-1].parameters(),
        ]
        return _fixed_point(self._fused, [x_fuse, context, *parameters], self.tol)

    def _norms_of(self, i: int) -> list[Tensor]:
        return [p for norm in self.norms[3 * i : 3 * i + 3] for p in norm.parameters()]

    def _cell(self, i: int, z: Tensor, x: Tensor) -> Tensor:
        first, second, third = self.norms[3 * i : 3 * i + 3]
        a, b = self.cells[i]
        return third(F.relu(second(b(F.relu(first(a(z)))) + x)))

    def _fused(self, z: Tensor, x: Tensor, context: Tensor, *_: Tensor) -> Tensor:
        n = len(self.cells)
        gates = context + n * self.gate(z)
        return self.norms[-1](F.relu(self.fuse(z * gates) + x))

    @torch.no_grad()
    def _calibrate(self, features: Sequence[Tensor]) -> None:
        unit = lambda x: F.group_norm(torch.randn_like(x), self.groups)  # noqa: E731
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.bias.zero_()
        for (a, b), x in zip(self.cells, features, strict=True):
            recurrent = b(F.relu(F.group_norm(a(unit(x)), self.groups)))
            b.weight *= self.share * x.std() / recurrent.std()
        z, states, x_fuse = unit(features[0]), [unit(x) for x in features], sum(features)
        self.gate.weight /= self.gate(z).std()
        s = sum(self.gate(z + state) * z for state in states)
        self.fuse.weight *= self.share / 2 * x_fuse.std() / self.fuse(s).std()
        self.calibrated = True


def _fixed_point(f: Callable[..., Tensor], inputs: Sequence[Tensor], tol: float) -> Tensor:
    with torch.no_grad():
        z = _anderson(lambda z: f(z, *inputs), torch.zeros_like(inputs[0]), tol)
    return _Implicit.apply(f, tol, z, *inputs)


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f: Callable, tol: float, z: Tensor, *inputs: Tensor) -> Tensor:
        ctx.f, ctx.tol = f, tol
        ctx.save_for_backward(z, *inputs)
        return z.clone()

    @staticmethod
    def backward(ctx, g: Tensor):
        z, *inputs = ctx.saved_tensors
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            leaf = lambda x: x if isinstance(x, nn.Parameter) else x.detach().requires_grad_()  # noqa: E731
            inputs = [leaf(x) for x in inputs]
            image = ctx.f(z, *inputs)

        def product(u: Tensor) -> Tensor:
            return torch.autograd.grad(image, z, u, retain_graph=True)[0] + g

        u = _anderson(product, g, ctx.tol)
        return None, None, None, *torch.autograd.grad(image, inputs, u)


def _anderson(f: Callable[[Tensor], Tensor], z: Tensor, tol: float, m: int = 6, limit: int = 60):
    """Anderson acceleration from the bordered system of all pairs of residuals."""
    zs, images = [], []
    for _ in range(limit):
        fz = f(z)
        if bool(((fz - z).norm(dim=1) <= tol * fz.norm(dim=1)).all()):
            return z
        zs, images = [*zs, z][-m:], [*images, fz][-m:]
        g = torch.stack(images, 1) - torch.stack(zs, 1)
        k = len(zs)
        gram = g @ g.mT
        trace = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        border = g.new_zeros(len(z), k + 1, k + 1)
        border[:, 0, 1:] = border[:, 1:, 0] = 1
        border[:, 1:, 1:] = gram / trace + 1e-6 * torch.eye(k).to(g)
        right = g.new_zeros(len(z), k + 1, 1)
        right[:, 0] = 1
        alpha = torch.linalg.solve(border, right)[:, 1:]
        z = (alpha * torch.stack(images, 1)).sum(1)
    return z
