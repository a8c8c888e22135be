"""Exported networks compute what the estimator does; what cannot be exported says so."""

import builtins

import numpy as np
import pandas as pd
import pytest
import torch

from deq_fusion import export
from unit_tests.package.models import PARTS, VIEWS, X, Y, classifier, mixed, regressor

# torch says so of itself
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
UNROLLED = {"unroll": 1}
onnx = pytest.param("onnx", marks=pytest.mark.slow)
endings = pytest.mark.parametrize("ending", ["pt2", onnx])


def run(path, **inputs):
    """What an exported program makes of float32 inputs, and of who is there as bool."""
    kinds = {name: bool if name == "present" else np.float32 for name in inputs}
    given = {name: np.asarray(value, kinds[name]) for name, value in inputs.items()}
    if path.suffix == ".pt2":
        program = torch.export.load(path).module()
        return program(*map(torch.from_numpy, given.values())).detach().numpy()
    reference = pytest.importorskip("onnx.reference")
    return reference.ReferenceEvaluator(str(path)).run(None, given)[0]


@endings
@pytest.mark.parametrize("fusion", ["deq", "gmu"])
def test_raw_numbers_in_probabilities_out(fusion, ending, tmp_path):
    if ending == "onnx":
        pytest.importorskip("onnxscript")
    options = UNROLLED if fusion == "deq" else None
    model = classifier(fusion, modalities=PARTS, fusion_options=options).fit(X, Y)
    path = tmp_path / f"model.{ending}"
    said = "takes X (raw numbers, NaN where missing, float32), and returns probabilities"
    assert model.export(path) == said
    holes = X.copy()
    holes[::3, :6], holes[1, 8] = np.nan, np.nan  # absent modalities, a missing cell
    for rows in (X, X[:1], holes):
        np.testing.assert_allclose(run(path, X=rows), model.predict_proba(rows), atol=2e-6)


@endings
def test_a_dict_has_an_input_for_each_modality(ending, tmp_path):
    if ending == "onnx":
        pytest.importorskip("onnxscript")
    draw = np.random.default_rng(0)
    views = {"speech": draw.normal(3, 2, (40, 4, 3)), "face": draw.normal(size=(40, 2))}
    y = 100 + 10 * views["face"][:, 0]
    model = regressor("concat").fit(views, y)
    path = tmp_path / f"model.{ending}"
    assert "takes speech, face (raw numbers" in model.export(path)
    found = run(path, **{name: view[:7] for name, view in views.items()})
    few = {name: view[:7] for name, view in views.items()}
    np.testing.assert_allclose(found[:, 0], model.predict(few), rtol=1e-5)


def test_of_text_the_encoded_columns_go_in(tmp_path):
    frame, y = mixed()
    model = classifier(modalities={"who": ["age", "sex"], "what": ["treated", "dose"]})
    model.fit(frame, y)
    path = tmp_path / "model.pt2"
    said = "takes who, what, present (what deq_fusion.FusionClassifier.load(MODEL).preprocessed("
    assert model.export(path).startswith(f"{said}tables) returns, as tensors, float32, and bool")
    given, present = model.preprocessed(frame)
    assert present.all() and given["who"].shape == (40, 3)
    found = run(path, **given, present=present)
    np.testing.assert_allclose(found, model.predict_proba(frame), atol=2e-6)


def test_of_text_the_program_is_told_which_rows_lack_a_modality(tmp_path):
    frame, y = mixed()
    model = classifier("sum", modalities={"who": ["age", "sex"], "what": ["treated", "dose"]})
    frame["treated"] = frame["treated"].astype(object)
    frame.loc[::3, ["treated", "dose"]] = None
    model.fit(frame, y).export(tmp_path / "model.pt2")
    given, present = model.preprocessed(frame)
    assert (~present[::3, 1]).all() and present.sum() == 80 - 14
    found = run(tmp_path / "model.pt2", **given, present=present)
    np.testing.assert_allclose(found, model.predict_proba(frame), atol=2e-6)


def test_several_labels_are_probabilities_of_each(tmp_path):
    y = pd.DataFrame({"strong": X[:, 0] > 13, "dark": X[:, 9] > 5}).astype(int)
    model = classifier("concat").fit(X, y)
    model.export(tmp_path / "model.pt2")
    np.testing.assert_allclose(run(tmp_path / "model.pt2", X=X), model.predict_proba(X), atol=2e-6)


def test_an_equilibrium_names_the_option_that_exports(tmp_path):
    model = classifier("deq", epochs=1).fit(VIEWS, Y)
    assert export.solves(model.network_)
    with pytest.raises(ValueError, match=r'fixed number of steps.*fusion_options=\{"unroll": 6\}'):
        model.export(tmp_path / "model.pt2")
    with pytest.raises(ValueError, match=r"compare \.\.\. --option deq\.unroll=6 --save MODEL"):
        model.export(tmp_path / "model.pt2")
    for other in (classifier("deq", epochs=1, fusion_options=UNROLLED), classifier("concat")):
        assert not export.solves(other.fit(VIEWS, Y).network_)
    assert not list(tmp_path.iterdir())


def test_what_is_refused(tmp_path, monkeypatch):
    model = classifier("attention", epochs=1).fit(VIEWS, Y)
    with pytest.raises(ValueError, match="torch.export must follow the whole network.*another"):
        model.export(tmp_path / "model.pt2")
    with pytest.raises(ValueError, match="must end in .pt2 or .onnx, got 'model.pt'"):
        model.export(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="not fitted yet"):
        classifier().export(tmp_path / "model.pt2")
    model = classifier("concat", epochs=1).fit(VIEWS, Y)
    found = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("onnx"):
            raise ImportError(f"No module named {name!r}")
        return found(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"needs onnx and onnxscript: pip install onnx onnxscript"):
        model.export(tmp_path / "model.onnx")


def test_an_export_that_computes_otherwise_is_not_written(tmp_path, monkeypatch):
    def wrong(program, rows):
        content, found = saved(program, rows)
        return content, found + 0.01

    saved = export._saved
    monkeypatch.setattr(export, "_saved", wrong)
    model = classifier("concat", epochs=1).fit(VIEWS, Y)
    with pytest.raises(ValueError, match="must compute what the network does, but is off by 0.01"):
        model.export(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
