"""Draws for `fuzz.fusions`: a fusion, features, and what to compare the result with."""

import copy
import math
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from deq_fusion.fusions.deq import PRESETS, DEQFusion
from deq_fusion.fusions.registry import FUSIONS
from unit_tests.fusions.deq_reference import DIM, GROUPS, arguments
from unit_tests.fuzz.fusion_truths import by_the_equations, like_double, may_be_infinite

Wide = dict[str, Tensor]
Check = Callable[[], tuple[str, str]]  # () -> (kind of outcome, detail)
DTYPES = (torch.float32, torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
NAN, INF = math.nan, math.inf
ODD = (INF, -INF, NAN, -1, 0, True, "x", "False", None, 2.5, 10**12, [], (), {}, b"ab", object())
ODD += (lambda: 3, torch.tensor(3), [[4]], 1 + 2j, -1e-300, 1e300)
OPTIONS: dict[str, Sequence[Any]] = {
    "injection": ("scale_free", "raw"),
    "residual": (False, True),
    "norm_order": ("relu_norm", "norm_relu"),
    "groups": (1, None, GROUPS, GROUPS),
    "fuse_groups": (None, None, 1),
    "fuse_weights": (True, False),
    "fuse_bias": (False, True),
    "dropout": (0.0, 0.0, 0.3),
    "start": (0.0, 0.03, 0.03, "contractive", "released", 1.0, 30.0),
    "f_theta": (True, True, False),
    "f_fuse": (True, True, False),
    "gate": (True, True, False),
    "unroll": (None, None, 1, 3),
    "unroll_injection": ("features", "states"),
    "joint": (False, True),
    "solver": ("anderson", "broyden", "picard"),
    "tol": (1e-3, 1e-6, 0.0),
    "max_steps": (1, 5, 40, 100),
    "backward_tol": (None, 1e-6),
    "backward_max_steps": (None, 1, 100),
    "gradient": ("exact", "exact", "one_step", "neumann"),
    "neumann_terms": (1, 3),
    "neumann_damping": (0.5, 1.0),
    "jacobian_weight": (0.0, 0.0, 1.0, 20.0),
    "jacobian_blocks": ("diagonal", "joint"),
    "jacobian_probes": (1, 2),
    "jacobian_every": (1, 2),
    "on_failure": ("warn", "raise", "ignore"),
}
EQUAL = {
    "tol": 1e-6,
    "max_steps": 300,
    "backward_tol": None,
    "groups": GROUPS,
}  # what a comparison needs to be sharp


def deq_draw(rng: random.Random) -> Check:
    """Returns a draw of DEQ fusion, still to be built."""
    widths = [rng.choice((1, 3, 5, DIM, DIM, 40)) for _ in range(rng.choice((1, 2, 2, 3, 5)))]
    options = {
        name: rng.choice(values)
        for name, values in OPTIONS.items()
        if rng.random() < 0.3 or name == "groups"
    }
    if rng.random() < 0.15:
        options["cell"], options["residual"] = "one_layer", rng.random() < 0.1
    drawn: dict[str, Any] = {"input_dims": widths, "dim": DIM, **options}
    if rng.random() < 0.15:
        drawn["dim"] = rng.choice((4, 10, 32, 7))
    elif rng.random() < 0.6:
        drawn |= EQUAL
        drawn["start"] = rng.choice((0.0, 0.03, 0.1))
    if rng.random() < 0.1:
        drawn[rng.choice(["input_dims", "dim", *OPTIONS])] = rng.choice(ODD)
    if "unroll" in options and rng.random() < 0.9:
        drawn["joint"] = False
    preset = rng.choice(5 * [None] + [*PRESETS])
    return lambda: _deq(rng, preset, drawn)


def _deq(rng: random.Random, preset: str | None, drawn: dict[str, Any]) -> tuple[str, str]:
    if preset is None:
        fusion = DEQFusion(**arguments(**drawn))
    else:
        fusion = DEQFusion.from_preset(preset, **arguments(preset, **drawn))
    damaged = rng.random() < 0.2
    if damaged:  # as training, or damage, may leave it
        with torch.no_grad():
            for parameter in fusion.parameters():
                parameter.mul_(rng.choice((1,) * 20 + (0, -1, 10, 1e10, NAN)))
    tried = Tried(rng, fusion, fusion.input_dims, masks=True)
    tried.damaged = damaged
    if rng.random() < 0.1:
        tried.options["observe"] = lambda step: None
    failure = tried.run()
    if failure:
        return failure
    record = fusion.info
    if (record is None) != (fusion.unroll is not None):
        return "wrong", "info is there, or is not"
    return by_the_equations(tried, fusion)


def registry_draw(rng: random.Random) -> tuple[str, Check]:
    """Returns the name of another fusion that is registered, and its draw."""
    name = rng.choice([name for name in FUSIONS if not name.startswith("deq")])
    entry = FUSIONS[name]
    least, most = entry.modalities
    count = most or rng.randint(least, 4)
    widths = [rng.choice((1, 4, 9))] * count
    if name != "early_transformer" and rng.random() < 0.5:
        widths = [rng.choice((1, 4, 9, 20)) for _ in widths]
    options = {k: rng.choice(values) for k, values in entry.search.items() if rng.random() < 0.5}
    outputs = 1 if name == "early_transformer" else rng.choice((2, 3))
    if entry.predicts:
        options |= {"outputs": outputs, "task": rng.choice(entry.tasks)}
    dim: Any = rng.choice((4, 8, 16))
    if rng.random() < 0.1:
        widths[0] = rng.choice(ODD)
    if rng.random() < 0.05:
        dim = rng.choice(ODD)

    def check() -> tuple[str, str]:
        fusion, _ = entry(widths, dim, **options)
        sequences = entry.features == ("sequences",)
        leading = (rng.choice((2, 5)), 3) if sequences else None
        tried = Tried(rng, fusion, widths, leading=leading, least=2, leads=1)
        return tried.run() or like_double(tried)

    return name, check


class Tried:
    """A fusion and the features it is given; `run` runs it forward and backward."""

    def __init__(
        self,
        rng: random.Random,
        fusion: nn.Module,
        widths: Sequence[int],
        *,
        masks: bool = False,
        leading: tuple[int, ...] | None = None,
        least: int = 0,
        leads: int = 3,
    ) -> None:
        self.rng, self.fusion, self.options = rng, fusion, {}
        self.dtype = rng.choice(DTYPES)
        fusion.to(self.dtype).train(rng.random() < 0.6)
        self.autocast = rng.choice((None,) * 6 + (torch.bfloat16, torch.float16))
        if leading is None:
            batch = rng.choice((2, 3, 5)) if least > 1 else rng.choice((1, 2, 3, 3, 4))
            further = [rng.choice((1, 2)) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
            leading = (batch, *further)[:leads]
            if rng.random() < 0.03:
                leading = (0, *leading[1:])
        self.plain = True  # no feature is out of the ordinary
        self.features = [self._drawn(leading, width) for width in widths]
        if rng.random() < 0.07:
            self._spoil()
        if masks and rng.random() < 0.3:
            present = torch.rand(*leading, len(widths)) < 0.6
            if rng.random() < 0.9 and present.numel():
                present[..., 0] |= ~present.any(-1)
            self.options["present"] = present
            if rng.random() < 0.1:
                odd = (present.float(), present[..., :1], [True], present.to("meta"))
                self.options["present"] = rng.choice(odd)

    def _drawn(self, leading: Sequence[int], width: int) -> Tensor:
        rng, limits = self.rng, torch.finfo(self.dtype)
        dtype = self.dtype
        if rng.random() < (0.5 if self.autocast else 0.01):
            dtype = rng.choice(DTYPES)
        x = torch.randn(*leading, width, dtype=torch.float64)
        kind = rng.choice(("normal",) * 8 + ("scaled", "rows", "tiny", "zero", "constant", "huge"))
        self.plain &= kind == "normal"
        if kind == "scaled":
            x *= 10 ** rng.uniform(math.log10(limits.tiny), math.log10(limits.max))
        elif kind == "rows":
            low, high = math.log10(limits.tiny), math.log10(limits.max)
            x *= 10 ** torch.empty(*leading, 1, dtype=torch.float64).uniform_(low, high)
        elif kind == "tiny":
            x *= limits.tiny * 10 ** -rng.uniform(0, 3)
        elif kind == "zero":
            x *= 0
        elif kind == "constant":
            x = torch.full_like(x, rng.choice((1.0, -3.0, limits.tiny, limits.max)))
        elif kind == "huge":
            x = x.sign() * limits.max
        if rng.random() < 0.97:  # within the range of its dtype
            x = x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
        return x.to(dtype).requires_grad_(rng.random() < 0.8)

    def _spoil(self) -> None:
        rng, features = self.rng, self.features
        i = rng.randrange(len(features))
        x = features[i].detach()
        if not x.numel():
            return
        damaged = x.clone()
        damaged.view(-1)[rng.randrange(x.numel())] = rng.choice((NAN, INF))
        others = [None, x.tolist(), "features", x.float().numpy(), x.long(), x.to(torch.complex64)]
        others += [x.mT, x[..., :0], x[:1], x[0], x.sum(), x.to("meta"), x.to_sparse()]
        features[i] = rng.choice(others + 4 * [damaged])
        if rng.random() < 0.2:
            others = [features[1:], x, None, dict(enumerate(features)), iter(features)]
            self.features = rng.choice(others)

    def run(self) -> tuple[str, str] | None:
        """Returns what is at fault, if anything is."""
        self.before, self.state = copy.deepcopy(self.fusion), torch.get_rng_state()
        self.fused = self._fuse(self.fusion)
        if not self.fused.isfinite().all():
            return "silent", "what is fused is not finite"
        self.cotangent = torch.randn_like(self.fused) * self.rng.choice((1, 1, 1, 1e-6, 0))
        self.penalised = getattr(self.fusion, "auxiliary_loss", None)
        if self.penalised is not None and not self.penalised.isfinite():
            return "silent", "the auxiliary loss is not finite"
        loss = self._loss(self.fusion, self.fused)
        leaves = {
            name: x
            for name, x in self._leaves(self.fusion, self.features).items()
            if x.requires_grad
        }
        self.grads = {}
        if not leaves or not loss.requires_grad:
            return None
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        self.grads = {n: g for n, g in zip(leaves, grads, strict=True) if g is not None}
        for name, g in self.grads.items():
            if not g.isfinite().all() and not may_be_infinite(self, name):
                return "silent", f"the gradient of {name} is not finite"
        return None

    def _fuse(self, fusion: nn.Module) -> Tensor:
        with ExitStack() as stack:
            if self.autocast is not None:
                stack.enter_context(torch.autocast("cpu", dtype=self.autocast))
            return fusion(self.features, **self.options)

    def _loss(self, fusion: nn.Module, fused: Tensor, scale: float = 1.0) -> Tensor:
        """Returns the loss, in float64: no sum of it is to leave the range of half precision."""
        loss = (fused.double() * self.cotangent.double() * scale).sum()
        return loss + scale * getattr(fusion, "auxiliary_loss", torch.zeros(())).double()

    def _leaves(self, fusion: nn.Module, features: Sequence[Tensor]) -> dict[str, Tensor]:
        named = {f"features[{i}]": x for i, x in enumerate(features)}
        return named | dict(fusion.named_parameters())

    @property
    def deq(self) -> bool:
        """Whether it is a DEQ fusion."""
        return isinstance(self.fusion, DEQFusion)

    @property
    def solved(self) -> bool:
        """Whether every solve of a DEQ fusion, of its backward as well, has converged."""
        record = self.fusion.info
        solves = [] if record is None else [*record.forward.values(), *record.backward.values()]
        return all(bool(stats.converged.all()) for stats in solves)

    def loss(self) -> Tensor:
        """Returns the loss once more, of a copy, with its graph."""
        torch.set_rng_state(self.state)
        fusion = copy.deepcopy(self.before)
        return self._loss(fusion, self._fuse(fusion))

    def wide(self, scale: float = 1.0) -> Wide:
        """Returns what is fused, and the gradients, of a copy in float64 with the same chances.

        Args:
            scale: of the cotangent and so of the gradients, with which they stay in range.
        """
        copied = copy.deepcopy(self.before).double()
        return self._results(copied, [x.double() for x in self.features], scale)

    def rounded(self, seed: int) -> Wide:
        """Returns the same in the dtype tried, of features and parameters rounded once more."""
        copied, generator = copy.deepcopy(self.before), torch.Generator().manual_seed(seed)

        def shaken(x: Tensor) -> Tensor:
            signs = torch.randint(-1, 2, x.shape, generator=generator)
            return x.detach() * (1 + torch.finfo(x.dtype).eps * signs)

        for parameter in copied.parameters():
            parameter.data = shaken(parameter)
        return self._results(copied, [shaken(x) for x in self.features])

    def _results(self, copied: nn.Module, features: Sequence[Tensor], scale: float = 1.0) -> Wide:
        pairs = zip(features, self.features, strict=True)
        features = [x.detach().requires_grad_(tried.requires_grad) for x, tried in pairs]
        torch.set_rng_state(self.state)
        with mock.patch("torch.randn_like", self._probe):  # dropout draws alike in all dtypes
            fused = copied(features, **self.options)
        leaves = self._leaves(copied, features)
        kept = [leaves[name] for name in self.grads]
        grads = torch.autograd.grad(self._loss(copied, fused, scale), kept) if kept else ()
        return {"fused": fused.detach(), **dict(zip(self.grads, grads, strict=True))}

    def _probe(self, x: Tensor, **_: Any) -> Tensor:
        """Draws as the fusion tried does, which computes in float32 at least."""
        return torch.randn(x.shape, dtype=torch.promote_types(self.dtype, torch.float32)).to(x)
