"""The network for own data: absent modalities, weights, units, own encoders, one's own copies."""

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.network import build_network, make_loader
from deq_fusion.target import Target
from deq_fusion.training import DEFAULTS, cut_validation
from deq_fusion.training_structures.fit import fit


def concat(dims, dim, outputs):
    return FUSIONS["concat"](dims, dim)


def sums(dims, dim, outputs):
    return FUSIONS["weighted_sum"](dims, dim)


def test_encoders_are_chosen_by_shape():
    network = build_network(concat, [(5,), (7, 3)], 2, width=8)
    outputs = network([torch.randn(4, 5), torch.randn(4, 7, 3)])
    assert outputs.shape == (4, 2) and network.head.in_features == 16


@pytest.mark.parametrize("fusion", [concat, sums])
def test_what_an_absent_modality_holds_does_not_matter(fusion):
    network = build_network(fusion, [(5,), (3,)], 2, width=8).eval()
    x, y = torch.randn(4, 5), torch.randn(4, 3)
    present = torch.tensor([[True, False]] * 4)
    torch.testing.assert_close(
        network([x, y, present]), network([x, torch.zeros(4, 3), present]), rtol=0, atol=0
    )
    assert network.told == (fusion is sums)


def test_weights_and_units_reach_the_objective():
    x, weight = torch.randn(4, 5), torch.tensor([1.0, 0, 2, 1])
    outputs, counts = build_network(concat, [(5,)], 2)([x, weight])
    assert outputs.shape == (4, 2) and counts.equal(weight)
    units = torch.tensor([10.0]), torch.tensor([4.0])
    network = build_network(concat, [(5,)], 1, units=units).eval()
    outputs, counts = network([x, weight])
    plain = network.head(network.fusion([network.encoders[0](x)]))
    torch.testing.assert_close(outputs, 10 + 4 * plain)
    torch.testing.assert_close(counts, weight.unsqueeze(1) / 16)


def test_a_batch_trains_as_its_rows_repeated_by_weight():
    x, y = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32), ["a", "b"] * 4
    target, weight = Target.of(y), np.array([2, 1, 0, 1, 1, 1, 2, 0], np.float32)
    rows = np.repeat(np.arange(8), weight.astype(int))
    results = []
    for view, w, truth in ((x, weight, y), (x[rows], None, [y[i] for i in rows])):
        torch.manual_seed(0)
        network = build_network(concat, [(5,)], 2, width=8, dropout=0.0)
        loader = make_loader([view], target.encode(truth), weight=w, batch_size=None)
        fit(network, loader, None, target.objective, epochs=3)
        results.append(network.head.weight)
    torch.testing.assert_close(*results)


def test_ones_own_encoder_is_copied_and_its_width_found():
    own = nn.Linear(3, 11)
    network = build_network(concat, [(5,), (3,)], 2, width=8, encoders=[None, own])
    assert network.encoders[1] is not own and network.head.in_features == 19
    with pytest.raises(ValueError, match=r"Linear must take rows of shape \(4,\)"):
        build_network(concat, [(4,)], 2, encoders=[own])
    with pytest.raises(ValueError, match=r"Flatten must return \(batch, width\), got \(6,\)"):
        build_network(concat, [(3,)], 2, encoders=[nn.Flatten(0)])
    with pytest.raises(ValueError, match="must be an nn.Module, got function"):
        build_network(concat, [(3,)], 2, encoders=[concat])


def test_batches_hold_what_there_is():
    views, present = [np.ones((6, 2), np.float32)], np.ones((6, 1), bool)
    loader = make_loader(views, torch.zeros(6), present=present, weight=np.ones(6), batch_size=4)
    batches = list(loader)
    assert [x.dtype for x in batches[0]] == [torch.float32, torch.bool, *[torch.float32] * 2]
    assert [len(b[0]) for b in batches] == [4, 2]


def test_the_validation_part_has_every_class_where_it_can():
    classes = np.array([0] * 40 + [1] * 8 + [2] * 4 + [3])
    kept, held = cut_validation(53, classes, fraction=0.2, seed=1)
    assert set(classes[held]) == {0, 1, 2} and set(classes[kept]) == {0, 1, 2, 3}
    assert sorted([*kept, *held]) == list(range(53))
    _, few = cut_validation(9, classes[:9], fraction=0.5, seed=0)
    kept, held = cut_validation(20, np.arange(20) // 2, fraction=0.2, seed=0)
    assert not len(few) and len(held) == 10  # one of each class
    assert len(cut_validation(20, None, fraction=0.2, seed=0)[1]) == 4
    assert not len(cut_validation(20, None, fraction=0.0, seed=0)[1])
    assert DEFAULTS.optimizer([nn.Parameter(torch.ones(1))]).defaults["lr"] == DEFAULTS.lr
