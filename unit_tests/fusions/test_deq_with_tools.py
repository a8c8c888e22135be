"""Ordinary PyTorch tools around DEQFusion: copies, parametrisations, frozen parts, scalers, modes.

Those that run a forward again or on another device: test_deq_rerun.py; those that trace it:
test_deq_traced.py.
"""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel

from deq_fusion.fusions.deq import DEQFusion

WIDTHS = (5, 7)
close = torch.testing.assert_close


def build(**options) -> DEQFusion:
    return DEQFusion(WIDTHS, 16, tol=1e-10, max_steps=200, **options).double()


def features(batch: int = 4) -> list[Tensor]:
    return [torch.randn(batch, w, dtype=torch.float64, requires_grad=True) for w in WIDTHS]


def gradients(fused: Tensor, sources) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(fused.shape, generator=generator, dtype=torch.float64).to(fused)
    return torch.autograd.grad(fused, list(sources), cotangent, retain_graph=True)


class Scaled(nn.Module):
    """exp(s) w / |w|, whose inverse is written out."""

    def forward(self, size: Tensor, direction: Tensor) -> Tensor:
        return size.exp() * direction / direction.norm()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.norm().log(), weight


@pytest.mark.parametrize("cell, name", [("unimodal", "weight1"), ("fuse", "weight")])
def test_parametrised_weights_are_those_of_the_map(cell, name):
    fusion, x = build(), features()
    want, weight = fusion(x), getattr(getattr(fusion, cell), name)
    (slope,) = gradients(want, [weight])
    parametrize.register_parametrization(getattr(fusion, cell), name, Scaled())
    got, own = fusion(x), getattr(fusion, cell).parametrizations[name]
    close(got, want)
    size, direction = gradients(got, [own.original0, own.original1])
    close(size, (slope * weight).sum())  # d w / d s = w
    along = (slope * weight).sum() * weight / weight.square().sum()
    close(direction, slope - along)  # at |direction| = |weight|


def test_spectral_and_weight_norm_train():
    fusion, x = build(), features()
    parametrizations.weight_norm(fusion.unimodal, "weight1")
    parametrizations.weight_norm(fusion.fuse, "gate_weight")
    parametrizations.spectral_norm(fusion.fuse, "weight", n_power_iterations=50)
    before = fusion.fuse.parametrizations.weight.original.clone()
    optimizer = torch.optim.SGD(fusion.parameters(), lr=0.1)
    (fusion(x) * torch.randn(4, 16)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())
    optimizer.step()
    fusion(x)
    assert not before.equal(fusion.fuse.parametrizations.weight.original)
    close(torch.linalg.matrix_norm(fusion.eval().fuse.weight, 2).item(), 1.0, rtol=1e-3, atol=0)


def test_functional_call_takes_other_parameters():
    fusion, other, x = build(), build(), features()
    parameters = {name: p.clone() for name, p in other.named_parameters()}
    got, want = functional_call(fusion, parameters, (x,)), other(x)
    close(got, want)
    close(gradients(got, parameters.values()), gradients(want, other.parameters()))


def test_averaged_models_are_fusions_of_the_mean():
    first, x = build(), features()
    average, second = AveragedModel(first), build()
    average.update_parameters(first)
    (first(x).sum() + first.auxiliary_loss).backward()  # what it leaves behind is not in the way
    average.update_parameters(second)
    mean = copy.deepcopy(first)
    with torch.no_grad():
        for p, a, b in zip(mean.parameters(), first.parameters(), second.parameters(), strict=True):
            p.copy_((a + b) / 2)
    close(average(x), mean(x))


def test_what_is_shared_learns_from_all_who_share_it():
    fusion, other = build(), build()
    other.unimodal = fusion.unimodal
    x, y, shared = features(), features(), list(fusion.unimodal.parameters())
    calls = fusion(x), fusion(y), other(x)
    want = [sum(parts) for parts in zip(*(gradients(z, shared) for z in calls), strict=True)]
    close(list(gradients(sum(calls), shared)), want)


