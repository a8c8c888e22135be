"""Mutual equilibrium, MEQ (Park and Kang, 2026, arXiv:2609.39456): a state for each modality.

Ni et al.'s fusion solves for one fused state that no modality's state sees. Here the states of
the modalities see each other, and are at equilibrium together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equilibrium import AutogradMap, Equilibrium, SolveRecord, checks, jacobian_penalty
from .modalities import check_widths, finite, without_absent

BAND = (0.7, 0.9)  # of the size of the Jacobian, as published


class MEQ(nn.Module):
    """Fuses features by states of the modalities that feed each other until they rest.

        z_i = a_i S_i(z_i) + (1 - a_i) M_i(z_i, others) + y_i,    y_i = norm(P_i x_i)

        S_i(z) = A_i soft(z)                                    its own path
        M_i    = B_i sum_{j != i} t_ij soft(z_j)                the cross path
        t_ij   = softmax over j of <Q soft(z_i), K soft(z_j)> / sqrt(dim)
        result = sum_i C_i z_i

    norm is layer normalisation without weights, soft the same with 1 added to the variance, whose
    slope is at most 1, and a_i = sigmoid of a learnt number, the soft gate. The paper has two
    modalities and leaves S and M open, self- and cross-attention, say; of vectors, one token
    each, these are the linear maps A and B, and of two modalities t is 1 and has no parameters.
    More modalities are joined each with each. What is absent has the state 0, feeds no other, and
    is fed by none.

    The map T of all states together is solved in its damped form, z <- (1 - d) z + d T(z), which
    has the same fixed points and contracts for some T that do not. What is fed back is bounded, so
    there is a fixed point; A and B start orthogonal with the factor 1/2, with which T of two
    modalities contracts everywhere, and has one. Its gradient is that of the fixed point. With
    `unroll` the damped steps are taken so often from zero and backpropagated, the control: what
    the paper truncates to ten.

    Args:
        input_dims: width of each modality's features.
        dim: width of the states and of the fused feature, at least 2.
        damping: d, above 0 and at most 1.
        unroll: in place of the equilibrium this many steps; then the options below do nothing.
        jacobian_weight: weight in `auxiliary_loss` of max(0, r - 0.9)^2 + max(0, 0.7 - r)^2, r
            the root mean square of the Jacobian's singular values at the equilibrium, estimated
            with one probe; the paper has 0.5.
        solver: see `equilibrium.Equilibrium`, as for all that follow.
        tol: bound on the relative residual.
        max_steps: bound on the evaluations of the map.
        on_failure: "warn" of, "raise" for or "ignore" samples that do not converge.

    Attributes:
        info: `SolveRecord` of the last forward, whose one name is "states"; None before, and
            with `unroll`.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        damping: float = 0.5,
        unroll: int | None = None,
        jacobian_weight: float = 0.0,
        solver: str | Callable[[], Any] = "anderson",
        tol: float = 1e-3,
        max_steps: int = 40,
        on_failure: str = "warn",
    ) -> None:
        super().__init__()
        check_widths(input_dims, dim=dim)
        if dim < 2:  # of one number layer normalisation leaves nothing
            raise ValueError(f"dim must be at least 2, got {dim}")
        checks.check_range("damping", damping, 0, 1, above=True)
        checks.optional(checks.check_count)("unroll", unroll)
        checks.check_not_negative("jacobian_weight", jacobian_weight)
        n = len(input_dims)
        self.input_dims, self.dim, self.damping, self.unroll = (
            tuple(input_dims),
            dim,
            damping,
            unroll,
        )
        self.jacobian_weight = jacobian_weight
        self.equilibrium = Equilibrium(
            solver=solver, tol=tol, max_steps=max_steps, on_failure=on_failure
        )
        self.projections = nn.ModuleList(nn.Linear(d, dim, bias=False) for d in input_dims)
        self.own = nn.Parameter(_orthogonal(n, dim))  # A_i
        self.outputs = nn.Parameter(2 * _orthogonal(n, dim))  # C_i
        self.cross = self.gates = self.query = self.key = None
        if n > 1:  # nothing is fed across, otherwise
            self.cross, self.gates = nn.Parameter(_orthogonal(n, dim)), nn.Parameter(torch.zeros(n))
        if n > 2:  # of one other state its share is 1, whatever they are
            self.query = nn.Parameter(torch.randn(dim, dim) / dim**0.5)
            self.key = nn.Parameter(torch.randn(dim, dim) / dim**0.5)
        self.info: SolveRecord | None = None
        self._penalty: Tensor | None = None

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: floating-point tensors in the order of `input_dims`; every position of
                their leading dimensions is a sample of its own.
            present: (..., N) bool, the modalities that a sample has, one at least.

        Raises:
            FloatingPointError: if an iterate, or what is fused, is not finite.
        """
        features = without_absent(self, features, self.input_dims, present, normed=True)
        leading = features[0].shape[:-1]
        projected = [p(x) for p, x in zip(self.projections, features, strict=True)]
        y = torch.stack(projected, -2).flatten(0, -3).to(self.own.dtype)  # (B, N, dim)
        here = None if present is None else present.flatten(0, -2)
        y = F.layer_norm(y, y.shape[-1:])
        y = y if here is None else y.masked_fill(~here.unsqueeze(-1), 0)
        states = self._states(y, here, leading)
        return finite(torch.einsum("bnd,nde->be", states, self.outputs).view(*leading, -1))

    def _states(self, y: Tensor, here: Tensor | None, leading: torch.Size) -> Tensor:
        """Returns the states, (B, N, dim), at rest or after the unrolled steps."""
        self.info = self._penalty = None
        inputs = [y, self.own, self.cross, self.gates, self.query, self.key]
        start = torch.zeros_like(y)
        if self.unroll is not None:
            for _ in range(self.unroll):
                start = damped(start, *inputs, here=here, damping=self.damping)
            return start
        record = SolveRecord(leading)
        step = partial(damped, here=here, damping=self.damping)
        flat = self.equilibrium.solve(
            lambda *given: AutogradMap(step, start, given), inputs, record=record, names=["states"]
        )
        states = flat.view_as(y)
        if self.training and torch.is_grad_enabled() and self.jacobian_weight:
            self._penalty = self.jacobian_weight * self._outside(states, inputs, here)
        self.info = record
        return states

    def _outside(
        self, states: Tensor, inputs: Sequence[Tensor | None], here: Tensor | None
    ) -> Tensor:
        """Returns the squared distance of the Jacobian's size from the band, a scalar."""
        square = jacobian_penalty(partial(mutual, here=here), states, inputs)
        size = square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
        low, high = BAND
        return (size - high).clamp_min(0).square() + (low - size).clamp_min(0).square()

    @property
    def auxiliary_loss(self) -> Tensor:
        """Weighted penalty of the last training forward, a scalar; otherwise zero."""
        return self.own.new_zeros(()) if self._penalty is None else self._penalty

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "info": None, "_penalty": None}


