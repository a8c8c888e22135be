"""Fusions as estimators: what they learn, what they take, and what they refuse."""

import copy
import pickle
import random

import numpy as np
import pandas as pd
import polars
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from torch import nn

from deq_fusion.fusion_estimator import _seed
from deq_fusion.training import cut_validation
from unit_tests.package.models import PARTS, VIEWS, Own, X, Y, classifier, mixed, pair, regressor

close = np.testing.assert_allclose


def test_the_default_learns_what_can_be_learnt():
    from deq_fusion import FusionClassifier

    model = FusionClassifier(modalities=PARTS, epochs=60, width=16, random_state=0).fit(X, Y)
    assert model.fusion == "deq" and model.score(X, Y) > 0.9  # the most frequent: 0.4
    assert model.classes_.tolist() == ["barbera", "barolo", "grignolino"]
    shares = model.predict_proba(X)
    close(shares.sum(1), 1)
    assert (model.classes_[shares.argmax(1)] == model.predict(X)).all()
    assert model.n_features_in_ == 13 and not hasattr(model, "feature_names_in_")
    assert "valid_loss" in model.history_[0] and 1 <= model.best_epoch_ <= len(model.history_)


def test_scores_are_scikit_learns():
    model = classifier(modalities=PARTS).fit(X, Y)
    assert model.score(X, Y) == accuracy_score(Y, model.predict(X))
    numbers = regressor(modalities=PARTS).fit(X[:, :12], X[:, 12])
    assert numbers.score(X[:, :12], X[:, 12]) == r2_score(X[:, 12], numbers.predict(X[:, :12]))


def test_numbers_are_learnt_in_their_own_units():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 4))
    y = 5e4 + 1e3 * (x[:, 0] - 2 * x[:, 2])
    parts = {"a": [0, 1], "b": [2, 3]}
    model = regressor("concat", modalities=parts, epochs=60, width=16, lr=1e-2).fit(x, y)
    assert model.score(x, y) > 0.9
    small = regressor("concat", modalities=parts, epochs=60, width=16, lr=1e-2).fit(x, y * 1e-9)
    close(small.predict(x) * 1e9, model.predict(x), rtol=1e-3)


def test_a_dict_is_the_matrix_cut_into_columns():
    by_matrix, by_dict = classifier(modalities=PARTS).fit(X, Y), classifier().fit(VIEWS, Y)
    close(by_dict.predict_proba(VIEWS), by_matrix.predict_proba(X), rtol=1e-12)
    frames = {name: pd.DataFrame(view).add_prefix("c") for name, view in VIEWS.items()}
    polar = {name: polars.from_pandas(frame) for name, frame in frames.items()}
    close(classifier().fit(frames, Y).predict_proba(polar), by_dict.predict_proba(VIEWS))
    assert by_dict.n_features_in_ == 13


def test_a_frame_is_cut_by_names():
    frame = pd.DataFrame(X).add_prefix("c")
    names = {"acid": [f"c{i}" for i in range(6)], "colour": [f"c{i}" for i in range(6, 13)]}
    model = classifier(modalities=names).fit(frame, Y)
    close(model.predict_proba(frame), classifier(modalities=PARTS).fit(X, Y).predict_proba(X))
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert not hasattr(model.set_params(modalities=None).fit(VIEWS, Y), "feature_names_in_")
    model.set_params(modalities=names).fit(frame, Y)
    masks = {"acid": np.arange(13) < 6, "colour": range(6, 13)}
    close(classifier(modalities=masks).fit(X, Y).predict_proba(X), model.predict_proba(frame))


def test_text_and_missing_cells_are_taken():
    frame, y = mixed()
    model = classifier(modalities={"who": ["age", "sex"], "what": ["treated", "dose"]})
    model.fit(frame, y)
    assert model.columns_["who"].shape == (3,) and model.predict(frame).shape == (40,)


def test_what_an_absent_modality_would_hold_does_not_matter():
    views = {name: view.copy() for name, view in VIEWS.items()}
    views["acid"][::3] = np.nan
    for fusion in ("deq", "concat"):
        model = classifier(fusion).fit(views, Y)
        shares = model.predict_proba(views)
        assert np.isfinite(shares).all()
        alone = model.predict_proba({"acid": None, "colour": VIEWS["colour"]})
        close(alone[::3], shares[::3], atol=1e-9)
        assert abs(alone[1] - shares[1]).max() > 1e-6


