"""Opinions are joined by Dempster's rule, and the loss is that of Dirichlet distributions."""

import copy
import pickle

import pytest
import torch
from mpmath import mp  # PyTorch brings it
from torch import nn
from torch.distributions import Dirichlet, kl_divergence

from deq_fusion.fusions.evidential import EvidentialFusion, _digamma, _term
from deq_fusion.training_structures.fit import fit

WIDTHS, CLASSES, BATCH = [3, 5, 2], 4, 6
FRAME = frozenset(range(CLASSES))
TRUTH = torch.tensor([0, 3, 1, 1, 2, 0])
PRESENT = torch.tensor(
    [[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.bool
)


def make(**options):
    fusion = EvidentialFusion(WIDTHS, CLASSES, **options)
    return fusion, [2 * torch.randn(BATCH, width) for width in WIDTHS]


def evidences(fusion, features):
    """Evidence of every view, a list of (batch, classes)."""
    heads = zip(features, fusion.heads, strict=True)
    return [(1 + (x @ h.weight.T + h.bias).exp()).log() for x, h in heads]


def masses(evidence):
    """The opinion of one sample's evidence (classes,): mass of every focal set."""
    strength = evidence.sum() + CLASSES
    found = {frozenset([k]): evidence[k] / strength for k in range(CLASSES)}
    return found | {FRAME: CLASSES / strength}


def dempster(one, other):
    """Dempster's rule over all pairs of focal sets; what they disagree on is divided out."""
    joined = {}
    for a, mass_a in one.items():
        for b, mass_b in other.items():
            joined[a & b] = joined.get(a & b, 0) + mass_a * mass_b
    conflict = joined.pop(frozenset())
    return {focal: mass / (1 - conflict) for focal, mass in joined.items()}


def joint_alpha(opinion):
    strength = CLASSES / opinion[FRAME]
    return torch.stack([opinion[frozenset([k])] * strength + 1 for k in range(CLASSES)])


def loss_by_hand(alpha, label, weight):
    """The loss of one Dirichlet distribution, the divergence from PyTorch's own."""
    fit = alpha.sum().digamma() - alpha[label].digamma()
    other = torch.where(torch.arange(CLASSES) == label, 1.0, alpha)
    return fit + weight * kl_divergence(Dirichlet(other), Dirichlet(torch.ones(CLASSES)))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
@pytest.mark.parametrize("grouped", ["left", "right"])
@pytest.mark.parametrize("present", [None, PRESENT])
def test_joins_opinions_by_dempsters_rule_in_any_order(double, order, grouped, present):
    fusion, features = make()
    logs = fusion(features, present=present)
    beliefs, uncertainty = fusion.opinions.beliefs, fusion.opinions.uncertainty
    views = evidences(fusion, features)
    for b in range(BATCH):
        keep = [i for i in order if present is None or present[b, i]]
        opinions = [masses(views[i][b]) for i in keep]
        for i, opinion in zip(keep, opinions, strict=True):
            expected = [opinion[frozenset([k])].item() for k in range(CLASSES)]
            assert beliefs[b, i].tolist() == pytest.approx(expected)
            assert uncertainty[b, i].item() == pytest.approx(opinion[FRAME].item())
        if grouped == "right":
            opinions.reverse()
        joined = opinions[0]
        for opinion in opinions[1:]:
            joined = dempster(*((joined, opinion) if grouped == "left" else (opinion, joined)))
        expected = torch.stack([joined[frozenset([k])] for k in range(CLASSES)])
        torch.testing.assert_close(beliefs[b, -1], expected.detach())
        assert uncertainty[b, -1].item() == pytest.approx(joined[FRAME].item())
        alpha = joint_alpha(joined)
        torch.testing.assert_close(logs[b], (alpha / alpha.sum()).log())


def test_an_absent_view_is_vacuous_and_neutral(double):
    fusion, features = make()
    present = torch.tensor([True, False, True]).expand(BATCH, 3)
    logs = fusion(features, present=present)
    opinions = fusion.opinions
    assert (opinions.uncertainty[:, 1] == 1).all() and not opinions.beliefs[:, 1].any()
    total = opinions.beliefs.sum(-1) + opinions.uncertainty
    torch.testing.assert_close(total, torch.ones(BATCH, 4))
    assert not opinions.beliefs.requires_grad
    small = EvidentialFusion([3, 2], CLASSES)
    small.heads = nn.ModuleList([fusion.heads[0], fusion.heads[2]])
    torch.testing.assert_close(logs, small([features[0], features[2]]))


@pytest.mark.parametrize("present", [None, PRESENT])
def test_the_loss_is_that_of_every_view_and_the_joint_opinion(double, present):
    fusion, features = make(anneal_steps=2)
    for step in range(1, 4):
        fusion(features, present=present)
        expected = 0.0
        for b in range(BATCH):
            keep = [i for i in range(3) if present is None or present[b, i]]
            alphas = [evidences(fusion, features)[i][b] + 1 for i in keep]
            joined = masses(alphas[0] - 1)
            for alpha in alphas[1:]:
                joined = dempster(joined, masses(alpha - 1))
            for alpha in [*alphas, joint_alpha(joined)]:
                expected += loss_by_hand(alpha, TRUTH[b], min(1.0, step / 2)) / BATCH
        loss = fusion.supervised_loss(TRUTH)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(fusion.supervised_loss(TRUTH[:, None].to(torch.int32)), loss)
        found = torch.autograd.grad(loss, fusion.parameters())
        torch.testing.assert_close(found, torch.autograd.grad(expected, fusion.parameters()))


def test_the_gradient_of_the_loss_is_right_on_both_sides_of_the_series(double):
    fusion = EvidentialFusion([CLASSES, CLASSES], CLASSES)
    for head in fusion.heads:
        nn.init.eye_(head.weight)
    x = torch.tensor([[0.0, 14.0, 25.0, 3.0], [-3.0, 1e3, 20.0, 1e5]], requires_grad=True)

    def loss(x):
        fusion.training_steps.zero_()
        fusion([x, -x.flip(1)])
        return fusion.supervised_loss(torch.tensor([1, 0]))

    assert torch.autograd.gradcheck(loss, x, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 2e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("views", [1, 2, 60])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e6])
def test_any_amount_of_evidence_is_finite_and_exact(dtype, rtol, views, scale):
    fusion = EvidentialFusion([CLASSES] * views, CLASSES, anneal_steps=1)
    for head in fusion.heads:
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    x = (scale * torch.tensor([[2.0, 0.25, 1.0, -1.0]])).requires_grad_()
    logs = fusion.to(dtype)([x.to(dtype)] * views)
    loss = fusion.supervised_loss(torch.tensor([1]))
    loss.backward()
    assert x.grad.isfinite().all() and (x.grad.any() or scale == 1e6)
    with mp.workdps(40 + 7 * views):  # the loss is the small rest of terms like x log x
        one = [mp.log1p(mp.exp(v)) for v in x[0].tolist()]
        joint = [1 + CLASSES * ((1 + e / CLASSES) ** views - 1) for e in one]
        exact = [float(mp.log(a / sum(joint))) for a in joint]
        assert logs[0].tolist() == pytest.approx(exact, rel=rtol, abs=rtol)
        expected = views * exact_loss([e + 1 for e in one]) + exact_loss(joint)
    assert loss.item() == pytest.approx(float(expected), rel=rtol)


def exact_loss(alpha, label=1):
    """The loss of one Dirichlet distribution with the full regulariser, in mpmath's digits."""
    fit = mp.digamma(sum(alpha)) - mp.digamma(alpha[label])
    alpha = [mp.mpf(1) if k == label else a for k, a in enumerate(alpha)]
    kl = mp.loggamma(sum(alpha)) - mp.loggamma(len(alpha)) - sum(map(mp.loggamma, alpha))
    return fit + kl + sum((a - 1) * (mp.digamma(a) - mp.digamma(sum(alpha))) for a in alpha)


def test_the_series_joins_the_functions_it_replaces(double):
    x = torch.linspace(1, 60, 1000)
    close = {"rtol": 0, "atol": 2e-11}
    torch.testing.assert_close(_digamma(x.log()), x.digamma(), **close)
    for k in (1, 3):
        expected = x.lgamma() - (x - k) * x.digamma() + x
        torch.testing.assert_close(_term(x.log(), k), expected, **close)


def test_only_training_forwards_count_and_a_resumed_run_goes_on():
    fusion, features = make(anneal_steps=10)
    for _ in range(3):
        fusion(features)
    with torch.no_grad():
        fusion(features)
    fusion.eval()(features)
    assert fusion.training_steps == 3
    resumed = EvidentialFusion(WIDTHS, CLASSES, anneal_steps=10)
    resumed.load_state_dict(fusion.state_dict())
    for module in (fusion.train(), resumed):
        module(features)
    torch.testing.assert_close(resumed.supervised_loss(TRUTH), fusion.supervised_loss(TRUTH))
    assert resumed.training_steps == 4


def test_the_loss_needs_a_training_forward():
    fusion, features = make()
    with pytest.raises(RuntimeError, match="must follow a forward in training mode"):
        fusion.supervised_loss(TRUTH)
    fusion(features)
    for twin in (copy.deepcopy(fusion), pickle.loads(pickle.dumps(fusion))):
        assert twin.opinions is None
        with pytest.raises(RuntimeError, match="must follow a forward in training mode"):
            twin.supervised_loss(TRUTH)
    fusion.eval()(features)
    with pytest.raises(RuntimeError, match="must follow a forward in training mode"):
        fusion.supervised_loss(TRUTH)


@pytest.mark.parametrize(
    "truth, message",
    [
        (TRUTH[:3], r"truth must have shape \(6,\).*got \(3,\)"),
        (torch.rand(BATCH, CLASSES), r"truth must have shape \(6,\).*got \(6, 4\)"),
        (TRUTH + 1, "class indices from 0 to 3, got 1 to 4"),
        (TRUTH - 1, "class indices from 0 to 3, got -1 to 2"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(truth, message):
    fusion, features = make()
    fusion(features)
    with pytest.raises(ValueError, match=message):
        fusion.supervised_loss(truth)


def test_refuses_options_that_make_no_sense():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        EvidentialFusion(WIDTHS, 1)
    with pytest.raises(ValueError, match="anneal_steps must be an integer of at least 1"):
        EvidentialFusion(WIDTHS, CLASSES, anneal_steps=0)


def test_the_training_loop_adds_its_loss():
    fusion, features = make()
    batch = [(*features, TRUTH)]
    frozen = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}

    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.fusion = copy.deepcopy(fusion)

        def forward(self, inputs):
            return self.fusion(list(inputs))

    history = fit(Host(), batch, None, nn.functional.cross_entropy, epochs=1, **frozen)
    expected = nn.functional.cross_entropy(fusion(features), TRUTH) + fusion.supervised_loss(TRUTH)
    assert history.epochs[0]["train_loss"] == pytest.approx(expected.item(), rel=1e-6)
