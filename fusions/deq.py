"""Deep equilibrium fusion of modalities (Ni et al., 2023, arXiv:2306.16645).

The features of N modalities and the fused feature are driven to a joint equilibrium by a
fixed-point solver, and differentiated implicitly. The system is block-triangular: no f_i sees z or
another modality. So all z_i are solved first, as one batched problem, then z.

Axis letters: N modalities, B samples, d = dim.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .equilibrium import Equilibrium, SolveRecord, checks
from .equilibrium.checks import Rule, check_count, check_flag, one_of, optional
from .equilibrium.fusion_map.building import build_cells, check_sizes, check_start
from .equilibrium.fusion_map.constants import ToldConstants, constants_of
from .equilibrium.fusion_map.equations import EQUATIONS as EQUATIONS
from .equilibrium.fusion_map.equations import PRESETS, Equations, refuse_old
from .equilibrium.fusion_map.features import check_features, check_fused, check_present
from .equilibrium.fusion_map.inputs import (
    Projection,
    RawInjection,
    ScaleFreeInjection,
    rms_normalised,
    times,
)
from .equilibrium.fusion_map.system import SystemStep, TriangularSystem, pose
from .equilibrium.half import wide, wide_dtype
from .equilibrium.record import Outcome
from .equilibrium.settings import ConvergenceError
from .equilibrium.transforms import in_backward, untraced, warn_of_late_penalty, warn_of_replica

RULES: Mapping[str, Rule] = {  # of the options that are neither `Equilibrium`'s nor `Equations`'
    "input_dims": checks.check_widths,
    "dim": checks.check_width,
    "start": check_start,
    "dropout": checks.check_probability,
    "unroll": optional(check_count),
    "joint": check_flag,
    "jacobian_weight": checks.check_not_negative,
    "jacobian_blocks": one_of(("diagonal", "joint")),
    "jacobian_probes": check_count,
    "jacobian_every": check_count,
}


class DEQFusion(ToldConstants):
    """Fuses modality features into the equilibrium of a learnt fusion process.

        z_i = f_i(z_i; x_i),    z = f_fuse(z; z_1, ..., z_N, x_fuse),    x_fuse = sum_i w_i x_i

    (Ni et al., 2023, equations 7 to 17). The result is z. Its gradient is that of the fixed
    point, through the z_i and through x_fuse (equation 18 leaves the second path out), at the
    memory of one evaluation, whatever the number of steps. Every sample is solved on its own:
    its result depends, within `tol`, neither on its batch-mates nor on an earlier forward.

    Where the map contracts, as it does at the default `start`, the equilibrium is unique. That
    its spectral radius is below 1 at an equilibrium does not say so; nothing less than a
    contraction everywhere does. At a `start` near 1, which training can bring about, a map may
    have several equilibria, and rounding then decides which of them a solve ends at: the same
    sample alone and in a batch may end at different ones, both converged. `analysis.fixed_points`
    looks for them, in a trained fusion as well.

    Args:
        input_dims: width of each modality's features, in order.
        dim: width d of the states and of the fused feature, at least 2.
        equations: what f_i, f_fuse and x_fuse are: `Equations(...)`, or the name of some, out of
            `EQUATIONS`: "scale_free", "paper", "released", "released_brca", "released_imdb",
            "released_mosi". `Equations.like("paper", gate=False)` varies them. Nothing but the
            equations follows from a name; `from_preset` sets what the release trains with, too.
        start: the recurrent terms at the start, as a fraction of the injected ones; "contractive"
            is 0.1. "released" starts as the authors' release, with the weights of `nn.Linear`;
            nothing makes the map contract then. The fraction is a constant of the map, and no
            parameter: a state_dict tells it, the equations and the groups, and is refused by a
            fusion of others; dict(state_dict) tells none.
        groups: groups of the GroupNorms of f_i. None: the largest divisor of `dim` up to 4 that
            leaves each group at least four channels, or else one group. Fewer than four channels
            are warned of where a number asks for them; of less than two GroupNorm makes zero.
        fuse_groups: those of f_fuse; None: as many as of f_i.
        dropout: probability of dropout, in training, on the gates and on the fused update;
            one mask for a whole solve, so that there is a fixed point.
        unroll: in place of the equilibrium this many steps from zero, backpropagated; there
            is no penalty, no `info` and nothing to observe then. Options of solves and of the
            penalty do nothing; but for `joint` they are taken, so that a variation of a fusion
            may have them. What f_fuse is injected is the equations' `unroll_injection`.
        joint: solve all states together, as (17) is written, and not block by block; without
            f_theta or f_fuse there is one block only.
        solver: key of `equilibrium.SOLVERS`, or a callable that returns a rule.
        tol: bound on the relative residual of every sample in the forward solve.
        max_steps: bound on the evaluations of the map in it.
        backward_tol: the tolerance of the adjoint solve; None: the same.
        backward_max_steps: its bound on evaluations; None: the same.
        gradient: "exact", that of the fixed point; or an approximation that solves nothing,
            "one_step" or "neumann" (formulas: `equilibrium.Equilibrium`).
        neumann_terms: number of terms of the latter.
        neumann_damping: its damping, above 0 and at most 1.
        jacobian_weight: weight of the Jacobian penalty in `auxiliary_loss`; with `unroll`
            there is none, whatever the weight.
        jacobian_blocks: "diagonal" (df_i/dz_i and df_fuse/dz, whose spectra make up that of
            the whole) or "joint" (the whole Jacobian, as the release has it).
        jacobian_probes: random vectors of Hutchinson's estimator.
        jacobian_every: take the penalty at every k-th training forward.
        on_failure: "warn" of, "raise" for or "ignore" samples that do not converge.

    Parameters of half precision are computed with in float32, and so are the gradients, which leave
    float16's range only where they end beyond it. Better train with float32 parameters, under
    autocast or not. Under autocast to float16 the encoders need a GradScaler, and this does not.

    Widths are at most 2^24, and every weight has at most 2^31 entries. torch.func (grad, vmap,
    jacrev) cannot follow a solve, which says so; `unroll` works with all of them.
    """

    training_forwards: Tensor
    _last = Outcome()  # also of files from before there was one

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        equations: str | Equations = "scale_free",
        start: str | float = "contractive",
        groups: int | None = None,
        fuse_groups: int | None = None,
        dropout: float = 0.0,
        unroll: int | None = None,
        joint: bool = False,
        solver: str | Callable[[], Any] = "anderson",
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
        **old: Any,
    ) -> None:
        """Builds the fusion, with all its parameters; each option is described at the class."""
        super().__init__()
        refuse_old(old, equations)
        self.equations = equations = Equations.like(equations)
        _check_options(locals())
        input_dims, dim, n = tuple(map(int, input_dims)), int(dim), len(input_dims)
        self.input_dims, self.dim, self.start = input_dims, dim, start
        self.groups, self.fuse_groups = groups, fuse_groups
        self.dropout, self.unroll = dropout, unroll
        self.joint = joint and equations.f_theta and equations.f_fuse
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
        as_it_is = equations.injection == "raw"
        self.projections = nn.ModuleList(
            nn.Identity() if as_it_is and width == dim else Projection(width, dim)
            for width in input_dims
        )
        shared: dict[str, Any] = {"groups": groups, "fuse_groups": fuse_groups, "start": start}
        self.unimodal, self.fuse = build_cells(equations, n, dim, **shared)
        self.weights = self.bias = None
        if equations.f_fuse and equations.fuse_weights:
            self.weights = nn.Parameter(torch.ones(n))
        if equations.f_fuse and equations.fuse_bias:
            self.bias = nn.Parameter(torch.zeros(()))
        if jacobian_every > 1:  # part of the state, so that a resumed training keeps in step
            self.register_buffer("training_forwards", torch.zeros((), dtype=torch.long))
        self._last = Outcome()

    @classmethod
    def from_preset(
        cls, preset: str, input_dims: Sequence[int], dim: int, **options: Any
    ) -> "DEQFusion":
        """Builds the equations of this name, with what the release trains them with.

        "paper" follows the paper; "released", "released_brca", "released_imdb" and
        "released_mosi" the variants of the authors' release, with their Jacobian penalty (and the
        last with one group in f_fuse). The start is that of `start`. `options` are the
        constructor's, and come first: `equations`, too, which may be a variation,
        `Equations.like(preset, gate=False)`.
        """
        checks.check_choice("preset", preset, PRESETS)
        return cls(input_dims, dim, **{"equations": preset, **PRESETS[preset], **options})

    def extra_repr(self) -> str:
        """Shows the widths, and the options that differ from the defaults."""
        options = {**vars(self.equilibrium), **vars(self)}
        options["equations"] = self.equations.name or self.equations
        told = [f"input_dims={self.input_dims}", f"dim={self.dim}"]
        for name, option in inspect.signature(DEQFusion).parameters.items():
            value = options.get(name, option.default)
            if option.kind is option.KEYWORD_ONLY and value != option.default:
                told.append(f"{name}={value!r}")
        return ", ".join(told)

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
                leading dimensions; every position of these is a sample of its own. The width is
                the last dimension: of (batch, channels, height, width) pass x.movedim(1, -1).
            present: (..., N) bool, the modalities that a sample has. The others take no part
                and receive no gradient; what their features hold does not matter.
            observe: called with a `SystemStep` at every evaluation of the forward solves.

        Raises:
            ValueError: for inputs that do not fit, or leave the range of their computation.
            TypeError: for inputs of another type or dtype.
            FloatingPointError: if an iterate, what is fused or the penalty is not finite.
            RuntimeError: where a transform of torch.func would have to follow a solve.
        """
        fuse = self._fuse if self.unroll is not None else self._fuse_untraced
        return fuse(features, present, observe)

    def _fuse(
        self,
        features: Sequence[Tensor],
        present: Tensor | None,
        observe: Callable[[SystemStep], None] | None,
    ) -> Tensor:
        again = self._runs_again()
        system, injection = self._posed(features, present)
        leading = features[0].shape[:-1]
        try:
            fused, outcome = self._fused(system, leading, observe)
        except FloatingPointError:
            # odd features are injected as NaN: they are refused now, or injected with more care
            constants = system.constants
            injected = injection.careful(constants.x, constants.x_fuse)
            self._last = Outcome()
            if injected is None:
                raise
            fused, outcome = self._fused(system.injected(*injected), leading, observe)
        if self.unroll is None and not again:  # an exported graph may not set anything
            if getattr(self, "_is_replica", False):
                warn_of_replica()
            self._last = outcome
        return fused if len(leading) == 1 else fused.view(*leading, self.dim)

    _fuse_untraced = untraced(_fuse)

    def _runs_again(self) -> bool:
        """Whether activation checkpointing runs a forward again that has recorded gradients.

        What the first run left behind stays: its record is the one that the backward pass fills.
        """
        return self._last.graded and in_backward()

    def _fused(
        self,
        system: TriangularSystem,
        leading: Sequence[int],
        observe: Callable[[SystemStep], None] | None,
    ) -> tuple[Tensor, Outcome]:
        """Returns the fused feature, (B, dim), and the outcome of its solves."""
        record = penalty = None
        if self.unroll is not None:
            from_states = self.equations.unroll_injection == "states"
            inject = self._of_states if from_states else lambda _: system.constants.x_fuse
            states, fused = system.unroll(self.unroll, inject)
        else:
            record = SolveRecord(leading)
            solve = system.solve_joint if self.joint else system.solve_blocks
            try:
                states, fused = solve(self.equilibrium, record, observe)
            except ConvergenceError:  # the record shows what did not converge
                self._last = Outcome(record)
                raise
            if self.training and torch.is_grad_enabled() and self.jacobian_weight:
                penalty = self._penalised(system, states, fused)
        result = states.sum(0) if fused is None else fused
        dtype = self._like.dtype
        if record is None or fused is None or result.dtype != dtype:  # else the solve checked it
            result = result.to(dtype)
            check_fused(result)
        return result, Outcome(record, penalty, torch.is_grad_enabled())

    @property
    def info(self) -> SolveRecord | None:
        """The record of the last forward's solves, and of its backward's once that has run.

        Steps, residual and converged of every sample; None where nothing was solved. It is of one
        forward as a whole, whatever other threads do meanwhile.
        """
        return self._last.record

    @property
    def auxiliary_loss(self) -> Tensor:
        """Weighted Jacobian penalty of the last forward, a scalar; zero where none was taken.

        It is to be added to the loss. None is taken in evaluation or without gradients.
        """
        penalty = self._last.penalty
        return self._like.new_zeros(()) if penalty is None else penalty

    @property
    def _like(self) -> Tensor:
        """One of the parameters; nn.DataParallel's replicas have them, but do not list them."""
        cells = [cell for cell in (self.fuse, self.unimodal) if cell is not None]
        return cells[0].norm_bias if cells else next(self.parameters())

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled
        return {**self.__dict__, "_last": Outcome()}

    def constants(self) -> dict[str, Any]:
        return constants_of(self.equations, self.start, self.unimodal, self.fuse)

    def pose(
        self,
        features: Sequence[Tensor],
        present: Tensor | None = None,
        *,
        careful: bool = True,
    ) -> TriangularSystem:
        """Returns the system that `forward` solves: the cells, and the features as injected.

        B is the number of samples. In training this draws the masks of dropout.

        Args:
            features: those of `forward`.
            present: likewise.
            careful: looks for features whose size calls for care. Without it they are injected
                as NaN, which is how `forward` begins, and only meets them then.
        """
        system, injection = self._posed(features, present)
        if not careful:
            return system
        injected = injection.careful(system.constants.x, system.constants.x_fuse)
        return system if injected is None else system.injected(*injected)

    def _posed(
        self, features: Sequence[Tensor], present: Tensor | None
    ) -> tuple[TriangularSystem, RawInjection | ScaleFreeInjection]:
        """Returns the same as if no feature were odd, and the injection that makes sure of it."""
        like, mask = self._like, None
        check_features(features, self.input_dims, like, least=0)
        if present is not None:
            check_present(present, features)
            present = present.reshape(-1, len(features)).T.unsqueeze(2)  # (N, B, 1)
            mask = present.to(wide_dtype(like.dtype))
        features = [x if x.ndim == 2 else x.reshape(-1, x.shape[-1]) for x in features]
        if present is not None:
            features = [torch.where(here, x, 0) for here, x in zip(present, features, strict=True)]
        # the states have the parameters' dtype, under autocast too, and at least float32
        kind = ScaleFreeInjection if self.equations.injection == "scale_free" else RawInjection
        least = None if self.bias is None else wide(self.bias.detach()).abs()
        injection = kind(features, list(self.projections), self._combined, like.dtype, least)
        x, x_fuse = injection.quick()
        dropout = self.dropout if self.training else 0.0
        return pose(self.unimodal, self.fuse, x, x_fuse, mask=mask, dropout=dropout), injection

    def _combined(self, y: Tensor, scale: Tensor | None = None) -> Tensor:
        """Returns x_fuse of (12), (B, d), of y (N, B, d); `scale`, (B, 1), is that of y."""
        x = y.sum(0) if self.weights is None else (wide(self.weights).view(-1, 1, 1) * y).sum(0)
        if self.bias is not None:
            bias = wide(self.bias)
            if scale is not None:
                bias = times(bias.expand_as(scale), scale, self.bias.dtype, parts=len(scale))
            x = x + bias
        return x

    def _of_states(self, states: Tensor) -> Tensor:
        """Returns what f_fuse is injected in place of x_fuse: sum w_i z_i, of z (N, B, d)."""
        x = self._combined(states)
        return rms_normalised(x) if self.equations.injection == "scale_free" else x

    def _penalised(
        self, system: TriangularSystem, states: Tensor, fused: Tensor | None
    ) -> Tensor | None:
        """Returns the weighted Jacobian penalty, if it is this forward's turn."""
        again = self._runs_again()
        if self.jacobian_every > 1:
            self.training_forwards += not again
            if self.training_forwards.item() % self.jacobian_every:
                return None
        if not again:
            warn_of_late_penalty()
        # the penalty's own derivative already has checkpointing run the forward again
        self._last = self._last._replace(graded=True)
        joint = self.jacobian_blocks == "joint"
        penalty = system.penalty(states, fused, joint=joint, probes=self.jacobian_probes)
        penalty = self.jacobian_weight * penalty
        if not bool(penalty.detach().isfinite()):
            raise FloatingPointError(
                f"the Jacobian penalty must be finite, got {penalty.item()}; check the weights, "
                "and jacobian_weight"
            )
        return penalty


def _check_options(options: Mapping[str, Any]) -> None:
    """Raises for the first option of the constructor that does not fit."""
    checks.check_options(options, RULES)
    check_sizes(**{name: options[name] for name in ("input_dims", "dim", "groups", "fuse_groups")})
    if options["joint"] and options["unroll"] is not None:
        raise ValueError("joint=True must not be given with unroll: nothing is solved then")
