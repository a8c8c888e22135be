"""Second computations of what random fusions return: in float64, and by the written equations."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from deq_fusion.fusions.deq import DEQFusion
from unit_tests.fusions.deq_reference import DIM, GROUPS, Equations, Reference


def like_double(tried: Any) -> tuple[str, str]:
    """Compares with the same fusion in float64.

    What cancels on paper, as a bias before a norm, is rounding. It may be ten times as large as the
    difference that a rounding more, of features and parameters, makes.
    """
    sharp = tried.autocast is None and tried.dtype in (torch.float32, torch.float64)
    if not sharp or not tried.plain:
        return "finite", ""
    wide = tried.wide()
    floor = 1e-3 * max((float(g.abs().max()) for n, g in wide.items() if n != "fused"), default=0)
    for name, got in {"fused": tried.fused, **tried.grads}.items():
        gap = _gap(got, wide[name], 0 if name == "fused" else floor)
        if not gap < 1e-2 and not _rounding(tried, name) > (got - wide[name]).norm() / 10:
            return "wrong", f"{name} differs from float64 by {gap:.1e}"
    return "agrees", ""


def _rounding(tried: Any, name: str) -> float:
    """Returns the largest change of a result over eight roundings of all that it depends on."""
    results = [tried.rounded(seed)[name].double() for seed in range(8)]
    return max(float((x - results[0]).norm()) for x in results)


def may_be_infinite(tried: Any, name: str) -> bool:
    """Whether a gradient may hold infinities where it does.

    It may only if the true one, in float64 and of the same cotangent, has an entry beyond the
    largest number of its dtype. There are these excuses, and no margins:

    - Fusions of torch's own layers: it is an operation of torch that leaves the range, see
      `overflows_in_torch`, or its fused attention.
    - DEQ fusion computes half precision in float32. Where rounding decides which state it is the
      gradient of, the last cast alone may leave the range: a solve has not converged, products
      are half under autocast, or what is injected raw has a scale, with which rounding grows.
    - Parameters damaged on purpose: those that are not finite promise nothing; and a zero hides
      an infinity (0 inf is NaN) that is the true gradient of another parameter or feature.
    """
    if not all(bool(x.isfinite().all()) for x in tried.before.parameters()):
        return True
    # float64 has nothing wider: a cotangent scaled down leaves it exponents to spare
    scale = 2.0**-400 if tried.dtype == torch.float64 else 1.0
    true = tried.wide(scale)
    beyond = {
        n: bool((true[n].abs() > torch.finfo(g.dtype).max * scale).any())
        for n, g in tried.grads.items()
    }
    if beyond[name] and not tried.grads[name].isnan().any():
        return True
    if tried.deq:
        if tried.damaged and any(beyond.values()):
            return True
        raw = tried.fusion.equations.injection == "raw"
        decided = tried.autocast is None and tried.solved and not raw
        return not decided and overflows_in_torch(tried.loss(), "ToCopyBackward0")
    return overflows_in_torch(tried.loss()) or _attends_too_far(tried)


def _attends_too_far(tried: Any) -> bool:
    """Whether torch's fused attention alone is at fault: the same by its formula is finite.

    Backward it takes the exponent of a logit less the rounded logarithm of their sum, which is
    infinite for logits from about 10^9 on, in float32.
    """
    with sdpa_kernel(SDPBackend.MATH):
        loss = tried.loss()
        grads = torch.autograd.grad(loss, _walked(loss), allow_unused=True)
    return _finite(grads)


def overflows_in_torch(loss: Tensor, only: str | None = None) -> bool:
    """Whether what is not finite in the gradients of `loss` comes from torch's ranges alone.

    What an operation hands on is linear in the cotangents that it is given. So wherever one makes
    of finite cotangents such as are not, it is given the same ones scaled down by a power of two.
    If what it makes of these is finite, nothing but its range is at fault; what comes of an
    infinity, or NaN, kept from the forward pass is not finite at any scale. With `only` it is to be
    in operations of this name.
    """
    verdicts: list[bool] = []

    def watch(node: Any) -> None:
        def look(handed_on: tuple[Tensor | None, ...], given: tuple[Tensor | None, ...]) -> None:
            if _finite(given) and not _finite(handed_on):
                named = only in (None, node.name())
                verdicts.append(named and _is_finite_for_less(node, given))

        node.register_hook(look)

    leaves = _walked(loss, watch)
    torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return all(verdicts) and (bool(verdicts) or only is None)  # none: a sum of two left the range


def _walked(loss: Tensor, visit: Callable[[Any], None] = lambda node: None) -> list[Tensor]:
    """Visits all operations that `loss` comes from, and returns the leaves."""
    nodes, known, leaves = [loss.grad_fn], set(), []
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        else:
            visit(node)
        nodes += [further for further, _ in node.next_functions]
    return leaves


def _is_finite_for_less(node: Any, given: Sequence[Tensor | None]) -> bool:
    if not callable(node):  # an operation of our own
        return False
    less = node(*(g if g is None else g * _small(g) for g in given))
    return _finite(less if isinstance(less, tuple) else (less,))


def _small(g: Tensor) -> float:
    """Returns a power of two that makes a cotangent small, so that there is room above it."""
    exponent = math.frexp(float(g.abs().max()))[1] if g.numel() else 0
    return 2.0 ** -(max(exponent, 0) + (16 if g.dtype == torch.float16 else 64))


def _finite(cotangents: Sequence[Tensor | None]) -> bool:
    return all(g is None or bool(g.isfinite().all()) for g in cotangents)


def _gap(got: Tensor, want: Tensor, floor: float = 0) -> float:
    """Returns the relative distance, over the entries that the dtype of `got` can hold.

    Args:
        floor: what is below this is rounding, of what cancels on paper.
    """
    got, want = got.detach(), want.detach()
    held = want.abs() < torch.finfo(got.dtype).max / 8
    got, want = got.double()[held], want[held]
    size = max(float(want.abs().max()), floor) if want.numel() else 0
    if size < 1e-300:
        return float((got - want).abs().sum())
    return float((got / size - want / size).norm() / max((want / size).norm(), floor / size))


def by_the_equations(tried: Any, fusion: DEQFusion) -> tuple[str, str]:
    """Compares with the equations written a second time, where these contract."""
    if not _comparable(tried, fusion):
        return "finite", ""
    copied = copy.deepcopy(fusion).double()
    if copied.bias is not None:  # a gradient for each entry it is added to, see below
        copied.bias = nn.Parameter(copied.bias.detach().repeat(DIM))
    reference = Reference(copied, _equations(fusion))
    rows = [x.detach().reshape(-1, x.shape[-1]).double() for x in tried.features]
    present = tried.options.get("present")
    if present is None:
        present = torch.ones(tried.features[0].shape[:-1] + (len(rows),), dtype=torch.bool)
    pairs = (tried.fused, tried.cotangent)
    fused, cotangent = (x.detach().reshape(-1, DIM).double() for x in pairs)
    exact = _exact(tried, fusion)
    total: dict[str, Tensor] = {}
    terms = 0.0
    for k, here in enumerate(present.reshape(-1, len(rows)).tolist()):
        sample = [
            x[k : k + 1].clone().requires_grad_() if h else None
            for x, h in zip(rows, here, strict=True)
        ]
        try:
            want, grads = _of_one_sample(reference, sample, cotangent[k : k + 1])
        except AssertionError:  # the map does not contract, and what is right is not known
            return "finite", ""
        gap = _gap(fused[k : k + 1].to(tried.dtype), want)
        if not gap < 1e-3:
            return "wrong", f"sample {k} differs from the equations by {gap:.1e}"
        for name, grad in grads.items():
            if not name.startswith("features"):
                terms += float(grad.abs().sum()) if name == "bias" else 0
                total[name] = total.get(name, 0) + (grad.sum() if name == "bias" else grad)
            elif exact and name in tried.grads:
                got = tried.grads[name].reshape(-1, grad.shape[-1])[k : k + 1]
                given = float(sample[int(name[9:-1])].detach().abs().max())
                floor = 1e-3 * float(cotangent.abs().max()) / given
                gap = _gap(got, grad, max(floor, 1e4 * torch.finfo(got.dtype).tiny))
                if not gap < 2e-2:
                    return "wrong", f"{name} of sample {k}: gradient differs by {gap:.1e}"
    floor = 1e-3 * max((float(g.abs().max()) for g in total.values()), default=0)  # no sample
    for name, grad in total.items():
        if exact and name in tried.grads:
            # the scalar's terms cancel in a norm, which takes the mean away: of them it is rounding
            least = max(floor, 1e-3 * terms) if name == "bias" else floor
            gap = _gap(tried.grads[name], grad, least)
            if not gap < 2e-2:
                return "wrong", f"{name}: gradient differs by {gap:.1e}"
    return "agrees", ""


def _comparable(tried: Any, fusion: DEQFusion) -> bool:
    if fusion.dim != DIM or tried.autocast or tried.dtype not in (torch.float32, torch.float64):
        return False
    if tried.damaged or (fusion.training and fusion.dropout):
        return False
    if fusion.unimodal is not None and fusion.unimodal.groups != GROUPS:
        return False
    if fusion.fuse is not None and fusion.fuse.groups not in (1, GROUPS):
        return False
    if fusion.info is not None:
        if fusion.unimodal is not None and fusion.unimodal.residual:
            return False  # a state that feeds itself has several equilibria
        if fusion.equilibrium.tol > 1e-6 or not fusion.info.converged.all():
            return False
    size = [x.detach().double().abs().amax(-1) for x in tried.features]
    usual = all(((s > 1e-100) & (s < 1e100)).all() for s in size)
    if fusion.equations.injection == "raw":  # it has a scale, with which rounding grows
        usual = all(((s > 1e-3) & (s < 1e3)).all() for s in size)
    return usual


def _exact(tried: Any, fusion: DEQFusion) -> bool:
    """Whether the gradients are to be those of the equations."""
    if tried.penalised is not None and tried.penalised.detach() != 0:
        return False
    if fusion.info is None:
        return True
    settings = fusion.equilibrium
    tol = settings.tol if settings.backward_tol is None else settings.backward_tol
    solved = all(stats.converged.all() for stats in fusion.info.backward.values())
    return settings.gradient == "exact" and tol <= 1e-6 and solved


def _equations(fusion: DEQFusion) -> Equations:
    return Equations(
        scale_free=fusion.equations.injection == "scale_free",
        one_layer=fusion.unimodal is not None and fusion.unimodal.kind == "one_layer",
        residual=fusion.unimodal is not None and fusion.unimodal.residual,
        relu_last=fusion.fuse is not None and fusion.fuse.norm_order == "norm_relu",
        one_fuse_group=fusion.fuse is not None and fusion.fuse.groups == 1,
        weights=fusion.weights is not None or fusion.fuse is None,
        bias=fusion.bias is not None,
    )


def _of_one_sample(
    reference: Reference, sample: Sequence[Tensor | None], cotangent: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns what is fused of one sample, and the gradients of all that it depends on."""
    fusion = reference.fusion
    if fusion.unroll is not None:
        states = fusion.equations.unroll_injection == "states"
        end = reference.unrolled(fusion.unroll, sample, inject_states=states)
        u = cotangent
    else:
        state = reference.fixed_point(sample)
        g = torch.zeros_like(state)
        g[:, -1] = cotangent
        jacobian = torch.autograd.functional.jacobian(
            lambda s: reference.step(s.view_as(state), sample).flatten(),
            state.flatten(),
            vectorize=True,
        )
        matrix = torch.eye(state.numel()).to(state) - jacobian
        u = torch.linalg.solve(matrix.T, g.flatten()).view_as(state)
        end = reference.step(state, sample)
    leaves = {f"features[{i}]": x for i, x in enumerate(sample) if x is not None}
    leaves |= dict(fusion.named_parameters())
    grads = torch.autograd.grad(end, list(leaves.values()), u, allow_unused=True)
    found = {name: g for name, g in zip(leaves, grads, strict=True) if g is not None}
    return (end if end.ndim == 2 else end[:, -1]).detach(), found
