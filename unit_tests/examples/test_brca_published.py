"""MM-Dynamics as it is published: sizes by hand count, its formula and loss written out again."""

from dataclasses import replace
from math import isclose

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.examples.brca.recipe import recipe as brca
from deq_fusion.examples.brca.recipe import scores
from deq_fusion.fusions.common_fusions import Concat
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.objective_functions.mm_dynamics import mm_dynamics_loss
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.unimodals.mm_dynamics import MMDynamics

DIMS, CLASSES = (7, 5, 4), 3
param = pytest.mark.parametrize


def made(**settings):
    return brca("BRCA", **settings)


def patients(dims, classes, count=6):
    views = [torch.rand(count, d) for d in dims]
    return DataLoader(TensorDataset(*views, torch.arange(count) % classes), batch_size=count)


def host(fusion, width, hidden=6, **options):
    return MMDynamics(DIMS, hidden, CLASSES, fusion, width, **options)


def registered(name, hidden=16):
    fusion, width = FUSIONS[name]([hidden] * 3, hidden)
    return host(fusion, width, hidden, dropout=0.0)


def by_hand(hidden, dims=(1000, 1000, 503), classes=5):
    """Numbers of MM-Dynamics on BRCA, without fusion and head."""
    gates = sum(d * d + d for d in dims)
    encoders = sum(d * hidden + hidden for d in dims)
    each = (hidden * classes + classes) + (hidden + 1)
    return gates + encoders + len(dims) * each


def test_base_has_the_published_count():
    def concat(input_dims, dim, outputs):
        return FUSIONS["concat"](input_dims, dim)

    model = made(sizes="base").build(concat, patients((1000, 1000, 503), 5))
    count = sum(p.numel() for p in model.parameters())
    assert count == by_hand(1000) + 3000 * 5 + 5 == 4_794_535


def test_the_release_has_the_published_count():
    def released(input_dims, dim, outputs):
        return DEQFusion.from_preset("released_brca", input_dims, dim=dim), dim

    model = made(sizes="authors").build(released, patients((1000, 1000, 503), 5))
    square = 500 * 500 + 500
    block = 2 * square + 6 * 500  # of a modality: two linear maps, three norms
    fused = 2 * square + 2 * 500  # the gate, the fused map and its norm
    assert sum(p.numel() for p in model.fusion.parameters()) == 3 * block + fused == 2_014_000
    count = sum(p.numel() for p in model.parameters())
    assert count == by_hand(500) + 3 * block + fused + 500 * 5 + 5 == 5_534_035


def test_settings_are_the_published_ones():
    ours, base, authors = (made(sizes=name) for name in ("ours", "base", "authors"))
    assert [r.epochs for r in (ours, base, authors)] == [300, 2501, 2501]
    assert [r.clip_norm for r in (ours, base, authors)] == [None, None, 30.0]
    assert authors.fusion_options["deq_paper"]["jacobian_weight"] == 20.0
    for recipe in (base, authors):
        assert recipe.optimizer.keywords == {"lr": 1e-4, "weight_decay": 1e-4}
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-4)
        plan, rates = recipe.scheduler(optimizer), []
        for _ in range(1001):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            plan.step()
        for epoch, rate in ((0, 1e-4), (499, 1e-4), (500, 2e-5), (999, 2e-5), (1000, 4e-6)):
            assert isclose(rates[epoch], rate)
    assert all(r.select == "accuracy" for r in (ours, base, authors))  # on validation data


def test_names_tell_the_sizes_apart():
    names = [made(sizes=name).name for name in ("ours", "base", "authors")]
    assert names[0] == made().name == "BRCA, MM-Dynamics, fresh splits"
    assert "Han et al." in names[1] and "Ni et al." in names[2]
    results = {str(made(sizes=name).settings("deq")) for name in ("ours", "base", "authors")}
    assert len(results) == 3
    assert "scheduler" not in made().settings("deq")  # results of the default stay its own
    with pytest.raises(ValueError, match=r"sizes must be one of \['ours'.*got 'large'"):
        made(sizes="large")


