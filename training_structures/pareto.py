"""MMPareto (Wei and Hu, 2024, arXiv:2405.17730): unimodal losses that help an encoder, or wait.

An encoder learns from the loss of all modalities, by g, and from that of its own one, by u. Where
they agree, g . u >= 0, it follows their sum. Where they do not, the convex combination of least
norm, w g + (1 - w) u, has no negative product with either; it is taken twice, made as long as
the sum if it is shorter, and either is then lengthened by gamma:

    gamma l 2 (w g + (1 - w) u),   l = max(1, |g + u| / |2 (w g + (1 - w) u)|)

with w = 1/2 where they agree. g and u are of all parameters of the encoder; the authors' release
decides w by these, too, but l tensor by tensor.

As the result is linear in g and u, it is there once the gradients that reach the encoder's output
are weighted so: `meeting` does that, in a single backward of the rest of the network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SHORT = 1e-6  # of the lengths of g and u: a combination below is rounding, and is not lengthened


def weights(joint: Sequence[Tensor], own: Sequence[Tensor], gamma: float) -> tuple[Tensor, Tensor]:
    """Returns what the two gradients of an encoder are multiplied with, scalars, before their sum.

    Args:
        joint: g, a tensor a parameter.
        own: u, likewise.
        gamma: by which the result is lengthened, positive.
    """
    gg, uu, gu = (_product(a, b) for a, b in ((joint, joint), (own, own), (joint, own)))
    least = (uu - gu) / (gg + uu - 2 * gu)
    w = torch.where(gu < 0, least, torch.full_like(gu, 0.5))
    length = 2 * (w**2 * gg + (1 - w) ** 2 * uu + 2 * w * (1 - w) * gu).clamp_min(0).sqrt()
    whole = (gg + uu + 2 * gu).clamp_min(0).sqrt()
    shorter = (length < whole) & (length > SHORT * (gg.sqrt() + uu.sqrt()))
    scale = 2 * gamma * torch.where(shorter, whole / length, torch.ones_like(length))
    return scale * w, scale * (1 - w)


def _product(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def meeting(
    feature: Tensor, parameters: Sequence[nn.Parameter], gamma: float = 1.5
) -> tuple[Tensor, Tensor]:
    """Returns a feature twice: for what joins it with others, and for its own head.

    In the backward the gradients of both come together here, and go on to the encoder weighted,
    see above. For that the encoder's part of the graph is gone through twice more.

    Args:
        feature: the encoder's output, any shape.
        parameters: those that it was computed from, see `gradient_modulation.parameters_behind`.
        gamma: by which the encoder's gradient is lengthened; 1.5 in the authors' release.
    """
    if not parameters:
        return feature, feature
    return _Meeting.apply(feature, parameters, gamma)


class _Meeting(torch.autograd.Function):
    """The place at which two gradients of a feature become one."""

    @staticmethod
    def forward(ctx, feature, parameters, gamma):
        ctx.save_for_backward(feature)  # with the graph behind it
        ctx.parameters, ctx.gamma = parameters, gamma
        ctx.set_materialize_grads(False)
        return feature.clone(), feature.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, joint, own):
        if joint is None or own is None:
            return own if joint is None else joint, None, None
        (feature,) = ctx.saved_tensors
        of_encoder = [
            torch.autograd.grad(feature, ctx.parameters, gradient, retain_graph=True)
            for gradient in (joint, own)
        ]
        a, b = weights(*of_encoder, ctx.gamma)
        return a.to(joint) * joint + b.to(own) * own, None, None
