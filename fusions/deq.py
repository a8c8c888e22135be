"""Deep equilibrium fusion of modalities (Ni et al., 2023, arXiv:2306.16645).

The features x_i of N modalities and the fused feature are driven to a joint equilibrium

    z_i = f_i(z_i; x_i)                          equations (7) and (8)
    z   = f_fuse(z; z_1, ..., z_N, x_fuse)       equations (9) to (13)

by a fixed-point solver, and differentiated implicitly. The system is block-triangular: no
f_i sees z or another modality. So all z_i are solved first, as one batched problem, then z.

Axis letters: N modalities, B samples, d = dim.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equilibrium import Equilibrium, GatedCell, ResidualCells, SolveRecord, checks
from .equilibrium.system import Constants, SystemStep, TriangularSystem

CHOICES: Mapping[str, Collection[str]] = {
    "injection": ("scale_free", "raw"),
    "cell": ResidualCells.KINDS,
    "norm_order": GatedCell.NORM_ORDERS,
    "unroll_injection": ("features", "states"),
    "jacobian_blocks": ("diagonal", "joint"),
}
_RELEASED = {"injection": "raw", "residual": True, "jacobian_blocks": "joint", "jacobian_probes": 2}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # the equations as the paper writes them
    "paper": {"injection": "raw"},
    # the variants of the authors' release, whose equations differ from the paper's
    "released": _RELEASED | {"fuse_bias": True},
    "released_brca": _RELEASED | {"fuse_weights": False, "jacobian_weight": 20.0},
    "released_imdb": _RELEASED
    | {"fuse_bias": True, "norm_order": "norm_relu", "jacobian_weight": 0.1},
    # with GroupNorm for the release's BatchNorm, which couples the samples of a batch and
    # makes another map in evaluation
    "released_mosi": _RELEASED
    | {"residual": False, "cell": "one_layer", "fuse_bias": True, "fuse_groups": 1}
    | {"jacobian_weight": 0.01},
}


class DEQFusion(nn.Module):
    """Fuses modality features into the equilibrium of a learnt fusion process.

        z_i = f_i(z_i; x_i),    z = f_fuse(z; z_1, ..., z_N, x_fuse),    x_fuse = sum_i w_i x_i

    (Ni et al., 2023, equations 7 to 17). The result is z. Its gradient is that of the fixed
    point, through the z_i and through x_fuse (equation 18 leaves the second path out), at the
    memory of one evaluation, whatever the number of steps. Every sample is solved on its own:
    its result depends neither on its batch-mates nor on an earlier forward.

    With the scale-free injection every modality is projected, y_i = P_i x_i, with P_i
    orthogonal at the start; f_i sees y_i / rms(y_i), f_fuse sees x_fuse / rms(x_fuse) with
    x_fuse = sum_i w_i y_i. Convergence then does not depend on the scale of the features,
    while their relative magnitudes still weigh in x_fuse.

    Args:
        input_dims: width of each modality's features, in order.
        dim: width d of the states and of the fused feature.
        injection: "scale_free", or "raw": x_i as it is, projected where its width is not d.
        cell: f_i as "two_layer" (equation 8) or "one_layer" (the release's for CMU-MOSI).
        residual: f_i adds its state before its last ReLU, as the release does.
        norm_order: f_fuse ends in GroupNorm(ReLU()) ("relu_norm", equation 11) or in
            ReLU(GroupNorm()) ("norm_relu", the release's for MM-IMDB).
        groups, fuse_groups: groups of the GroupNorms of f_i and (None: as many) of f_fuse.
        fuse_weights, fuse_bias: whether x_fuse has learnt scalars w_i, and a learnt scalar.
        dropout: probability of dropout, in training, on the gates and on the fused update;
            one mask for a whole solve, so that there is a fixed point.
        recurrent_scale: the recurrent terms as a fraction of the injected, at the start.
        f_theta, f_fuse, gate: False leaves the part out: z_i = x_i; z = sum_i z_i; z_i in
            place of the gated z in (10).
        unroll: in place of the equilibrium this many steps from zero, backpropagated; there
            is no penalty, no `info` and nothing to observe then.
        unroll_injection: what the unrolled f_fuse is injected: "features" (x_fuse; with one
            step no gradient reaches f_i, since the gate multiplies zero) or "states"
            (sum_i w_i z_i, as the paper describes its row without equilibrium).
        joint: solve all states together, as (17) is written, and not block by block; without
            f_theta or f_fuse there is one block only.
        solver: key of `equilibrium.SOLVERS`, or a callable that returns a rule.
        tol, max_steps: bounds of the forward solve: relative residual of every sample, and
            evaluations.
        backward_tol, backward_max_steps: those of the adjoint solve; None: the same.
        gradient: "exact", that of the fixed point; or an approximation that solves nothing,
            "one_step" or "neumann" (formulas: `equilibrium.Equilibrium`).
        neumann_terms, neumann_damping: number of terms, and damping, above 0 and at most 1,
            of the latter.
        jacobian_weight: weight of the Jacobian penalty in `auxiliary_loss`.
        jacobian_blocks: "diagonal" (df_i/dz_i and df_fuse/dz, whose spectra make up that of
            the whole) or "joint" (the whole Jacobian, as the release has it).
        jacobian_probes: random vectors of Hutchinson's estimator.
        jacobian_every: take the penalty at every k-th training forward.
        on_failure: "warn" of, "raise" for or "ignore" samples that do not converge.

    Attributes:
        info: `SolveRecord` of the last forward and, once it has solved one, its backward:
            steps, residual and converged of every sample; None where nothing was solved.
        auxiliary_loss: weighted Jacobian penalty of the last forward, to be added to the
            loss; zero where none was taken, as in evaluation.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        injection: str = "scale_free",
        cell: str = "two_layer",
        residual: bool = False,
        norm_order: str = "relu_norm",
        groups: int = 4,
        fuse_groups: int | None = None,
        fuse_weights: bool = True,
        fuse_bias: bool = False,
        dropout: float = 0.0,
        recurrent_scale: float = 0.1,
        f_theta: bool = True,
        f_fuse: bool = True,
        gate: bool = True,
        unroll: int | None = None,
        unroll_injection: str = "features",
        joint: bool = False,
        solver: str | Callable = "anderson",
        tol: float = 1e-3,
        max_steps: int = 40,
        backward_tol: float | None = None,
        backward_max_steps: int | None = None,
        gradient: str = "exact",
        neumann_terms: int = 3,
        neumann_damping: float = 1.0,
        jacobian_weight: float = 0.0,
        jacobian_blocks: str = "diagonal",
        jacobian_probes: int = 1,
        jacobian_every: int = 1,
        on_failure: str = "warn",
    ) -> None:
        super().__init__()
        _check_options(locals())
        n = len(input_dims)
        self.input_dims, self.dim, self.injection = tuple(input_dims), dim, injection
        self.dropout, self.unroll, self.unroll_injection = dropout, unroll, unroll_injection
        self.joint = joint and f_theta and f_fuse
        self.jacobian_weight, self.jacobian_blocks = jacobian_weight, jacobian_blocks
        self.jacobian_probes, self.jacobian_every = jacobian_probes, jacobian_every
        self.equilibrium = Equilibrium(
            solver=solver,
            tol=tol,
            max_steps=max_steps,
            backward_tol=backward_tol,
            backward_max_steps=backward_max_steps,
            on_failure=on_failure,
            gradient=gradient,
            neumann_terms=neumann_terms,
            neumann_damping=neumann_damping,
        )
        self.projections = nn.ModuleList(
            nn.Identity() if injection == "raw" and width == dim else _orthogonal(width, dim)
            for width in input_dims
        )
        shared = {"groups": groups, "recurrent_scale": recurrent_scale}
        self.unimodal = self.fuse = None
        if f_theta:
            self.unimodal = ResidualCells(n, dim, kind=cell, residual=residual, **shared)
        if f_fuse:
            shared["groups"] = groups if fuse_groups is None else fuse_groups
            self.fuse = GatedCell(n, dim, norm_order=norm_order, gate=gate, **shared)
        self.weights = nn.Parameter(torch.ones(n)) if f_fuse and fuse_weights else None
        self.bias = nn.Parameter(torch.zeros(())) if f_fuse and fuse_bias else None
        if jacobian_every > 1:  # part of the state, so that a resumed training keeps in step
            self.register_buffer("training_forwards", torch.zeros((), dtype=torch.long))
        self.info: SolveRecord | None = None
        self._penalty: Tensor | None = None

    @classmethod
    def from_preset(
        cls, preset: str, input_dims: Sequence[int], dim: int, **options: Any
    ) -> "DEQFusion":
        """Builds the equations of a preset; `options` are the constructor's, and come first.

        "paper" follows the paper; "released", "released_brca", "released_imdb" and
        "released_mosi" the variants of the authors' release (the last with GroupNorm for the
        BatchNorm inside its map). A preset chooses the equations and the Jacobian penalty,
        never the initialisation.
        """
        checks.check_choice("preset", preset, PRESETS)
        return cls(input_dims, dim, **{**PRESETS[preset], **options})

    def forward(
        self,
        features: Sequence[Tensor],
        *,
        present: Tensor | None = None,
        observe: Callable[[SystemStep], None] | None = None,
    ) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: floating-point tensors in the order of `input_dims`, with the same
                leading dimensions; every position of these is a sample of its own.
            present: (..., N) bool, the modalities that a sample has. The others take no part
                and receive no gradient; what their features hold does not matter.
            observe: called with a `SystemStep` at every evaluation of the forward solves.

        Raises:
            ValueError, TypeError: for inputs that do not fit.
            FloatingPointError: if an iterate is not finite.
        """
        system, leading = self.pose(features, present), features[0].shape[:-1]
        self.info, self._penalty = None, None
        if self.unroll is not None:
            from_states = self.unroll_injection == "states"
            inject = self._combined if from_states else lambda _: system.constants.x_fuse
            states, fused = system.unroll(self.unroll, inject)
        else:
            self.info = SolveRecord(leading)
            solve = system.solve_joint if self.joint else system.solve_blocks
            states, fused = solve(self.equilibrium, self.info, observe)
            self._penalise(system, states, fused)
        return (states.sum(0) if fused is None else fused).view(*leading, self.dim)

    @property
    def auxiliary_loss(self) -> Tensor:
        """Weighted Jacobian penalty of the last forward, a scalar; zero where none was taken."""
        if self._penalty is not None:
            return self._penalty
        return next(self.parameters()).new_zeros(())

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "info": None, "_penalty": None}

    def pose(self, features: Sequence[Tensor], present: Tensor | None = None) -> TriangularSystem:
        """Returns what `forward` solves: the cells, and the features as they are injected.

        Features and `present` are those of `forward`; B is the number of their samples. In
        training this draws the masks of dropout.
        """
        dtype = next(self.parameters()).dtype  # the states keep it, under autocast too
        checks.check_features(features, self.input_dims, dtype)
        mask = None
        if present is not None:
            checks.check_present(present, features[0].shape[:-1], len(features))
            present = present.reshape(-1, len(features)).T.unsqueeze(2)  # (N, B, 1)
            mask = present.to(dtype)
        features = [x.reshape(-1, x.shape[-1]) for x in features]
        if present is not None:
            features = [torch.where(here, x, 0) for here, x in zip(present, features, strict=True)]
        checks.check_finite(features)
        y = torch.stack([p(x).to(dtype) for p, x in zip(self.projections, features, strict=True)])
        gate_masks = dropped = None
        if self.training and self.dropout and self.fuse is not None:
            if self.fuse.gate:
                gate_masks = F.dropout(torch.ones_like(y), self.dropout)
            dropped = F.dropout(torch.ones_like(y[0]), self.dropout)
        factors = [factor for factor in (mask, gate_masks) if factor is not None]
        m = math.prod(factors).sum(0) if factors else y.new_full((1, 1), len(y))
        x = _rms_normalised(y) if self.injection == "scale_free" else y
        constants = Constants(x, mask, self._combined(y), gate_masks, m, dropped)
        return TriangularSystem(self.unimodal, self.fuse, constants)

    def _combined(self, y: Tensor) -> Tensor:
        """Returns x_fuse of (12), (B, d), of y (N, B, d)."""
        x = y.sum(0) if self.weights is None else (self.weights.view(-1, 1, 1) * y).sum(0)
        x = x if self.bias is None else x + self.bias
        return _rms_normalised(x) if self.injection == "scale_free" else x

    def _penalise(self, system: TriangularSystem, states: Tensor, fused: Tensor | None) -> None:
        """Keeps the weighted Jacobian penalty for `auxiliary_loss`, if this forward has one."""
        if not (self.training and torch.is_grad_enabled() and self.jacobian_weight):
            return
        if self.jacobian_every > 1:
            self.training_forwards += 1
            if self.training_forwards.item() % self.jacobian_every:
                return
        joint = self.jacobian_blocks == "joint"
        penalty = system.penalty(states, fused, joint=joint, probes=self.jacobian_probes)
        self._penalty = self.jacobian_weight * penalty


def _rms_normalised(x: Tensor) -> Tensor:
    """Returns x / rms(x) over the last axis, for x of any scale; zero stays zero."""
    # Divided by its largest entry first, so that no square leaves the range of the dtype. The
    # result does not depend on that divisor, so neither does its gradient.
    largest = x.detach().abs().amax(-1, keepdim=True)
    x = x / torch.where(largest > 0, largest, 1)
    # now at least 1 / d, but for x = 0
    return x * x.square().mean(-1, keepdim=True).clamp_min(0.5 / x.shape[-1]).rsqrt()


def _orthogonal(width: int, dim: int) -> nn.Linear:
    linear = nn.Linear(width, dim, bias=False)
    nn.init.orthogonal_(linear.weight)
    return linear


def _check_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError for the first option of the constructor that does not fit."""
    widths = options["input_dims"]
    if not isinstance(widths, Sequence):
        raise TypeError(f"input_dims must list a width for each modality, got {widths!r}")
    if not widths:
        raise ValueError("input_dims must name the width of at least one modality, got none")
    for i, width in enumerate(widths):
        checks.check_count(f"input_dims[{i}]", width)
    for name in ("dim", "jacobian_probes", "jacobian_every"):
        checks.check_count(name, options[name])
    if options["unroll"] is not None:
        checks.check_count("unroll", options["unroll"])
    for name, choices in CHOICES.items():
        checks.check_choice(name, options[name], choices)
    checks.check_groups("groups", options["groups"], options["dim"])
    if options["fuse_groups"] is not None:
        checks.check_groups("fuse_groups", options["fuse_groups"], options["dim"])
    checks.check_range("dropout", options["dropout"], 0, 1)
    checks.check_range("recurrent_scale", options["recurrent_scale"], 0, math.inf)
    checks.check_range("jacobian_weight", options["jacobian_weight"], 0, math.inf)
    if options["residual"] and options["cell"] == "one_layer":
        raise ValueError("residual=True must go with cell='two_layer': the other has none")
    if options["joint"] and options["unroll"] is not None:
        raise ValueError("joint=True must not be given with unroll: nothing is solved then")
    if not (options["f_theta"] or options["f_fuse"]):
        raise ValueError("f_theta and f_fuse must not both be False: nothing would be fused")
