"""EmbraceNet: what is drawn, how often, and what is expected of it."""

import pytest
import torch

from deq_fusion.fusions.embracenet import EmbraceNet

WIDTHS, DIM = [3, 5, 2], 4
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)


def make(dim=DIM):
    fusion = EmbraceNet(WIDTHS, dim)
    features = [torch.randn(4, width) for width in WIDTHS]
    docked = [
        (x @ dock.weight.T + dock.bias).clamp_min(0)
        for dock, x in zip(fusion.docking, features, strict=True)
    ]
    return fusion, features, torch.stack(docked, -1)  # (4, dim, N)


@pytest.mark.parametrize("present", [None, PRESENT])
def test_evaluation_is_the_mean_over_those_present(double, present):
    fusion, features, docked = make()
    for b in range(4):
        keep = [i for i in range(3) if present is None or present[b, i]]
        fused = fusion.eval()(features, present=present)
        torch.testing.assert_close(fused[b], sum(docked[b, :, i] for i in keep) / len(keep))


@pytest.mark.parametrize("present", [None, PRESENT])
def test_every_entry_is_drawn_from_a_modality_that_is_present(double, present):
    width = 3000
    fusion, features, docked = make(width)
    with torch.no_grad():
        for dock in fusion.docking:
            dock.bias.add_(9)  # so that no two modalities say 0
    docked = torch.stack(
        [x @ d.weight.T + d.bias for d, x in zip(fusion.docking, features, strict=True)], -1
    )
    fused = fusion(features, present=present)
    same = torch.isclose(fused.unsqueeze(-1), docked, rtol=1e-12, atol=0)  # (4, width, N)
    assert (same.sum(-1) == 1).all()
    shares = same.double().mean(1)
    here = torch.ones(4, 3) if present is None else present.double()
    expected = here / here.sum(1, keepdim=True)
    # five standard deviations of so many draws, and none where it is absent
    assert ((shares - expected).abs() <= 5 * (expected * (1 - expected) / width).sqrt()).all()


def test_samples_and_forwards_draw_anew():
    fusion, features, _ = make(64)
    same = [x[:1].expand(2, -1) for x in features]
    fused = fusion(same)
    assert not torch.equal(fused[0], fused[1]) and not torch.equal(fusion(same), fused)


def test_the_gradient_is_of_what_was_drawn(double):
    fusion, features, _ = make(64)
    with torch.no_grad():
        for dock in fusion.docking:
            dock.bias.add_(9)
    features = [x.requires_grad_() for x in features]
    torch.manual_seed(3)
    fused = fusion(features)
    cotangent = torch.randn_like(fused)
    fused.backward(cotangent)
    torch.manual_seed(3)
    again = fusion([x.detach() for x in features])
    for i, (dock, x) in enumerate(zip(fusion.docking, features, strict=True)):
        taken = torch.isclose(again, x.detach() @ dock.weight.T + dock.bias, rtol=1e-12, atol=0)
        torch.testing.assert_close(features[i].grad, (cotangent * taken) @ dock.weight)