def mutual(
    z: Tensor,  # shape: (B, N, dim)
    y: Tensor,  # shape: (B, N, dim)
    own: Tensor,
    cross: Tensor | None,
    gates: Tensor | None,
    query: Tensor | None,
    key: Tensor | None,
    *,
    here: Tensor | None = None,
) -> Tensor:
    """Returns T(z), (B, N, dim), of the parameters of `MEQ`; 0 where a modality is absent."""
    n = F.layer_norm(z, z.shape[-1:], eps=1.0)
    image = torch.einsum("bnd,nde->bne", n, own)
    if cross is not None and gates is not None:
        a = gates.sigmoid().unsqueeze(-1)
        fed = torch.einsum("bnd,nde->bne", _shares(n, query, key, here) @ n, cross)
        image = a * image + (1 - a) * fed
    image = image + y
    return image if here is None else image.masked_fill(~here.unsqueeze(-1), 0)


def damped(z: Tensor, *inputs: Any, here: Tensor | None, damping: float) -> Tensor:
    """Returns (1 - damping) z + damping T(z)."""
    return torch.lerp(z, mutual(z, *inputs, here=here), damping)


def _shares(n: Tensor, query: Tensor | None, key: Tensor | None, here: Tensor | None) -> Tensor:
    """Returns t_ij, (B, N, N): 0 on the diagonal, for what is absent, and where nothing is left."""
    count = n.shape[1]
    scores = n.new_zeros(len(n), count, count)
    if query is not None and key is not None:
        scores = (n @ query) @ (n @ key).mT / n.shape[-1] ** 0.5
    seen = ~torch.eye(count, dtype=torch.bool, device=n.device).expand_as(scores)
    if here is not None:
        seen = seen & here.unsqueeze(1)
    # finite where nothing is seen, which NaN would be; those shares are 0 then
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1) * seen


def _orthogonal(count: int, dim: int) -> Tensor:
    """Returns random orthogonal matrices times 1/2, (count, dim, dim)."""
    return 0.5 * torch.stack([nn.init.orthogonal_(torch.empty(dim, dim)) for _ in range(count)])