def test_sequences_go_through_a_gru():
    draw = np.random.default_rng(0)
    views = {"speech": draw.normal(size=(60, 5, 3)), "face": draw.normal(size=(60, 4))}
    y = views["speech"].sum(1)[:, 0] > 0
    model = classifier(epochs=40, lr=1e-2, patience=40).fit(views, y)
    assert model.score(views, y) > 0.8 and model.columns_["speech"].shape == (5, 3)
    assert set(map(bool, model.classes_)) == {False, True}


def test_several_labels_and_several_numbers():
    y = pd.DataFrame({"strong": X[:, 0] > 13, "dark": X[:, 9] > 5}).astype(int)
    model = classifier(modalities=PARTS, epochs=20, lr=1e-2).fit(X, y)
    assert model.predict_proba(X).shape == (178, 2) and model.score(X, y) > 0.5
    assert model.target_.names == ("strong", "dark") and model.classes_.tolist() == [0, 1]
    numbers = regressor(modalities=PARTS).fit(X, X[:, :2])
    assert numbers.predict(X).shape == (178, 2)


def test_weights_are_repetitions_and_no_weight_is_no_row():
    kept = np.ones(178)
    kept[100:] = 0
    model = classifier(modalities=PARTS).fit(X, Y, sample_weight=3 * kept)
    again = classifier(modalities=PARTS).fit(X[:100], Y[:100])
    close(model.predict_proba(X), again.predict_proba(X), rtol=1e-5)


def test_balanced_classes_are_weighted_as_if_there_were_equally_many():
    rows = np.r_[0:59, 59:64]  # 59 of one class, 5 of the other
    plain, balanced = (
        classifier("concat", modalities=PARTS, epochs=3, class_weight=w, validation_fraction=0.0)
        for w in (None, "balanced")
    )
    weight = np.where(Y[rows] == "barolo", 64 / 2 / 59, 64 / 2 / 5)
    by_hand = clone(plain).fit(X[rows], Y[rows], sample_weight=weight)
    close(balanced.fit(X[rows], Y[rows]).predict_proba(X), by_hand.predict_proba(X), rtol=1e-6)
    named = clone(plain).set_params(class_weight={"barolo": 1, "grignolino": 59 / 5})
    close(named.fit(X[rows], Y[rows]).predict_proba(X), by_hand.predict_proba(X), rtol=1e-4)


def global_state():
    _, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()


def test_a_fit_is_repeatable_and_leaves_the_global_generators_alone():
    before = global_state()
    models = [classifier("deq", modalities=PARTS, epochs=2).fit(X, Y) for _ in range(2)]
    other = classifier("deq", modalities=PARTS, epochs=2, random_state=1).fit(X, Y)
    classifier(modalities=PARTS, epochs=1, random_state=None).fit(X, Y).predict(X)
    first, second = (model.predict_proba(X) for model in models)
    assert (first == second).all() and abs(other.predict_proba(X) - first).max() > 1e-4
    assert global_state() == before


def test_a_row_is_predicted_alike_whatever_is_beside_it():
    model = classifier("deq", modalities=PARTS).fit(X, Y)
    alone = np.concatenate([model.predict_proba(X[i : i + 1]) for i in range(5)])
    close(alone, model.predict_proba(X)[:5], rtol=1e-9)


@pytest.mark.parametrize("fusion", ["deq", "late", "evidential", Own, pair])
def test_copies_predict_the_same(fusion):
    model = classifier(fusion, modalities=PARTS).fit(X, Y)
    expected = model.predict_proba(X)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert (again.predict_proba(X) == expected).all()
    unfitted = clone(model)
    assert unfitted.get_params() == model.get_params() and not hasattr(unfitted, "network_")


def test_ones_own_fusion_and_encoders():
    model = classifier(Own, modalities=PARTS, fusion_options={"scale": 0.5}).fit(X, Y)
    assert isinstance(model.network_.fusion, Own) and model.network_.fusion.scale == 0.5
    assert classifier(pair, modalities=PARTS).fit(X, Y).network_.head.in_features == 11
    encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
    before = encoder[0].weight.detach().clone()
    model = classifier(Own, modalities=PARTS, encoders={"acid": encoder}).fit(X, Y)
    assert model.network_.encoders[0][0].weight.shape == (5, 6)
    torch.testing.assert_close(encoder[0].weight, before, rtol=0, atol=0)  # a copy is trained


class Single(nn.Module):
    """An encoder that makes float32 of whatever comes."""

    def forward(self, x):
        return x + torch.nn.functional.linear(x.float(), torch.eye(6, dtype=torch.float32))


