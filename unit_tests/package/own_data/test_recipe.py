"""One's own data as a recipe: what train teaches, what a batch holds, and what is identified."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.own_data import own_data
from deq_fusion.training_structures.comparison.identity.code import Code
from deq_fusion.training_structures.comparison.identity.values import Values

N = 90
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(N, 4)), RNG.normal(size=(N, 3))
Y = np.array(["cat", "cow", "dog"])[
    (A[:, 0] + B[:, 0] + RNG.normal(size=N) / 2 > 0).astype(int) + (A[:, 1] > 0.5)
]
TABLES = {"a": A, "b": B}
NOTES = [f"note {2 * i // 3}" for i in range(N)]


def tensors(recipe, run=0, modalities=None):
    return [loader.dataset.tensors for loader in recipe.load(run, modalities or recipe.modalities)]


def words(values):
    return pd.DataFrame(values, columns=["p", "q", "r"]).assign(
        site=np.array(["x", "y"])[np.arange(N) % 2]
    )


def test_batches_are_scaled_by_train_and_split_by_the_run():
    own = own_data(TABLES, Y)
    train, valid, test = own.recipe.load.args[0].splits(2)
    parts = tensors(own.recipe, run=2)
    scaler = StandardScaler().fit(A[train])
    for rows, part in zip((train, valid, test), parts, strict=True):
        np.testing.assert_allclose(part[0], scaler.transform(A[rows]), rtol=1e-5, atol=1e-6)
        assert (own.target.classes[part[-1]] == Y[rows]).all()
    assert [len(part) for part in parts] == [3, 3, 3]
    assert own.runs == 20 and own.recipe.resplit


@pytest.mark.parametrize("absent", [False, True])
def test_nothing_of_valid_and_test_rows_enters_what_train_teaches(absent):
    def train_tensors(change):
        tables = {"a": A.copy(), "b": words(B)}
        tables["a"][5, 1] = np.nan
        if absent:
            tables["a"][7] = np.nan
        if change is not None:
            tables["a"][change] = 1e6
            tables["b"].loc[change, ["p", "q", "r"]] = [1e9, np.nan, -1e9]
            tables["b"].loc[change, "site"] = "elsewhere"
        return tensors(own_data(tables, Y).recipe)[0]

    splits = own_data(TABLES, Y).recipe.load.args[0].splits
    before = train_tensors(None)
    for held in splits(0)[1:]:
        after = train_tensors(held[~np.isin(held, [5, 7])][:3])
        assert len(before) == len(after)
        torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_absent_modalities_are_told_and_zero():
    names = np.array([f"P{i}" for i in range(N)])
    frames = {"a": pd.DataFrame(A, names), "b": pd.DataFrame(B, names)[10:]}
    own = own_data(frames, pd.Series(Y, names))
    for rows, part in zip(own.recipe.load.args[0].splits(0), tensors(own.recipe), strict=True):
        np.testing.assert_array_equal(part[2], np.stack([rows >= 0, rows >= 10], 1))
        assert (part[1][rows < 10] == 0).all() and (part[1][rows >= 10] != 0).all()
    assert tensors(own.recipe, modalities=["b"])[0][1].shape == (54, 1)


def test_weights_are_one_on_average_over_train_and_balance_classes():
    weight = RNG.uniform(1, 3, N)
    own = own_data(TABLES, Y, sample_weight=weight, class_weight="balanced")
    (rows, held, _), parts = own.recipe.load.args[0].splits(0), tensors(own.recipe)
    totals = {name: weight[rows][Y[rows] == name].sum() for name in set(Y)}
    expected = weight / [totals[name] for name in Y]
    expected /= expected[rows].mean()
    np.testing.assert_allclose(parts[0][2], expected[rows], rtol=1e-5)
    np.testing.assert_allclose(parts[1][2], expected[held], rtol=1e-5)
    sums = [parts[0][2][parts[0][-1] == code].sum() for code in range(3)]
    np.testing.assert_allclose(sums, len(rows) / 3, rtol=1e-5)


def test_a_test_set_is_scaled_by_train_and_the_same_in_every_run():
    more = {"a": RNG.normal(size=(20, 4)) + 50, "b": RNG.normal(size=(20, 3))}
    more["b"][3] = np.nan
    own = own_data(TABLES, Y, test=(more, Y[:20]), class_weight="balanced")
    assert own.runs == 10 and not own.recipe.resplit
    train, valid, _ = own.recipe.load.args[0].splits(1)
    parts = tensors(own.recipe, run=1)
    assert [len(part[0]) for part in parts] == [72, 18, 20]
    np.testing.assert_allclose(
        parts[2][0], StandardScaler().fit(A[train]).transform(more["a"]), rtol=1e-4
    )
    assert [tuple(x.dtype for x in part) for part in parts] == [
        (torch.float32, torch.float32, torch.bool, torch.float32, torch.int64)
    ] * 3
    assert "test set: 1 rows of b are empty, which counts as absent" in own.said


def test_columns_of_a_test_set_may_come_in_another_order():
    frame, held = words(B), words(B)[["site", "r", "q", "p"]]
    parts = tensors(own_data({"b": frame}, Y, test=({"b": held}, Y)).recipe)
    train, _, _ = own_data({"b": frame}, Y, test=({"b": held}, Y)).recipe.load.args[0].splits(0)
    torch.testing.assert_close(parts[2][0][train], parts[0][0], rtol=0, atol=0)


def test_columns_of_names_are_left_out_and_said():
    own = own_data(
        {"a": A, "b": words(B).assign(note=NOTES)},
        Y,
        test=({"a": A, "b": words(B).assign(note="seen")}, Y),
    )
    assert "column note is left out: its words differ in most rows" in own.said
    assert "words of b, a column for each: site (2)" in own.said
    assert tensors(own.recipe)[0][1].shape[1] == 5
    with pytest.raises(
        ValueError, match="table b must have a column that is a feature, but has words"
    ):
        own_data({"a": A, "b": pd.DataFrame({"note": NOTES})}, Y)


@pytest.mark.parametrize("fusion", ["deq", "concat", "late"])
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_models_take_vectors_sequences_and_absence(fusion, task):
    y = {
        "classification": Y,
        "multilabel": (A[:, :2] + RNG.normal(size=(N, 2)) > 0).astype(int),
        "regression": A[:, 0] + B[:, 0],
    }[task]
    sequences = np.repeat(B[:, None], 5, axis=1) + RNG.normal(size=(N, 5, 3))
    sequences[4] = np.nan
    own = own_data({"a": A, "b": sequences}, y)
    assert own.recipe.task == task
    train = own.recipe.load(0, own.recipe.modalities)[0]
    torch.manual_seed(0)
    options = {"outputs": own.target.outputs, "task": task} if FUSIONS[fusion].predicts else {}

    def make(dims, dim, outputs):
        built, width = FUSIONS[fusion](dims, dim, **options)
        return built, width

    model = own.recipe.build(make, train)
    *inputs, truth = next(iter(train))
    output = model(inputs)
    loss = own.recipe.objective(*(output if isinstance(output, tuple) else (output,))[:1], truth)
    assert torch.isfinite(loss)
    scores = own.recipe.metrics(model.outputs(inputs[:2], inputs[2]).detach(), truth)
    assert own.recipe.scores[0].name in scores


def test_own_encoders_go_by_their_modality():
    own = own_data(TABLES, Y, encoders={"b": nn.Linear(3, 9)})
    train = own.recipe.load(0, ["b"])[0]
    model = own.recipe.build(lambda dims, dim, outputs: (nn.Linear(dims[0], dim), dim), train)
    assert isinstance(model.encoders[0], nn.Linear) and model.encoders[0].out_features == 9


def test_floors_are_scikit_learns():
    own = own_data(TABLES, Y)
    train, valid, test = own.recipe.load(0, own.recipe.modalities)
    known = np.concatenate([torch.cat(part.dataset.tensors[:2], 1) for part in (train, valid)])
    labels = np.concatenate([part.dataset.tensors[-1] for part in (train, valid)])
    held = torch.cat(test.dataset.tensors[:2], 1).numpy()
    constant = own.recipe.floors["most frequent"]([train, valid], test)
    np.testing.assert_allclose(
        constant.exp(), np.broadcast_to(np.bincount(labels) / len(labels), (18, 3)), rtol=1e-5
    )
    linear = own.recipe.floors["linear"]([train, valid], test)
    fits = [
        LogisticRegression(C=c, max_iter=1000).fit(known, labels).predict_log_proba(held)
        for c in (0.01, 0.1, 1.0)
    ]
    assert any(np.allclose(linear, fit, atol=1e-4) for fit in fits)


def test_floors_of_numbers_are_scikit_learns():
    y = A[:, 0] + B[:, 0]
    own = own_data(TABLES, y, sample_weight=np.arange(1, N + 1))
    train, valid, test = own.recipe.load(0, own.recipe.modalities)
    known, scored = [
        np.concatenate([torch.cat(p.dataset.tensors[:2], 1) for p in parts])
        for parts in ((train,), (test,))
    ]
    model = Ridge(alpha=30.0).fit(known, train.dataset.tensors[-1], train.dataset.tensors[2])
    np.testing.assert_allclose(
        own.recipe.floors["linear"]([train], test), model.predict(scored).reshape(-1, 1), rtol=1e-4
    )
    mean = own.recipe.floors["mean"]([train], test)
    rows = own.recipe.load.args[0].splits(0)[0]
    np.testing.assert_allclose(
        mean, np.full((18, 1), np.average(y[rows], weights=rows + 1)), rtol=1e-4
    )


def digest(value):
    return Values(Code()).digest(value)


def test_the_recipe_can_be_told_from_others_by_its_cells_alone():
    tables = {"a": A, "b": words(B)}
    load = own_data(tables, Y).recipe.load
    assert digest(load) == digest(own_data({k: v.copy() for k, v in tables.items()}, Y).recipe.load)
    assert digest(load) == digest(pickle.loads(pickle.dumps(load)))
    changed = words(B)
    changed.loc[4, "site"] = "z"
    assert digest(load) != digest(own_data({"a": A, "b": changed}, Y).recipe.load)
    assert digest(load) != digest(own_data(tables, Y, groups=np.arange(N) // 2).recipe.load)
    again = pickle.loads(pickle.dumps(load))
    for mine, theirs in zip(load(0, ["a", "b"]), again(0, ["a", "b"]), strict=True):
        torch.testing.assert_close(mine.dataset.tensors, theirs.dataset.tensors, rtol=0, atol=0)


@pytest.mark.parametrize(("groups", "warned"), [(19, True), (20, False)])
@pytest.mark.parametrize("folds", [None, 4])
def test_it_is_said_that_groups_are_few(groups, warned, folds):
    said = own_data(TABLES, Y, groups=np.arange(N) % groups, folds=folds).said
    assert any(line.startswith(f"there are only {groups} groups") for line in said) == warned


def test_words_of_a_test_set_that_no_other_row_has_are_said():
    held = words(B).assign(site=np.array(["x", "far", "away"])[np.arange(N) % 3])
    own = own_data({"a": A, "b": words(B)}, Y, test=({"a": A, "b": held}, Y))
    told = "site of b has words that were not there to learn from, in 60 rows: far, away; they"
    assert (
        f"test set: {told} count as missing" in own.said and own.recipe.about[-3:] == own.said[-3:]
    )


def test_what_is_said_of_many_columns_is_short():
    many = pd.DataFrame({f"w{i}": np.array(["u", "v"])[np.arange(N) % 2] for i in range(40)})
    said = own_data({"a": A, "b": many.assign(**{f"n{i}": NOTES for i in range(30)})}, Y).said
    assert "columns n0, n1, n2, n3, n4, n5, n6, n7 and 22 more are left out: their words" in said[1]
    assert said[2].startswith("words of b, a column for each: w0 (2), w1 (2)")
    assert said[2].endswith("w7 (2) and 32 more") and len(said) == 6


def test_what_was_understood_is_printed_in_short():
    assert len(repr(own_data({"a": np.c_[A, B]}, Y))) < 600


def test_what_was_understood_is_said():
    said = own_data(TABLES, Y, groups=np.arange(N) // 2, folds=4).said
    assert said[0] == "90 rows, joined in order"
    assert said[1].startswith("classification into 3 classes: cat (")
    assert said[2].startswith("4 folds, stratified by class, no one of 45 groups in two parts")


def test_settings_are_of_every_network_its_training_and_the_model_that_is_kept():
    settings = {"width": 10, "dropout": 0.5, "lr": 0.01, "weight_decay": 0, "batch_size": 16}
    own = own_data(TABLES, Y, settings={**settings, "patience": 3}).bounded(2)
    recipe = own.recipe
    train, *_ = recipe.load(0, recipe.modalities)
    assert len(next(iter(train))[-1]) == 16 and recipe.patience == 3 and recipe.epochs == 2
    network = recipe.build(lambda widths, dim, outputs: (nn.Identity(), dim), train)
    assert network.head.in_features == 10 and network.encoders[0].fc.out_features == 10
    (group,) = recipe.optimizer(network.parameters()).param_groups
    assert group["lr"] == 0.01 and group["weight_decay"] == 0
    model = recipe.refit("concat", FUSIONS["concat"], {}, lr=0.02)  # as a search has chosen
    assert {name: getattr(model, name) for name in settings} == {**settings, "lr": 0.02}
    assert model.patience == 3 and model.epochs == 2
    told = "every network: width 10, dropout 0.5 in the encoders; AdamW, lr 0.01, weight_decay 0, "
    told += "batch_size 16, at most 2 epochs, ended after 3 (patience) without a better validation"
    assert own.said[-1] == recipe.about[-1] == f"{told} loss"


def test_settings_that_make_no_sense_are_refused():
    for settings, said in (
        ({"epochs": 3}, "settings must be some of width, .* got 'epochs'"),
        ({"width": "wide"}, "width must be a whole number from 2 up, got 'wide'"),
        ({"lr": 0}, "lr must be a positive number, got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            own_data(TABLES, Y, settings=settings)
