"""MOGONET against its formula: graphs with loops, graph convolutions with dense matrices."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.func import functional_call

from deq_fusion.fusions.vcdn import VCDN
from deq_fusion.objective_functions.mogonet import mogonet_loss
from deq_fusion.unimodals.mogonet import MOGONET, _dropped
from deq_fusion.unimodals.patient_graphs import adjacency, similarities, threshold
from unit_tests.unimodals.mogonet_reference import convolved, leaky, new_graph, training_graph

PATIENTS, NEW, WIDTHS, CLASSES = 9, 4, (5, 7, 3), 3
SIZES = {"neighbours": 3, "hidden": (6, 4), "dropout": 0.0}


def patients(count=PATIENTS, seed=0):
    """Views of patients, and their classes, of which the first is the most frequent."""
    generator = torch.Generator().manual_seed(seed)
    views = [
        torch.rand(count, width, generator=generator, dtype=torch.get_default_dtype())
        for width in WIDTHS
    ]
    return views, torch.tensor([0, 1, 2, 0, 1, 0, 0, 2, 0] * 9)[:count]


def model_of(seed=0, **options):
    views, labels = patients()
    torch.manual_seed(seed)
    model = MOGONET(views, labels, VCDN(3, CLASSES), **{**SIZES, **options})
    for bias in model.biases:
        nn.init.normal_(bias)
    return model


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_graph_is_of_pairs_that_are_most_alike(double, k):
    view = patients()[0][1]
    graph = adjacency(view, threshold(view, k))
    assert_allclose(graph.numpy(), training_graph(view.numpy(), k), atol=1e-12)
    ties = int((graph != 0).sum())  # with each patient's pair with itself
    assert k * PATIENTS <= ties <= k * PATIENTS + 2


def test_similarities_below_zero_count_by_their_size(double):
    view = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    graph = adjacency(view, threshold(view, 5))
    assert (graph < 0).any()
    assert_allclose(graph.numpy(), training_graph(view.numpy(), 5), atol=1e-12)
    assert_allclose(graph.abs().sum(1).numpy(), 1)


def test_in_training_a_batch_is_a_permutation_of_the_nodes(double):
    model, (views, _) = model_of(), patients()
    expected = [
        convolved(model, v, training_graph(x.numpy(), 3), x.numpy()) for v, x in enumerate(views)
    ]
    for rows in (torch.arange(PATIENTS), torch.randperm(PATIENTS), torch.tensor([7, 2])):
        fused, extras = model([x[rows] for x in views])
        *logits, last = extras["trained"]
        assert last is fused and len(logits) == 3
        for found, wanted in zip(logits, expected, strict=True):
            assert_allclose(found.detach().numpy(), wanted[rows.numpy()], atol=1e-10)
        joint = model.fusion([torch.from_numpy(x[rows.numpy()]) for x in expected])
        torch.testing.assert_close(fused, joint)


@pytest.mark.parametrize("inductive", [False, True])
def test_in_evaluation_new_patients_are_joined_to_those_of_training(double, inductive):
    model, (views, _) = model_of(inductive=inductive).eval(), patients()
    new, _ = patients(NEW, seed=1)
    logits = []
    for v, (x, fresh) in enumerate(zip(views, new, strict=True)):
        graph = new_graph(x.numpy(), fresh.numpy(), 3, inductive=inductive)
        assert (graph[PATIENTS:, :PATIENTS] != 0).any()
        nodes = np.concatenate([x.numpy(), fresh.numpy()])
        logits.append(torch.from_numpy(convolved(model, v, graph, nodes)[PATIENTS:]))
    torch.testing.assert_close(model(new)[0], model.fusion(logits))


def test_only_the_inductive_prediction_depends_on_nobody_else(double):
    new, _ = patients(NEW, seed=1)
    alone = [x[:1] for x in new]
    model = model_of(inductive=True, neighbours=6).eval()
    torch.testing.assert_close(model(new)[0][:1], model(alone)[0], rtol=1e-12, atol=1e-12)
    model = model_of(neighbours=6).eval()
    assert not torch.allclose(model(new)[0][:1], model(alone)[0])


def test_dropout_leaves_out_a_share_and_keeps_the_mean(double):
    states = _dropped(torch.full((4000,), 2.0), 0.3)
    assert_allclose(states.unique().numpy(), [0, 2 / 0.7])
    deviation = (0.3 * 0.7 / 4000) ** 0.5  # of the share
    assert abs((states == 0).double().mean().item() - 0.3) < 5 * deviation


def test_dropout_is_of_what_enters_later_layers(double):
    model, (views, _) = model_of(dropout=0.5), patients()
    model.later[0].data.zero_()  # what follows the first layer's dropout
    expected = model_of().eval().biases  # the same draws
    logits = model(views)[1]["trained"][0]
    wanted = leaky(expected[1][0].detach().numpy()) @ model.later[1][0].detach().numpy()
    assert_allclose(
        logits.detach().numpy(), np.tile(wanted + expected[2][0].detach().numpy(), (9, 1))
    )
    model = model_of(dropout=0.5)
    draws = torch.stack([model(views)[1]["trained"][0].detach() for _ in range(2)])
    assert (draws[0] != draws[1]).any()
    assert torch.equal(model.eval()(views)[0], model(views)[0])


@pytest.mark.parametrize("name", ["views", "fused", None])
def test_a_round_trains_its_own_parameters(name):
    model, (views, labels) = model_of(), patients()
    model.round = name
    mogonet_loss(*swapped(model(views), labels)).backward()
    for parameter, value in model.named_parameters():
        own = "fused" if parameter.startswith("fusion.") else "views"
        assert (value.grad is not None) == (name in (own, None)), parameter


def swapped(result, labels):
    """The arguments of the loss."""
    prediction, extras = result
    return prediction, labels, extras


@pytest.mark.parametrize("name", ["views", None])
def test_gradients_are_those_of_the_formula(double, name):
    model, (views, labels) = model_of(), patients()
    model.round = name
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*parameters):
        state = dict(zip(names, parameters, strict=True))
        return mogonet_loss(*swapped(functional_call(model, state, (views,)), labels))

    if name is None:  # no gradient passes from the fusion to the views
        values = [v for n, v in zip(names, values, strict=True) if n.startswith("fusion.")]
        names = [n for n in names if n.startswith("fusion.")]
    inputs = [v.detach().requires_grad_() for v in values]
    if name == "views":
        inputs = [x for n, x in zip(names, inputs, strict=True) if not n.startswith("fusion.")]
        names = [n for n in names if not n.startswith("fusion.")]
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


@pytest.mark.parametrize("inductive", [False, True])
def test_gradients_of_new_features_are_those_of_the_formula(double, inductive):
    model = model_of(inductive=inductive).eval()
    new = [x.requires_grad_() for x in patients(NEW, seed=1)[0]]
    cotangent = torch.randn(NEW, CLASSES)
    assert torch.autograd.gradcheck(lambda *x: (model(x)[0] * cotangent).sum(), new, fast_mode=True)


def trained(steps, dropout=0.1, neighbours=2):
    """A model trained by hand as published, and its last losses."""
    views, labels = patients()
    model = model_of(hidden=(16, 16), neighbours=neighbours, dropout=dropout)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.03), {}
    for step in range(steps):
        rows = torch.randperm(PATIENTS)
        for name in ("views",) if step < steps // 4 else ("views", "fused"):
            model.round = name
            optimizer.zero_grad()
            result = model([x[rows] for x in views])
            loss = mogonet_loss(*swapped(result, labels[rows]))
            loss.backward()
            optimizer.step()
            losses[name] = loss.item()
    model.round = None
    return model, losses


def test_it_fits_a_few_patients():
    model, losses = trained(100, dropout=0.0, neighbours=1)
    views, labels = patients()
    assert losses["fused"] < 0.1
    assert torch.equal(model(views)[0].argmax(1), labels)


def test_it_repeats_itself_bit_for_bit():
    new, _ = patients(NEW, seed=1)
    first, second = (trained(12)[0].eval()(new)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_state_dict_carries_the_patients_of_training():
    model, _ = trained(8)
    new, _ = patients(NEW, seed=1)
    expected = model.eval()(new)[0]
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    others, labels = patients(seed=5)
    fresh = MOGONET(
        others, labels, VCDN(3, CLASSES), **SIZES | {"hidden": (16, 16), "neighbours": 2}
    )
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for twin in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.eval()(new)[0], expected)
        twin.inductive = True
        assert torch.equal(twin(new)[0], inductive(model, new))
        twin.train()([x.flip(0) for x in patients()[0]])  # which are its patients now
    with pytest.raises(ValueError, match="every row must be a patient"):
        fresh(others)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_graphs_of_a_model_that_is_loaded_on_a_gpu_are_the_same():
    model = model_of()
    moved = model_of().cuda()
    moved.load_state_dict(model.state_dict())
    for name, value in model.named_buffers():
        assert torch.equal(moved.get_buffer(name).cpu(), value)


def inductive(model, new):
    model.inductive = True
    prediction = model(new)[0]
    model.inductive = False
    return prediction


@pytest.mark.parametrize("values", [2, 3])
def test_patients_are_found_whose_features_are_few_whole_numbers(values):
    """As mutations are; there are many with the same sum of them, with weights or without."""
    columns = torch.cartesian_prod(*[torch.arange(float(values))] * 6)[1:]
    columns = columns[torch.randperm(len(columns))[:200]]
    views, labels = [columns[:, :4], columns[:, 4:]], torch.arange(len(columns)) % 2
    model = MOGONET(views, labels, VCDN(2, 2), **SIZES)
    rows = torch.randperm(len(columns))
    assert torch.equal(model._rows([x[rows] for x in views]), rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_trains_in_half_precision_where_autocast_says_so(dtype):
    model, (views, labels) = model_of(), patients()
    (expected, _), (new, _) = model(views), patients(NEW, seed=1)
    with torch.autocast("cpu", dtype=dtype):
        result = model(views)
        loss = mogonet_loss(*swapped(result, labels))
        assert torch.equal(similarities(views[0], new[0]), cosines(views[0], new[0]))
    torch.testing.assert_close(result[0].float(), expected, rtol=0.05, atol=0.1)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    for inductive in (False, True):
        model.eval().inductive = inductive
        exact = model(new)[0]
        with torch.autocast("cpu", dtype=dtype):
            torch.testing.assert_close(model(new)[0].float(), exact, rtol=0.05, atol=0.1)


@torch.autocast("cpu", enabled=False)
def cosines(a, b):
    return similarities(a, b)


def test_patients_with_the_same_features_share_what_they_get(double):
    views, labels = patients()
    views = [torch.cat([x, x[:1]]) for x in views]
    model = MOGONET(views, torch.cat([labels, labels[:1]]), VCDN(3, CLASSES), **SIZES)
    fused, _ = model(views)
    torch.testing.assert_close(fused[0], fused[-1])


def test_a_new_patient_may_lack_an_omics(double):
    model, (new, _) = model_of().eval(), patients(NEW, seed=1)
    present = torch.ones(NEW, 3, dtype=torch.bool)
    assert torch.equal(model(new, present=present)[0], model(new)[0])
    present[1, 2] = False
    lacking = [x.clone() for x in new]
    lacking[2][1] = torch.nan
    rest = model([x[[0, 2, 3]] for x in new])[0]
    found = model(lacking, present=present)[0]
    others = [x[[0, 2, 3]] for x in lacking]
    absent_view = model._of_new(lacking, present)[2]
    assert not absent_view[1].any()
    torch.testing.assert_close(  # nobody reaches anybody over one who is not there
        absent_view[[0, 2, 3]], model._of_new(others, None)[2]
    )
    assert found.isfinite().all() and rest.isfinite().all()
    with model.without(2):
        all_without = model([new[0], new[1], torch.full_like(new[2], torch.nan)])[0]
    present[:, 2] = False
    torch.testing.assert_close(all_without, model(new, present=present)[0])


def test_a_single_view_is_predicted_by_its_own_logits():
    views, labels = patients()
    model = MOGONET(views[:1], labels, None, **SIZES)
    for name in ("views", "fused", None):
        model.round = name
        prediction, extras = model(views[:1])
        assert extras["trained"][0] is prediction and prediction.requires_grad
    model.eval()(patients(NEW, seed=1)[0][:1])


def test_sizes_are_as_published():
    """Parameters, counted from the sizes of the published layers."""
    for widths, hidden, classes in (
        ((1000, 1000, 503), (400, 400, 200), 5),  # BRCA
        ((200, 200, 200), (200, 200, 100), 2),  # ROSMAP
    ):
        views, labels = [torch.rand(20, d) for d in widths], torch.arange(20) % classes
        model = MOGONET(views, labels, VCDN(3, classes), neighbours=2, hidden=hidden)
        layers = [((width, *hidden), (*hidden, classes)) for width in widths]
        layers.append(((classes**3, classes**3), (classes**3, classes)))
        expected = sum((a + 1) * b for pair in layers for a, b in zip(*pair, strict=True))
        assert sum(p.numel() for p in model.parameters()) == expected


def test_the_loss_weighs_frequent_classes_more(double):
    labels = torch.tensor([0, 2, 1, 0])
    shares, logits = torch.tensor([0.5, 0.3, 0.2]), [torch.randn(4, 3), torch.randn(4, 3)]
    total = 0.0
    for x in logits:
        for i, label in enumerate(labels.tolist()):
            odds = x[i].numpy()
            total += shares[label].item() * (np.log(np.exp(odds).sum()) - odds[label]) / 4
    extras = {"trained": logits, "class_shares": shares}
    assert_allclose(mogonet_loss(logits[1], labels, extras).item(), total)
    model = model_of()
    assert_allclose(model.class_shares.numpy(), np.array([5, 2, 2]) / 9)
    with pytest.raises(ValueError, match="classes from 0 to 2, got 0 to 3"):
        mogonet_loss(logits[1], labels + torch.tensor([0, 1, 0, 0]), extras)


def test_refuses_what_does_not_fit():
    views, labels = patients()
    lacking = [*views[:2], views[2].clone()]
    lacking[2][3] = torch.nan
    model = model_of()

    def named(name):
        model.round = name
        return model(views)

    fusion = VCDN(3, CLASSES)
    for call, words in (
        (lambda: MOGONET([], labels, fusion, **SIZES), r"one at least, got shapes \[\]"),
        (lambda: MOGONET(views, labels[1:], fusion, **SIZES), "a row for each of the 8 labels"),
        (lambda: MOGONET(views, labels * 0, fusion, **SIZES), r"classes at least, got \[0\] alone"),
        (lambda: MOGONET(views, labels, None, **SIZES), "fusion must be a module for 3 views"),
        (
            lambda: MOGONET(lacking, labels, fusion, **SIZES),
            r"views\[2\] must be finite, but row 3",
        ),
        (lambda: MOGONET(views, labels, fusion, **SIZES | {"hidden": ()}), "hidden must list"),
        (lambda: MOGONET(views, labels, fusion, **SIZES | {"dropout": 1.0}), "dropout=1.0"),
        (lambda: MOGONET(views, labels - 1, fusion, **SIZES), "int64 of shape .* from -1 on"),
        (lambda: MOGONET(views, labels.float(), fusion, **SIZES), "must be int64 .* got torch.flo"),
        (lambda: MOGONET([x.long() for x in views], labels, fusion, **SIZES), "one floating-point"),
        (lambda: MOGONET([views[0], views[1].double()], labels, fusion), "one floating-point"),
        (lambda: model([x.double() for x in views]), r"must be torch.float32, .* by x.to\("),
        (lambda: MOGONET(views, labels, fusion, neighbours=9), "between 1 and .* 8, got 9"),
        (lambda: model(views[:2]), r"shapes \(batch, 5\), \(batch, 7\), \(batch, 3\), with"),
        (lambda: model([views[0], views[1], views[2][1:]]), "with the same rows"),
        (lambda: model([x + 1 for x in views]), "row 0 is not; build the model with the part"),
        (lambda: model([*views[:2], views[2].roll(1, 0)]), "every row must be a patient"),
        (lambda: model(views, present=torch.ones(9, 3).bool()), "None in training"),
        (lambda: named("both"), r"one of \['views', 'fused'\] or None, got 'both'"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    model.eval()
    model.round = None
    with pytest.raises(ValueError, match=r"views\[2\] must be finite, but row 3 is not"):
        model(lacking)
    with pytest.raises(ValueError, match=r"present must be bool of shape \(9, 3\)"):
        model(views, present=torch.ones(9, 3))
