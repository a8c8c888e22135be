"""Adapters that build every fusion as (input_dims, dim, **options), and refuse other inputs."""

import inspect
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from . import common_fusions as common
from .deq import DEQFusion, Equations
from .equilibrium import checks
from .evidential import EvidentialFusion
from .late import LateFusion
from .late_unimodal import LateUnimodal
from .meq import MEQ
from .modalities import check_present, check_tensors, finite, without_absent
from .mult import MULTModel
from .pdf import PDF
from .qmf import QMF
from .vcdn import VCDNFusion

Sized = tuple[nn.Module, int | None]
"""A fusion and the width of its result; None of a fusion that predicts on its own."""


class Checked(nn.Module):
    """A fusion of features that are checked first: their number, widths and dtype.

    Args:
        input_dims: widths of the features.
        fusion: the fusion.
        normed: whether it normalises or attends, which bounds the features.
    """

    normed = False  # also of files from before there was one

    def __init__(
        self, input_dims: Sequence[int], fusion: nn.Module, *, normed: bool = False
    ) -> None:
        super().__init__()
        self.input_dims, self.fusion, self.normed = tuple(input_dims), fusion, normed

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        checked = without_absent(self, features, self.input_dims, normed=self.normed)
        return finite(self.fusion(checked))


class Zeroed:
    """A hook that gives a fusion without a parameter `present` zeros for absent modalities.

    So every fusion of the registry may be called with `present`, (batch, N) bool; those that know
    it leave absent modalities out in a way of their own. Of sequences a whole one is absent.
    """

    def __call__(
        self, fusion: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs = dict(kwargs)
        present = kwargs.pop("present", None)
        if present is None:
            return args, kwargs
        features, *rest = args
        start = present.dim() - 1 if isinstance(present, Tensor) else 1
        check_present(present, [x.flatten(start) if x.dim() > start else x for x in features])
        pairs = zip(present.unbind(-1), features, strict=True)
        return ([torch.where(_beside(here, x), x, 0) for here, x in pairs], *rest), kwargs

    @classmethod
    def put_on(cls, fusion: nn.Module) -> None:
        """Gives the fusion this hook, unless its forward may take `present`."""
        takes = inspect.signature(fusion.forward).parameters
        if "present" not in takes and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            fusion.register_forward_pre_hook(cls(), with_kwargs=True)


def _beside(here: Tensor, x: Tensor) -> Tensor:
    """Returns what is told of samples, (batch,), in a shape that goes with (batch, ..., d)."""
    return here.reshape(here.shape + (1,) * (x.dim() - here.dim()))


class Reduced(nn.Module):
    """A fusion of features that are projected, without bias, to one small width first."""

    def __init__(self, input_dims: Sequence[int], width: int, fusion: nn.Module) -> None:
        super().__init__()
        self.input_dims = tuple(input_dims)
        self.projections = nn.ModuleList(nn.Linear(d, width, bias=False) for d in input_dims)
        self.fusion = fusion

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        features = without_absent(self, features, self.input_dims)
        return finite(self.fusion([p(x) for p, x in zip(self.projections, features, strict=True)]))


class Steps(nn.Module):
    """A fusion of sequences, given vectors, too: each is a sequence of one step."""

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        features = check_tensors(features, like=next(self.parameters()), normed=True)
        return finite(self.fusion([x if x.dim() > 2 else x.unsqueeze(1) for x in features]))


class EarlyGRU(nn.Module):
    """Sequences concatenated step by step, and the last state of a GRU over them."""

    def __init__(self, input_dims: Sequence[int], dim: int) -> None:
        super().__init__()
        self.input_dims = tuple(input_dims)
        self.fusion = common.ConcatEarly()
        self.gru = nn.GRU(sum(input_dims), dim, batch_first=True)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        features = without_absent(self, features, self.input_dims)
        return finite(self.gru(self.fusion(features))[1][-1])


class Encoded(nn.Module):
    """The concatenation of each modality's own encoding, whatever its length."""

    def __init__(self, encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        features = check_tensors(features, like=next(self.parameters()), normed=True)
        if len(features) != len(self.encoders):
            raise ValueError(
                f"features must be a list of {len(self.encoders)} tensors, one for each encoder, "
                f"got {len(features)}"
            )
        if len({len(x) for x in features}) > 1:
            raise ValueError(f"features must have one batch size, got {[len(x) for x in features]}")
        return finite(torch.cat([e(x) for e, x in zip(self.encoders, features, strict=True)], 1))


def deq(input_dims: Sequence[int], dim: int, **options: Any) -> Sized:
    """DEQ fusion, silent about convergence: a comparison's table has it.

    An option "equations.gate" is that field of the `equations` given, so that one can be changed,
    and named on a command line, whichever the others are.
    """
    options = {"dim": dim, "on_failure": "ignore", **options}
    prefix = "equations."
    changes = {name: options.pop(name) for name in list(options) if name.startswith(prefix)}
    if changes:
        changes = {name.removeprefix(prefix): value for name, value in changes.items()}
        equations = options.get("equations", "scale_free")
        options["equations"] = Equations.like(equations, **changes)
    fusion = DEQFusion(input_dims, **options)
    return fusion, fusion.dim


def concat(input_dims: Sequence[int], dim: int) -> Sized:
    """Concatenation; its width is the sum of the modalities'."""
    return Checked(input_dims, common.Concat()), sum(input_dims)


def concat_linear(input_dims: Sequence[int], dim: int) -> Sized:
    """Concatenation and a linear map."""
    return Checked(input_dims, common.ConcatWithLinear(sum(input_dims), dim)), dim


def film(input_dims: Sequence[int], dim: int) -> Sized:
    """FiLM: linear maps of the second modality scale and shift the first."""
    base, other = input_dims
    fusion = common.FiLM(nn.Linear(other, base), nn.Linear(other, base))
    return Checked(input_dims, fusion), base


def interactions(input_dims: Sequence[int], dim: int, output: str = "matrix") -> Sized:
    """Multiplicative interactions of two modalities."""
    width = dim if output == "matrix" else input_dims[1]
    fusion = common.MultiplicativeInteractions2Modal(input_dims, dim, output)
    return Checked(input_dims, fusion), width


def tensor_fusion(input_dims: Sequence[int], dim: int) -> Sized:
    """The outer product of all, each with a one in front."""
    return common.TensorFusion(), prod(d + 1 for d in input_dims)


def nl_gate(input_dims: Sequence[int], dim: int, positions: int = 4) -> Sized:
    """The non-local gate, with linear maps to `positions` positions."""
    checks.check_groups("positions", positions, dim)
    query, key = ((d, dim) for d in input_dims)
    fusion = common.NLgate(positions, dim // positions, positions, query, key, key)
    return Checked(input_dims, fusion), dim


def early_transformer(input_dims: Sequence[int], dim: int, *, outputs: int, task: str) -> Sized:
    """A Transformer over the stacked features that predicts one number."""
    if outputs != 1:
        raise ValueError(f"EarlyFusionTransformer predicts one number, got outputs={outputs}")
    if len(set(input_dims)) > 1:
        raise ValueError(
            f"stacked modalities must have one width, got {list(input_dims)}; encode them to one"
        )
    fusion = nn.Sequential(common.Stack(), common.EarlyFusionTransformer(len(input_dims)))
    return Checked(input_dims, fusion, normed=True), None


def late_transformer(input_dims: Sequence[int], dim: int, embed_dim: int = 9) -> Sized:
    """A Transformer for each modality over its own numbers."""
    encoders = [common.LateFusionTransformer(embed_dim) for _ in input_dims]
    return Encoded(encoders), embed_dim * len(encoders)


def mult(input_dims: Sequence[int], dim: int, **options: Any) -> Sized:
    """The multimodal Transformer; options are its hyperparameters."""
    hyper = MULTModel.DefaultHyperParams()
    chosen = {"embed_dim": 16, "num_heads": 4, "layers": 1, "output_dim": dim} | options
    for name, value in chosen.items():
        if not hasattr(hyper, name):
            raise TypeError(f"MULTModel has no hyperparameter {name!r}")
        setattr(hyper, name, value)
    return Steps(MULTModel(len(input_dims), list(input_dims), hyper)), hyper.output_dim


def evidential(
    input_dims: Sequence[int], dim: int, *, outputs: int, task: str, **options: Any
) -> Sized:
    """The evidential combination of each modality's opinion."""
    return EvidentialFusion(input_dims, outputs, **options), None


def vcdn(input_dims: Sequence[int], dim: int, *, outputs: int, task: str, **options: Any) -> Sized:
    """A network on the product of each modality's class probabilities."""
    return VCDNFusion(input_dims, outputs, **options), None


def late(input_dims: Sequence[int], dim: int, *, outputs: int, task: str) -> Sized:
    """The mean of each modality's prediction."""
    return LateFusion(input_dims, outputs, probabilities=task == "classification"), None


def late_unimodal(
    input_dims: Sequence[int], dim: int, *, outputs: int, task: str, **options: Any
) -> Sized:
    """The mean of each modality's outputs, each trained by a loss of its own."""
    criteria = {"classification": "cross_entropy", "multilabel": "binary_cross_entropy"}
    options = {"criterion": criteria.get(task, "squared"), **options}
    return LateUnimodal(input_dims, outputs, **options), None


def qmf(input_dims: Sequence[int], dim: int, *, outputs: int, task: str, **options: Any) -> Sized:
    """Each modality's logits, weighted by their energy."""
    return QMF(input_dims, outputs, **options), None


def pdf(input_dims: Sequence[int], dim: int, *, outputs: int, task: str, **options: Any) -> Sized:
    """Each modality's logits, weighted by predicted confidences."""
    return PDF(input_dims, outputs, **options), None


def meq(input_dims: Sequence[int], dim: int, **options: Any) -> Sized:
    """MEQ, silent about convergence: a comparison's table has it."""
    return MEQ(input_dims, dim, **{"on_failure": "ignore", **options}), dim
