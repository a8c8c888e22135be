"""Which equations a fusion solves: the paper's, the released code's, and what lies between."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..checks import Rule, check_choice, check_flag, check_options, one_of, shown

RULES: Mapping[str, Rule] = {
    "injection": one_of(("scale_free", "raw")),
    "cell": one_of(("two_layer", "one_layer")),
    "residual": check_flag,
    "norm_order": one_of(("relu_norm", "norm_relu")),
    "gate": check_flag,
    "f_theta": check_flag,
    "f_fuse": check_flag,
    "fuse_weights": check_flag,
    "fuse_bias": check_flag,
    "unroll_injection": one_of(("features", "states")),
}


@dataclass(frozen=True)
class Equations:
    """The fusion process of Ni et al. (2023, arXiv:2306.16645), and each choice that it leaves.

        z_i = f_i(z_i; x_i) = GN(ReLU(GN(B h + b + x_i))),  h = ReLU(GN(A z_i + a))     (8)
        alpha_i = W (z + z_i) + w,  z_i' = alpha_i z                                    (9), (10)
        z = f_fuse(z; z_1, ..., z_N, x_fuse) = GN(ReLU(V sum_i z_i' + v + x_fuse))      (11)
        x_fuse = sum_i w_i x_i                                                          (12)

    GN is a GroupNorm with its affine map. A, B, their biases and norms are each modality's own,
    the gate W is shared, and alpha_i z is a product entry by entry. The defaults differ from this
    in the injection alone; `EQUATIONS` has names for what the paper and its released code solve.

    Args:
        injection: "raw": (8) and (12) are injected x_i as it is, projected where its width is not
            that of the states. "scale_free": every modality is projected, y_i = P_i x_i, with P_i
            orthogonal at the start; f_i is injected y_i / rms(y_i), and f_fuse x_fuse / rms(x_fuse)
            with x_fuse = sum_i w_i y_i. Convergence then does not depend on the scale of the
            features, while their relative magnitudes still weigh in x_fuse.
        cell: f_i as "two_layer", which is (8), or as "one_layer", ReLU(B GN(A z_i + a + x_i) + b),
            the release's for CMU-MOSI.
        residual: f_i adds z_i before its last ReLU, as the release does; with two layers only.
        norm_order: f_fuse ends in GN(ReLU()), "relu_norm", as (11), or in ReLU(GN()), "norm_relu",
            the release's for MM-IMDB.
        gate: False: z_i' = z_i in (10), and z no longer depends on itself.
        f_theta: False: no f_i; z_i = x_i, as it is injected.
        f_fuse: False: no f_fuse; z = sum_i z_i.
        fuse_weights: whether x_fuse has learnt scalars w_i; False: w_i = 1.
        fuse_bias: whether x_fuse has a learnt scalar as its bias, as the release has it.
        unroll_injection: what f_fuse is injected where steps are unrolled and nothing is solved:
            "features", x_fuse of (12) (with one step no gradient reaches f_i, since the gate
            multiplies zero), or "states", sum_i w_i z_i, as the paper describes its row without
            equilibrium.
    """

    injection: str = "scale_free"
    cell: str = "two_layer"
    residual: bool = False
    norm_order: str = "relu_norm"
    gate: bool = True
    f_theta: bool = True
    f_fuse: bool = True
    fuse_weights: bool = True
    fuse_bias: bool = False
    unroll_injection: str = "features"

    def __post_init__(self) -> None:
        check_options(vars(self), RULES)
        if self.residual and self.cell == "one_layer":
            raise ValueError("residual=True must go with cell='two_layer': the other has none")
        if not (self.f_theta or self.f_fuse):
            raise ValueError("f_theta and f_fuse must not both be False: nothing would be fused")

    @classmethod
    def like(cls, equations: "str | Equations", **changes: Any) -> "Equations":
        """Returns equations, given by name or as they are, with these fields changed."""
        if any(kind.__name__ == cls.__name__ for kind in type(equations).__mro__):
            # of this file imported under another name (fusions., deq_fusion.fusions.), maybe
            equations = cls(**vars(equations))
        else:
            check_choice("equations", equations, EQUATIONS)
            assert isinstance(equations, str)
            equations = EQUATIONS[equations]
        return replace(equations, **changes)

    @property
    def name(self) -> str | None:
        """Their name in `EQUATIONS`, if they have one."""
        return next((name for name, named in EQUATIONS.items() if named == self), None)

    def __repr__(self) -> str:
        """Shows the fields that differ from the defaults."""
        default = {field.name: field.default for field in fields(self)}
        changed = [f"{name}={x!r}" for name, x in vars(self).items() if x != default[name]]
        return f"Equations({', '.join(changed)})"


_PAPER = Equations(injection="raw")
_RELEASED = replace(_PAPER, residual=True, fuse_bias=True)
EQUATIONS: Mapping[str, Equations] = {
    "scale_free": Equations(),
    "paper": _PAPER,
    # the variants of the authors' release, whose equations differ from the paper's
    "released": _RELEASED,
    "released_brca": replace(_RELEASED, fuse_bias=False, fuse_weights=False),
    "released_imdb": replace(_RELEASED, norm_order="norm_relu"),
    # The release has a BatchNorm inside this map, which couples the samples of a batch and makes
    # another map in evaluation. Here it is a GroupNorm: of one group in `from_preset`.
    "released_mosi": replace(_RELEASED, residual=False, cell="one_layer"),
}

_TRAINED = {"jacobian_blocks": "joint", "jacobian_probes": 2}
PRESETS: Mapping[str, Mapping[str, Any]] = {  # what they set besides these equations
    "paper": {},
    "released": _TRAINED,
    "released_brca": _TRAINED | {"jacobian_weight": 20.0},
    "released_imdb": _TRAINED | {"jacobian_weight": 0.1},
    "released_mosi": _TRAINED | {"jacobian_weight": 0.01, "fuse_groups": 1},
}


def refuse_old(old: Mapping[str, Any], equations: Any) -> None:
    """Raises TypeError for options that `DEQFusion` has not, or no more, and says what it has.

    Args:
        old: those it was given.
        equations: what it was given as `equations`.
    """
    given = {name: f"{name}={shown(value)}" for name, value in old.items()}
    fields = ", ".join(text for name, text in given.items() if name in RULES)
    unknown = [name for name in old if name not in RULES and name != "recurrent_scale"]
    if unknown:
        raise TypeError(f"DEQFusion has no option {unknown[0]}; help(DEQFusion) tells those it has")
    now = []
    if fields and equations == "scale_free":
        now.append(f"equations=Equations({fields})")
    elif fields:
        now.append(f"equations=Equations.like({shown(equations)}, {fields})")
    if "recurrent_scale" in old:
        now.append(f"start={shown(old['recurrent_scale'])}")
    if now:
        options = f"option{'s' * (len(old) > 1)} {', '.join(given.values())}"
        raise TypeError(f"DEQFusion has no {options} any more: pass {', '.join(now)}")