def perturbed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def written_out(model, views):
    """Logits, gates, logits and confidences of the views, by plain algebra."""
    gates, logits, confidences, scaled = [], [], [], []
    for v, x in enumerate(views):
        w, u = model.informativeness[v], model.encoders[v][0]
        gate = 1 / (1 + torch.exp(-(x @ w.weight.T + w.bias)))
        h = ((gate * x) @ u.weight.T + u.bias).clamp(min=0)
        c = (h * model.confidences[v].weight).sum(1) + model.confidences[v].bias
        gates.append(gate)
        logits.append(h @ model.classifiers[v].weight.T + model.classifiers[v].bias)
        confidences.append(c)
        scaled.append(c[:, None] * h)
    fused = torch.cat(scaled, 1) @ model.head.weight.T + model.head.bias
    return fused, gates, logits, confidences


def test_one_forward_is_the_formula(double):
    model = perturbed(host(Concat(), 18)).eval()
    views = [torch.randn(5, d) for d in DIMS]
    prediction, extras = model(views)
    expected = written_out(model, views)
    torch.testing.assert_close(prediction, expected[0])
    for name, wanted in zip(("gates", "view_logits", "confidences"), expected[1:], strict=True):
        torch.testing.assert_close(list(extras[name]), wanted)


@param("views, weights", [(3, [3.375, 2.25, 1.5, 1.0]), (2, [2.25, 1.5, 1.0]), (1, [1.5, 1.0])])
def test_the_loss_is_the_formula(double, views, weights):
    prediction, truth = torch.randn(5, CLASSES), torch.tensor([0, 2, 1, 1, 0])
    gates = [torch.rand(5, d) for d in DIMS[:views]]
    logits = [torch.randn(5, CLASSES) for _ in gates]
    confidences = [torch.randn(5) for _ in gates]

    def chosen(logits):
        return (logits.exp() / logits.exp().sum(1, keepdim=True))[torch.arange(5), truth]

    parts = [-chosen(prediction).log().mean()]
    for g, own, c in zip(gates, logits, confidences, strict=True):
        sparsity, error = g.sum() / g.numel(), ((c - chosen(own)) ** 2).mean()
        parts.append(sparsity + error - chosen(own).log().mean())
    extras = {"gates": gates, "view_logits": logits, "confidences": confidences}
    torch.testing.assert_close(mm_dynamics_loss(prediction, truth, extras), sum(parts))
    released = made(sizes="authors").objective(prediction, truth, extras)
    expected = sum(w * part for w, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(released, expected)


def test_the_probability_of_the_true_class_is_not_detached():
    own = torch.randn(4, CLASSES, requires_grad=True)
    extras = {"gates": [torch.rand(4, 2)], "view_logits": [own], "confidences": [torch.rand(4)]}
    truth = torch.tensor([0, 1, 2, 0])
    mm_dynamics_loss(torch.randn(4, CLASSES), truth, extras).backward()
    share = own.detach().softmax(1)
    alone = (share - nn.functional.one_hot(truth, CLASSES)) / 4  # of the cross-entropy
    assert not torch.allclose(own.grad, alone)


@param("name", ["concat", "weighted_sum", "deq"])
def test_a_small_batch_is_learnt_by_heart(name):
    model = registered(name)
    views, truth = [torch.randn(6, d) for d in DIMS], torch.arange(6) % CLASSES
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    missing = None
    for _ in range(80):
        optimizer.zero_grad()
        prediction, extras = model(views)
        mm_dynamics_loss(prediction, truth, extras, growth=1.5).backward()
        if missing is None:
            missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        optimizer.step()
    assert missing == []
    assert (prediction.argmax(1) == truth).all()


def history_of(trained, recipe):
    return trained.history.epochs


@pytest.mark.slow
@param("name", ["deq_paper", "concat"])
def test_training_as_published_lessens_the_loss(name):
    recipe = replace(made(sizes="authors", hidden=16), epochs=20)
    recipe = replace(recipe, load=lambda run, modalities: [patients(DIMS, CLASSES, 12)] * 3)
    found = run_fusion(Method(name, recipe, FUSIONS[name]), 0, analyse=history_of)
    first, *_, last = found["analysis"]
    assert last["train_loss"] < first["train_loss"]
    assert {v for e in (first, last) for k, v in e.items() if "learning_rate" in k} == {1e-4}


def test_a_width_that_makes_no_sense_is_answered():
    with pytest.raises(ValueError, match="hidden must be positive and finite, or left.*got -3"):
        made(hidden=-3)


def test_a_part_of_class_0_alone_has_no_scores_of_the_others():
    result = scores(torch.eye(5), torch.zeros(5, dtype=torch.int64))
    assert result["accuracy"] == 0.2 and not any(name.endswith("_4") for name in result)