def test_what_is_frozen_gets_no_gradient_and_no_solve():
    whole, x = build(), [z.detach() for z in features()]
    names, parameters = zip(*whole.named_parameters(), strict=True)
    want = dict(zip(names, gradients(whole(x), parameters), strict=True))
    part = copy.deepcopy(whole)
    part.unimodal.requires_grad_(False)
    part.projections.requires_grad_(False)
    cotangent = torch.randn(4, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    part(x).backward(cotangent)
    for name, p in part.named_parameters():
        if p.requires_grad:
            close(p.grad, want[name])
        else:
            assert p.grad is None, name
    assert list(part.info.backward) == ["z_fuse"]


def test_hooks_see_the_gradients():
    fusion, x, seen = build(), features(), {}
    fusion.unimodal.weight1.register_hook(lambda g: seen.setdefault("tensor", g))
    fusion.fuse.weight.register_post_accumulate_grad_hook(lambda p: seen.update(accumulated=p.grad))
    fusion.register_forward_hook(lambda m, args, result: seen.setdefault("forward", result))
    fused = fusion(x)
    cotangent = torch.randn_like(fused)
    fused.backward(cotangent)
    close(seen["tensor"], fusion.unimodal.weight1.grad)
    assert seen["accumulated"] is fusion.fuse.weight.grad
    torch.testing.assert_close(seen["forward"], fused, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"joint": True}, {"unroll": 3}], ids=str)
def test_inference_mode_gives_the_same(options):
    fusion, x = build(jacobian_weight=1.0, **options), features()
    with torch.inference_mode():
        got = fusion(x)
        fed = fusion([z.detach() * 1 for z in x])  # inference tensors
        assert fusion.auxiliary_loss == 0
    assert got.is_inference() and got.equal(fusion(x)) and fed.equal(got)


def test_made_in_inference_mode_it_can_be_used_there():
    with torch.inference_mode():
        fusion = build()
        assert fusion(features()).isfinite().all()


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("options", [{}, {"joint": True}], ids=str)
def test_anomaly_detection_finds_none(options):
    fusion, x = build(jacobian_weight=1.0, **options), features()
    want = gradients(fusion(x), x)
    with torch.autograd.set_detect_anomaly(True):
        fused = fusion(x)
        got = gradients(fused, x)
        fusion.auxiliary_loss.backward()
    close(got, want)


def test_the_layout_of_features_does_not_matter():
    fusion = build()
    base = torch.randn(4, 12, 3, dtype=torch.float64, requires_grad=True)
    parts = base[:, :5].mT, base[:, 5:].mT  # (4, 3, width), neither contiguous, of one memory
    want = fusion([x.contiguous() for x in parts])
    got = fusion(list(parts))
    close(got, want)
    close(gradients(got, [base]), gradients(want, [base]))
    overlapping = base.detach()[:, :8, 0]
    shared = [overlapping[:, :5], overlapping[:, 1:]]  # in part the same entries
    before = base.detach().clone()
    close(fusion(shared), fusion([x.clone() for x in shared]))
    row = torch.randn(1, 5, dtype=torch.float64).expand(4, 5)  # one row of memory
    close(fusion([row, shared[1]]), fusion([row.clone(), shared[1]]))
    torch.testing.assert_close(base, before, rtol=0, atol=0)


def test_one_tensor_may_be_two_modalities():
    fusion = DEQFusion([6, 6], 16, tol=1e-10, max_steps=200).double()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    copies = [x.detach().clone().requires_grad_() for _ in range(2)]
    got = gradients(fusion([x, x]), [x])[0]
    close(got, sum(gradients(fusion(copies), copies)))


def test_memory_formats_are_left_alone():
    fusion, x = build(), features()
    want = fusion(x)
    torch.testing.assert_close(
        fusion.to(memory_format=torch.channels_last)(x), want, rtol=0, atol=0
    )


def test_a_gradient_scaler_skips_a_step_that_overflows_and_takes_the_next():
    fusion, x = DEQFusion(WIDTHS, 16, jacobian_weight=0.1), [z.detach().float() for z in features()]
    other = copy.deepcopy(fusion)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-120)
    optimizer, plain = (torch.optim.SGD(f.parameters(), lr=0.1) for f in (fusion, other))
    cotangent = torch.randn(4, 16)

    def loss(f: DEQFusion) -> Tensor:
        torch.manual_seed(2)
        return 100 * ((f(x) * cotangent).sum() + f.auxiliary_loss)

    def step() -> None:
        optimizer.zero_grad()
        scaler.scale(loss(fusion)).backward()
        scaler.step(optimizer)
        scaler.update()

    step()
    torch.testing.assert_close([*fusion.parameters()], [*other.parameters()], rtol=0, atol=0)
    assert scaler.get_scale() == 2.0**7
    step()
    loss(other).backward()
    plain.step()
    close(list(fusion.parameters()), list(other.parameters()))
