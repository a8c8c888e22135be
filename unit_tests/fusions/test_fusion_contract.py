"""What every fusion of projected features promises, whatever its formula."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch.func import functional_call

from deq_fusion.fusions.cross import CrossFusion
from deq_fusion.fusions.embracenet import EmbraceNet
from deq_fusion.fusions.evidential import EvidentialFusion
from deq_fusion.fusions.gated import GatedMultimodalUnit
from deq_fusion.fusions.late import LateFusion
from deq_fusion.fusions.late_unimodal import LateUnimodal
from deq_fusion.fusions.meq import MEQ
from deq_fusion.fusions.mutan import Mutan
from deq_fusion.fusions.pdf import PDF
from deq_fusion.fusions.qmf import QMF
from deq_fusion.fusions.simbamm import SimBaMM
from deq_fusion.fusions.token_attention import TokenAttention
from deq_fusion.fusions.vcdn import VCDNFusion
from deq_fusion.fusions.weighted_sum import Sum, WeightedSum

WIDTHS, DIM, BATCH = [3, 4, 5], 4, 6
SOLVED = {"tol": 1e-11, "max_steps": 60, "on_failure": "ignore"}  # as far as the dtype goes


def expected(*arguments):
    """EmbraceNet without its draws and its kinks, which no difference quotient could follow."""
    fusion = EmbraceNet(*arguments).eval()
    for dock in fusion.docking:
        torch.nn.init.constant_(dock.bias, 9.0)
    return fusion


MAKE = {
    "gated": GatedMultimodalUnit,
    "mutan": partial(Mutan, hidden=3, rank=2),
    "evidential": EvidentialFusion,
    "cross": CrossFusion,
    "token_attention": partial(TokenAttention, heads=2),
    "sum": Sum,
    "weighted_sum": WeightedSum,
    "late": LateFusion,
    "late_mean": partial(LateFusion, probabilities=False),
    "vcdn": VCDNFusion,
    "simbamm": partial(SimBaMM, heads=2, layers=2, dropout=0.0),
    "late_unimodal": LateUnimodal,
    "late_unimodal_squared": partial(LateUnimodal, criterion="squared"),
    "qmf": QMF,
    "pdf": partial(PDF, hidden=3),
    "embracenet": expected,
    "meq": partial(MEQ, **SOLVED),
    "meq_unrolled": partial(MEQ, unroll=3),
}
CONSTANT = {"pdf"}  # some of what the result depends on is a constant to the gradient
MASKED = [name for name in MAKE if name not in {"mutan", "cross"}]
every = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
masked = pytest.mark.parametrize("make", [MAKE[name] for name in MASKED], ids=MASKED)


def smooth(names):
    """Parametrizes by the fusions of these names whose gradient is that of their result."""
    names = [name for name in names if name not in CONSTANT]
    return pytest.mark.parametrize("make", [MAKE[name] for name in names], ids=names)


def features_of(widths=WIDTHS, leading=(BATCH,), **options):
    return [torch.randn(*leading, width, **options) for width in widths]


def gradcheck(fusion, features, **options):
    """Compares the gradients of inputs and parameters with differences, on a cotangent."""
    names, values = zip(*fusion.named_parameters(), strict=True)
    cotangent = torch.randn_like(fusion(features, **options))

    def projected(*arguments):
        state = dict(zip(names, arguments[len(features) :], strict=True))
        out = functional_call(fusion, state, (list(arguments[: len(features)]),), options)
        return (out * cotangent).sum()

    inputs = [x.detach().requires_grad_() for x in (*features, *values)]
    return torch.autograd.gradcheck(projected, inputs, fast_mode=True)


@smooth(MAKE)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_gradients_are_those_of_the_formula(double, make, count):
    fusion = make(WIDTHS[:count], DIM)
    assert gradcheck(fusion, features_of(WIDTHS[:count]))
    assert gradcheck(fusion.eval(), features_of(WIDTHS[:count], (2, 3)))


@smooth(MASKED)
def test_gradients_are_those_of_the_formula_without_absent_modalities(double, make):
    present = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    assert gradcheck(make(WIDTHS, DIM), features_of(leading=(3,)), present=present)


@every
def test_every_position_of_the_leading_dimensions_is_a_sample(make):
    fusion, features = make(WIDTHS, DIM).eval(), features_of(leading=(2, 3))
    fused = fusion(features)
    assert fused.shape == (2, 3, DIM)
    flat = fusion([x.flatten(0, 1) for x in features])
    torch.testing.assert_close(fused.flatten(0, 1), flat)
    torch.testing.assert_close(fused[1, 2:], fusion([x[1, 2:] for x in features]))


@every
def test_dtype_follows_the_module_and_evaluation_is_deterministic(make):
    fusion, features = make(WIDTHS, DIM).double().eval(), features_of(dtype=torch.float64)
    with torch.no_grad():
        fused = fusion(features)
        assert fused.dtype == torch.float64 and torch.equal(fused, fusion(features))
    torch.testing.assert_close(fusion(features), fused)


@every
def test_a_state_dict_carries_everything_and_nothing_of_a_graph_is_copied(make):
    fusion, features = make(WIDTHS, DIM), features_of()
    fusion([x.requires_grad_() for x in features])  # moves the buffers, keeps tensors of a graph
    other = make(WIDTHS, DIM)
    other.load_state_dict(fusion.state_dict())
    expected = fusion.eval()(features)
    fusion.train()(features)
    for twin in (other, copy.deepcopy(fusion), pickle.loads(pickle.dumps(fusion))):
        twin.load_state_dict(other.state_dict())
        torch.testing.assert_close(twin.eval()(features), expected, rtol=0, atol=0)


@every
def test_refuses_what_does_not_fit(make):
    with pytest.raises(ValueError, match="at least one modality, got none"):
        make([], DIM)
    with pytest.raises(TypeError, match="input_dims must list a width"):
        make(3, DIM)
    with pytest.raises(ValueError, match=r"input_dims\[1\] must be an integer of at least 1"):
        make([3, 0], DIM)
    with pytest.raises(ValueError, match="must be an integer of at least 1, got 0"):
        make([3, 4], 0)
    fusion = make(WIDTHS, DIM)
    with pytest.raises(ValueError, match=r"a list of 3 tensors.*got 2"):
        fusion(features_of()[:2])
    with pytest.raises(ValueError, match=r"features\[0\] must have shape \(batch, ..., 3\)"):
        fusion(features_of([5, 4, 3]))


@masked
@pytest.mark.parametrize("held", [1.0, float("nan"), float("inf")])
def test_what_an_absent_modality_holds_does_not_matter(make, held):
    fusion = make(WIDTHS, DIM)
    present = torch.rand(BATCH, 3) < 0.5
    present[:, 0] |= ~present.any(1)
    features = features_of()
    changed = [
        torch.where(here[:, None], x, held).requires_grad_()
        for x, here in zip(features, present.T, strict=True)
    ]
    fused = fusion(changed, present=present)
    torch.testing.assert_close(fused, fusion(features, present=present))
    fused.backward(torch.randn_like(fused))
    for x, here in zip(changed, present.T, strict=True):
        assert not x.grad[~here].any() and x.grad[here].any(1).all()
    assert all(p.grad.isfinite().all() for p in fusion.parameters() if p.grad is not None)


@masked
def test_all_modalities_present_is_the_fusion_of_all(make):
    fusion, features = make(WIDTHS, DIM), features_of()
    present = torch.ones(BATCH, 3, dtype=torch.bool)
    torch.testing.assert_close(fusion(features, present=present), fusion(features))


@masked
def test_samples_of_one_batch_may_lack_different_modalities(make):
    fusion, features = make(WIDTHS, DIM).eval(), features_of(leading=(7,))
    present = torch.tensor([[k & 1 > 0, k & 2 > 0, k & 4 > 0] for k in range(1, 8)])
    fused = fusion(features, present=present)
    for k in range(7):
        row = slice(k, k + 1)
        alone = fusion([x[row] for x in features], present=present[row])
        torch.testing.assert_close(fused[row], alone)
    grid = fusion([x.unsqueeze(1) for x in features], present=present.unsqueeze(1))
    torch.testing.assert_close(grid.squeeze(1), fused)


@masked
def test_a_sample_needs_a_modality(make):
    fusion, present = make(WIDTHS, DIM), torch.zeros(BATCH, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least one modality present"):
        fusion(features_of(), present=present)
