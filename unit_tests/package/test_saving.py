"""A fitted estimator as a file: the same predictions, no code, and what is refused."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.exceptions import NotFittedError
from torch import nn

from deq_fusion import FusionClassifier, FusionRegressor
from deq_fusion.estimators import load
from deq_fusion.fusions.deq import Equations
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.saving import _digest
from unit_tests.package.models import PARTS, VIEWS, Own, X, Y, classifier, mixed, regressor


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    model = classifier("gmu", modalities=PARTS, class_weight={"barolo": 2.0, "barbera": 1.0})
    model.set_params(class_weight={name: 1.5 for name in np.unique(Y)}).fit(X, Y)
    model.save(path)
    return model, path


def test_it_predicts_the_same_and_can_be_fitted_again(saved):
    model, path = saved
    again = FusionClassifier.load(path)
    assert (again.predict_proba(X) == model.predict_proba(X)).all()
    assert again.get_params() == model.get_params()
    assert again.history_ == model.history_ and again.best_epoch_ == model.best_epoch_
    assert again.n_features_in_ == 13 and again.target_.described == model.target_.described
    assert (again.fit(X, Y).predict_proba(X) == model.predict_proba(X)).all()


@pytest.mark.parametrize("fusion", [n for n, e in FUSIONS.items() if "vectors" in e.features])
def test_every_fusion_is_saved(fusion, tmp_path):
    parts = {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, 13)}
    if FUSIONS[fusion].modalities[1] == 2:
        parts = PARTS
    model = classifier(fusion, modalities=parts, epochs=1).fit(X[::3], Y[::3])
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert (again.predict_proba(X) == model.predict_proba(X)).all()


def test_tables_of_all_kinds_are_saved(tmp_path):
    frame, y = mixed()
    views = {"who": frame[["age", "sex"]], "what": frame[["treated", "dose"]].copy()}
    views["what"]["dose"] = views["what"]["dose"].astype(np.float32)
    views["film"] = np.random.default_rng(0).normal(size=(40, 3, 2))
    views["text"] = frame[["sex"]].fillna("m")
    for model in (classifier("deq", epochs=1), regressor(epochs=1)):
        truth = y if isinstance(model, FusionClassifier) else frame["dose"].to_numpy() * 10
        model.fit(views, truth).save(tmp_path / "model")
        again = type(model).load(tmp_path / "model")
        assert (again.predict(views) == model.predict(views)).all()


def test_what_is_ones_own_is_given_again(tmp_path):
    path = tmp_path / "model"
    encoder = nn.Linear(6, 5)
    model = classifier(Own, fusion_options={"scale": 2.0}, encoders={"acid": encoder})
    model.fit(VIEWS, Y).save(path)
    with pytest.raises(ValueError, match=r"with fusion of its own.*load\(path, fusion=...\)"):
        FusionClassifier.load(path)
    with pytest.raises(ValueError, match="with encoders of its own"):
        FusionClassifier.load(path, fusion=Own)
    again = FusionClassifier.load(path, fusion=Own, encoders={"acid": nn.Linear(6, 5)})
    assert (again.predict_proba(VIEWS) == model.predict_proba(VIEWS)).all()
    with pytest.raises(ValueError, match="what was given does not fit the file"):
        FusionClassifier.load(path, fusion=Own, encoders={"acid": nn.Linear(7, 5)})
    with pytest.raises(ValueError, match="weights of this very model"):
        FusionClassifier.load(path, fusion=Own, encoders={"acid": nn.Linear(6, 4)})


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        classifier().save(tmp_path / "model")
    options = {"equations": Equations.like("paper", gate=False)}
    model = classifier("deq", modalities=PARTS, epochs=1, fusion_options=options).fit(X, Y)
    with pytest.raises(ValueError, match="fusion_options must hold numbers and text.*Equations"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_generator_of_random_states_is_not_kept(tmp_path):
    state = np.random.RandomState(0)
    classifier(epochs=1, random_state=state).fit(X, Y).save(tmp_path / "model")
    assert load(tmp_path / "model").random_state is None


def test_what_was_not_saved_with_it_is_not_taken(saved):
    with pytest.raises(ValueError, match="fitted with fusion='gmu': leave out load's fusion"):
        FusionClassifier.load(saved[1], fusion=Own)
    with pytest.raises(ValueError, match="must hold a FusionRegressor, but holds a FusionClass"):
        FusionRegressor.load(saved[1])


def changed(path, tmp_path, **metadata):
    with safe_open(path, framework="pt") as file:
        found = file.metadata()
    other = tmp_path / "changed"
    save_file(load_file(path), other, {**found, **metadata})
    return other


def test_damaged_and_foreign_files_are_refused(saved, tmp_path):
    _, path = saved
    content = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="must be a file, but is a folder"):
        load(tmp_path)
    other = tmp_path / "other"
    for cut in (b"", b"PK\3\4", content[:200], content[:-1], content + b"x"):
        other.write_bytes(cut)
        with pytest.raises(ValueError, match="is no such file, or cut short"):
            load(other)
    for place in (content.index(b"barolo"), len(content) - 9):
        flipped = bytearray(content)
        flipped[place] ^= 1
        other.write_bytes(flipped)
        with pytest.raises(ValueError, match="its checksum differs"):
            load(other)
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="of another program"):
        load(other)
    with pytest.raises(ValueError, match="its checksum differs"):
        load(changed(path, tmp_path, about="{}"))


def test_files_of_another_version_are_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("deq_fusion.saving._digest", lambda text, tensors: "right")
    for about, message in (
        ("[", "must hold JSON"),
        ("[]", "must be of the format"),
        (json.dumps({"format": "deq-fusion model 9"}), "must be of the format.*model 9"),
        (
            json.dumps({"format": "deq-fusion model 1", "kind": "FusionClassifier"}),
            "must hold one of .* with its arguments",
        ),
        (
            json.dumps(
                {
                    "format": "deq-fusion model 1",
                    "kind": "FusionClassifier",
                    "parameters": {"fusion": "gmu", "encoders": None, "width": {"slice": 3}},
                }
            ),
            "must hold a model of this version",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            load(changed(saved[1], tmp_path, about=about, sha256="right"))


def places(value, path=()):
    """The paths of all that a JSON value holds, but for the history's numbers."""
    yield path
    if path[:1] == ("history",) or not isinstance(value, dict | list):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(item, (*path, key))


@pytest.mark.filterwarnings("ignore:X has feature names")  # where the forgery has none
def test_a_forged_file_is_refused_or_a_model(tmp_path):
    frame, y = mixed()
    parts = {"who": ["age", "sex"], "what": ["treated", "dose"]}
    path, other = tmp_path / "model", tmp_path / "forged"
    classifier("sum", modalities=parts, epochs=1).fit(frame, y).save(path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    tensors, draw, refused = load_file(path), random.Random(0), 0
    for place in list(places(about))[1:]:
        *inner, last = place
        forged = found = json.loads(json.dumps(about))
        for key in inner:
            found = found[key]
        found[last] = draw.choice([None, -1, 1.5, "x", [], {}, [1], {"list": []}, True])
        text = json.dumps(forged)
        save_file(tensors, other, {"about": text, "sha256": _digest(text, tensors)})
        try:
            load(other).predict(frame)
        except ValueError:
            refused += 1
    assert refused > 40


def test_loading_draws_no_number(saved):
    before = torch.get_rng_state()
    load(saved[1])
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
