"""MOGONET and GRidge on a set of omics, as the comparison meets them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets.loaders import make_loaders
from deq_fusion.examples.brca import mogonet
from deq_fusion.examples.brca.recipe import gridge_floor
from deq_fusion.examples.brca.recipe import recipe as brca
from deq_fusion.examples.brca.systems import FLOORS, systems
from deq_fusion.examples.paradigms.systems import paradigms
from deq_fusion.training_structures.comparison.methods import SYSTEM, Method, gather
from deq_fusion.training_structures.comparison.single_run import run_floor, run_fusion
from deq_fusion.unimodals.gridge import GRidge


def parts(run=0, modalities=("mRNA", "methylation", "miRNA"), classes=2):
    """Parts of 40, 20 and 20 patients, whose classes are seen in every view."""
    rng = np.random.default_rng(run)
    centres = [rng.normal(size=(classes, width)) for width in (12, 9, 7)[: len(modalities)]]
    labels = [np.arange(count) % classes for count in (40, 20, 20)]
    return [
        (
            [(c[y] + rng.normal(size=(len(y), c.shape[1]))).astype(np.float32) for c in centres],
            y.astype(np.int64),
        )
        for y in labels
    ]


def load(run, modalities):
    return make_loaders(parts(run, modalities), batch_size=None)


@pytest.fixture
def recipe():
    return replace(brca("BRCA"), load=load)


def met(recipe, name="mogonet", epochs=24):
    found = systems()[name].meet(recipe)
    return replace(found, epochs=epochs, optimizer=partial(found.optimizer, lr=0.01))


@pytest.mark.parametrize("name", ["mogonet", "mogonet_inductive"])
def test_mogonet_learns_under_the_protocol(recipe, name):
    method = Method(name, met(recipe, name), systems()[name], SYSTEM)
    first = run_fusion(method, 0)["scores"]
    assert first["accuracy"] > 0.8
    if name == "mogonet":
        assert run_fusion(method, 0)["scores"] == first


def test_mogonet_takes_a_single_omics(recipe):
    single = met(recipe.restricted(["mRNA"]), epochs=12)
    train = single.load(0, single.modalities)[0]
    model = single.build(None, train)
    assert model.fusion is None and len(mogonet.groups(model)) == 1
    assert single.scheduler(torch.optim.Adam(mogonet.groups(model))).get_last_lr() == [1e-3]
    run_fusion(Method("mogonet", single, systems()["mogonet"], SYSTEM), 0)


def test_a_sixth_of_the_epochs_is_pre_training(recipe):
    assert [mogonet.rounds(500, e) for e in (1, 500)] == [("views",)] * 2
    assert [mogonet.rounds(500, e) for e in (501, 3000)] == [("views", "fused")] * 2
    whole = systems()["mogonet"].meet(recipe)
    assert whole.epochs == 3000
    for epochs in (3000, 12):
        shown = replace(whole, epochs=epochs)
        heads = nn.Linear(1, 1), nn.Linear(1, 1)
        groups = [{"params": list(head.parameters())} for head in heads]
        optimizer = whole.optimizer(groups)
        plan, rates = shown.scheduler(optimizer), []
        for _ in range(epochs):
            rates.append(plan.get_last_lr())
            optimizer.step()
            plan.step()
        alone = epochs // 6
        assert rates == [[1e-3, 1e-3]] * alone + [[5e-4, 1e-3]] * (epochs - alone)


def test_sizes_are_those_of_the_published_sets(recipe):
    def built(classes):
        views = [torch.rand(30, 5) for _ in range(3)]
        data = TensorDataset(*views, torch.arange(30) % classes)
        return met(recipe).build(None, DataLoader(data))

    assert [w.shape[-1] for w in built(2).later] == [200, 100, 2]
    assert [w.shape[-1] for w in built(5).later] == [400, 200, 5]
    rosmap = built(2)
    own, joint = mogonet.groups(rosmap)
    assert len(own["params"]) + len(joint["params"]) == len(list(rosmap.parameters()))


def test_systems_are_compared_beside_the_fusions(recipe):
    methods, refused = gather(recipe, systems(), unimodal=False)
    own = ["linear", "gridge", "mogonet", "mogonet_inductive"]
    assert [m.name for m in methods] == [*own, *paradigms()]
    assert refused == {} and recipe.floors.keys() == FLOORS.keys()


@pytest.mark.parametrize("classes", [2, 5])
def test_gridge_is_a_floor(recipe, classes):
    train, valid, test = parts(classes=classes)
    loaders = make_loaders((train, valid, test), batch_size=7)
    found = gridge_floor(loaders[:2], loaders[2])
    views = [np.concatenate(pair) for pair in zip(train[0], valid[0], strict=True)]
    model = GRidge().fit(views, np.concatenate([train[1], valid[1]]))
    np.testing.assert_allclose(found.exp().numpy(), model.predict_proba(test[0]), atol=1e-6)
    assert run_floor(Method("gridge", recipe, None), 0)["scores"]["accuracy"] > 0.8
