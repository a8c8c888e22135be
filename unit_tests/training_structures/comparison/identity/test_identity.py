"""Digests of values and of data: the same for what holds the same, and for nothing else."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from deq_fusion.training_structures.comparison.identity.code import Code
from deq_fusion.training_structures.comparison.identity.data import data_digests
from deq_fusion.training_structures.comparison.identity.identities import Identities
from deq_fusion.training_structures.comparison.identity.values import Unidentified, Values
from deq_fusion.training_structures.comparison.single_run import run_floor, run_fusion
from unit_tests.training_structures.comparison import toy


class Lazy(Dataset):
    """Reads its rows when it is asked."""

    def __init__(self, rows, labels):
        self.read, self.labels = iter, labels  # a function is code, and no data
        Lazy.rows = rows

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return Lazy.rows[row], self.labels[row]


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        yield from self.rows


def made(kind, rows, labels):
    datasets = {
        "tensors": lambda: TensorDataset(rows, labels),
        "subset": lambda: Subset(TensorDataset(rows, labels), range(len(rows))),
        "lazy": lambda: Lazy(rows, labels),
        "stream": lambda: Stream(list(zip(rows, labels, strict=True))),
    }
    return [DataLoader(datasets[kind](), batch_size=3)] * 3


@pytest.mark.parametrize("kind", ["tensors", "subset", "lazy", "stream"])
def test_data_are_told_apart_by_rows_labels_order_and_type(kind):
    rows, labels = torch.randn(10, 3), torch.arange(10)
    same = data_digests(made(kind, rows, labels), "test")
    assert data_digests(made(kind, rows.clone(), labels.clone()), "test") == same
    changed = rows.clone()
    changed[7, 1] += 1e-6
    others = [
        (changed, labels),
        (rows, labels.flip(0)),
        (rows.flip(0), labels.flip(0)),
        (rows.double(), labels),
        (rows, labels.int()),
        (rows[:9], labels[:9]),
        (rows.reshape(10, 3, 1), labels),
    ]
    found = [data_digests(made(kind, *other), "test")["train"] for other in others]
    assert len({same["train"], *found}) == len(others) + 1


def test_the_digest_of_data_draws_no_number():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    data_digests(made("lazy", torch.randn(10, 3, generator=torch.Generator()), torch.arange(10)),
                 "test")  # fmt: skip
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)


def test_the_test_part_is_left_alone_where_it_is_not_scored():
    loaders = made("tensors", torch.randn(4, 2), torch.arange(4))[:2]
    assert data_digests([*loaders, None], "valid").keys() == {"train", "valid"}


def test_the_data_of_recipes_that_come_and_go_are_told_apart():
    identities, found = Identities(run_fusion, run_floor), set()
    for value in range(20):  # a recipe that is gone may leave its place in memory to the next
        rows = torch.full((4, 2), float(value))
        loaders = made("tensors", rows, torch.arange(4))
        recipe = toy.recipe(load=lambda run, modalities, loaders=loaders: loaders)
        found.add(identities.data(recipe, 0)["train"])
    assert len(found) == 20


def digest(value, **options):
    return Values(Code(), **options).digest(value)


class Holder:
    def __init__(self, held):
        self.held = held


def local(value):
    class Local:
        held = value

    return Local


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (True, 1),
        ((1, 2), [1, 2]),
        ({"a": 1}, {"a": 2}),
        ([[1], 2], [1, [2]]),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2).double()),
        (torch.zeros(1), torch.tensor([-0.0])),
        (np.zeros(2), np.zeros(2, dtype=np.float32)),
        (partial(toy.load, regress=True), toy.load),
        (partial(toy.load, regress=True), partial(toy.load, regress=False)),
        (Holder(1), Holder(2)),
        (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)),
        (torch.relu, torch.tanh),
        (len, max),
        (np, torch),
        (staticmethod(toy.load), staticmethod(toy.mean)),
        (property(toy.load), property(toy.mean)),
        (stats.uniform(0, 1), stats.uniform(0, 2)),
        (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse()),
        (local(1), local(2)),
        (torch.optim.SGD, torch.optim.Adam),
        ([].append, [1].append),
        (lambda x: x + 1, lambda x: x + 2),
        (eval("lambda x: x + 1"), eval("lambda x: x + 2")),
        (eval("lambda: K", {"K": 1}), eval("lambda: K", {"K": 2})),
    ],
)
def test_values_that_differ_have_digests_that_differ(one, other):
    assert digest(one) != digest(other)
    assert digest(one) == digest(one)


def test_values_that_hold_the_same_are_the_same():
    assert digest(Holder([1, torch.ones(2)])) == digest(Holder([1, torch.ones(2)]))
    assert digest({"a", "b", "c"}) == digest({"c", "b", "a"})
    assert digest(eval("lambda: K", {"K": 1})) == digest(eval("lambda: K", {"K": 1}))
    loop = []
    loop.append(loop)
    assert digest(loop) == digest(loop)


def test_a_path_is_what_is_there(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"1")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    (tmp_path / "b" / "weights").write_bytes(b"2")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    assert digest(tmp_path / "a", paths=False) == digest(Path("not there"), paths=False)


@pytest.mark.parametrize("held", [threading.Lock(), (i for i in range(3))])
def test_what_cannot_be_compared_is_refused_before_any_work(tmp_path, held):
    def metrics(prediction, truth):
        return toy.metrics(prediction, truth) if held is not None else {}

    with pytest.raises(ValueError, match="must be functions, classes and values .* it holds a "):
        toy.run(tmp_path / "results", changes={"metrics": metrics})
    assert not (tmp_path / "results").exists()
    with pytest.raises(Unidentified):
        digest(Holder(held))