def test_modules_that_cannot_do_double_precision_stay_single():
    class Map(nn.Module):
        def __init__(self, input_dims, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(sum(input_dims), dim))

        def forward(self, features):
            return torch.cat(features, 1).float() @ self.weight

    model = classifier(Map, modalities=PARTS).fit(X, Y)
    assert model.network_.head.weight.dtype == torch.float32
    assert model.predict(X).shape == (178,)
    model = classifier(Own, modalities=PARTS, encoders={"acid": Single()}).fit(X, Y)
    assert model.network_.head.weight.dtype == torch.float64


def test_few_rows_are_all_learnt_from():
    model = classifier().fit(X[[0, 1, 60, 61, 150]], Y[[0, 1, 60, 61, 150]])
    assert len(model.history_) == 4 and "valid_loss" not in model.history_[0]


REFUSED = {
    "unknown fusion": ({"fusion": "glue"}, "unknown fusion 'glue'; choose from deq, "),
    "misspelt fusion": ({"fusion": "concatt"}, "'concatt'; did you mean concat. or choose from"),
    "an instance": ({"fusion": nn.Linear(2, 2)}, "fusion must be a name, or a class.*got Linear"),
    "too many": (
        {"fusion": "film", "modalities": None},
        "'film' takes 2 modalities, and there is 1; take",
    ),
    "sequences": ({"fusion": "early_gru"}, "'early_gru' does not take vectors; take another"),
    "options": ({"fusion_options": {"size": 3}}, r"fusion_options must suit.*\['size'\]"),
    "no dict": ({"fusion_options": 3}, "fusion_options must be a dict, got int"),
    "no module": ({"fusion": lambda dims, dim: 3}, "a fusion must be an nn.Module, .* is a int"),
    "no modalities": ({"modalities": []}, "modalities must be a dict such as"),
    "no columns": ({"modalities": {"a": slice(20, 30)}}, "'a' must have a column, but slice"),
    "a column": ({"modalities": {"a": [13]}}, "'a' must have columns from 0 to 12, got 13"),
    "a name": ({"modalities": {"a": ["age"]}}, "'a' must have columns of X, but 'age': X is an"),
    "encoders": ({"encoders": {"b": nn.ReLU()}}, r"encoders must be of the modalities.*\['b'\]"),
    "width": ({"width": 1}, "width must be a whole number from 2 up, got 1"),
    "epochs": ({"epochs": 2.5}, "epochs must be a whole number from 1 up, got 2.5"),
    "patience": ({"patience": 0}, "patience must be a whole number from 1 up"),
    "batch_size": ({"batch_size": 0}, "batch_size must be a whole number from 1 up"),
    "lr": ({"lr": 0}, "lr must be a positive number, got 0"),
    "dropout": ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    "weight_decay": ({"weight_decay": -1}, "weight_decay must be at least 0 and below inf"),
    "validation": ({"validation_fraction": 1.0}, "validation_fraction must be at least 0 and"),
    "device": ({"device": "abacus"}, "device must be one that torch has here.*'abacus'"),
    "class_weight": ({"class_weight": "heavy"}, "class_weight"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_arguments_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**{"modalities": PARTS} | options).fit(X, Y)


def test_data_that_are_refused():
    empty = {name: np.full_like(view, np.nan) for name, view in VIEWS.items()}
    for model, x, y, message in (
        (classifier(), X, None, "requires y to be passed, but the target y is None"),
        (classifier(), VIEWS, Y[:-1], "inconsistent numbers of samples"),
        (classifier(), {"a": X, "b": X[:-1]}, Y, r"all of them the same rows.*join the tables"),
        (classifier(), {"a": X, "b": None}, Y, "to fit, X must have a view of every modality"),
        (classifier(), {}, Y, "X must have a modality"),
        (classifier(), empty, Y, "every row must have a modality, but 178 of 178 have none"),
        (classifier(modalities=PARTS), VIEWS, Y, "modalities must be None where X is a dict"),
        (classifier(), X, np.full(178, "a"), "y must have two classes at least"),
        (classifier("early_transformer"), VIEWS, Y, "does not take vectors; take another"),
        (regressor("evidential"), VIEWS, X[:, 0], "'evidential' does not do regression; take"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, y)
    with pytest.raises(ValueError, match="sample_weight must be positive|zero"):
        classifier().fit(VIEWS, Y, sample_weight=np.zeros(178))
    with pytest.raises(ValueError, match="[Nn]egative"):
        classifier().fit(VIEWS, Y, sample_weight=np.full(178, -1.0))


def test_what_is_refused_of_a_fitted_one():
    matrix, views = classifier(modalities=PARTS).fit(X, Y), classifier().fit(VIEWS, Y)
    with pytest.raises(ValueError, match="X must be a dict of .*'acid'.* got a ndarray"):
        views.predict(X)
    with pytest.raises(ValueError, match="X must have the modalities.* got .*'smell'"):
        views.predict({"acid": VIEWS["acid"], "smell": X})
    with pytest.raises(ValueError, match="acid must have 6 columns"):
        views.predict({"acid": X, "colour": VIEWS["colour"]})
    clone_of_dict = classifier().fit(X, Y)
    with pytest.raises(ValueError, match="X must be one matrix or frame.* got a dict"):
        clone_of_dict.predict(VIEWS)
    with pytest.raises(ValueError, match="X has 12 features, but FusionClassifier is expecting 13"):
        matrix.predict(X[:, 1:])
    with pytest.raises(NotFittedError):
        classifier().predict(X)
    with pytest.raises(NotFittedError):
        classifier().preprocessed(X)


def test_frames_that_name_their_rows_in_different_orders_are_refused():
    frames = {name: pd.DataFrame(X[:, part]) for name, part in PARTS.items()}
    backwards = {**frames, "colour": frames["colour"][::-1]}
    with pytest.raises(ValueError, match="same rows in one order, .* acid and of colour"):
        classifier("concat").fit(backwards, Y)
    model = classifier("concat", epochs=1).fit(frames, Y)
    with pytest.raises(ValueError, match="same rows in one order"):
        model.predict(backwards)
    close(
        model.predict_proba({n: f[:9:-1] for n, f in frames.items()}),
        model.predict_proba({n: f[:9:-1].reset_index(drop=True) for n, f in frames.items()}),
    )


@pytest.mark.parametrize("kind", [classifier, regressor])
def test_rows_to_stop_by_teach_no_scale_and_no_category(kind):
    model = kind("concat", epochs=1, validation_fraction=0.2, random_state=1)
    y = Y if kind is classifier else X[:, 0]
    codes = np.unique(Y, return_inverse=True)[1] if kind is classifier else None
    kept, held = cut_validation(len(X), codes, fraction=0.2, seed=_seed(1))
    frame = pd.DataFrame(X).assign(word=np.where(np.isin(np.arange(len(X)), held), "new", "old"))
    far = frame.copy()
    far.loc[held, 0] = 1e6
    found = model.fit({"all": far}, y).columns_["all"]
    assert found.categories == {X.shape[1]: ["old"]}
    close(found.mean, X[kept].mean(axis=0))
    if kind is regressor:
        close(model.network_.mean, y[kept].mean(), rtol=1e-6)


def test_no_group_is_learnt_from_and_stopped_by():
    groups = np.arange(200) // 10
    for fraction in (0.1, 0.3):
        kept, held = cut_validation(200, None, fraction=fraction, seed=1, groups=groups)
        assert sorted([*kept, *held]) == list(range(200))
        assert not set(groups[kept]) & set(groups[held])
        assert len(held) == round(20 * fraction) * 10
    with pytest.raises(ValueError, match="groups must be two at least"):
        cut_validation(200, None, fraction=0.1, seed=1, groups=np.zeros(200))


GROUPS = np.arange(len(Y)) // 4


def test_groups_decide_what_a_fit_is_stopped_by():
    fits = [classifier(epochs=2).fit(VIEWS, Y, groups=g) for g in (None, GROUPS)]
    scales = [np.concatenate([c.mean for c in fit.columns_.values()]) for fit in fits]
    _, held = cut_validation(len(Y), None, fraction=0.15, seed=_seed(0), groups=GROUPS)
    left = np.setdiff1d(np.arange(len(Y)), held)
    first = next(iter(VIEWS))
    np.testing.assert_allclose(fits[1].columns_[first].mean, VIEWS[first][left].mean(0))
    assert not np.allclose(*scales)


def test_an_index_that_says_another_order_than_x_s_is_refused():
    names = [f"w{i}" for i in range(len(Y))]
    frames = {name: pd.DataFrame(view).set_axis(names) for name, view in VIEWS.items()}
    y = pd.Series(Y, names)
    model = classifier("concat", epochs=1)
    with pytest.raises(ValueError, match=r"y must be in the order of X, .* y.loc\[X\['acid'\].in"):
        model.fit(frames, y[::-1])
    with pytest.raises(ValueError, match="groups must be in the order of X"):
        model.fit(frames, y, groups=pd.Series(names, names)[::-1])
    shares = model.fit(frames, y).predict_proba(frames)
    np.testing.assert_array_equal(shares, model.fit(frames, y.to_numpy()).predict_proba(frames))
    model.fit(frames, y[::-1].reset_index(drop=True))  # which names no row of X
