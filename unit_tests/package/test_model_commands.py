"""Saved models on a command line: new rows in files, what is assumed, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from deq_fusion import predict_data
from deq_fusion.fusion_estimator import UnseenWords
from deq_fusion.fusions.adapters import concat_linear
from deq_fusion.model_commands import export, predict
from deq_fusion.own_data.new_rows import predicted
from unit_tests.package.models import PARTS, X, Y, classifier, regressor

NAMES = {"acid": [f"a{i}" for i in range(6)], "colour": [f"c{i}" for i in range(7)]}
FRAMES = {name: pd.DataFrame(X[:, PARTS[name]], columns=NAMES[name]) for name in PARTS}
ROWS = pd.Index([f"w{i}" for i in range(178)], name="wine")
close = np.testing.assert_allclose


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("commands")
    model = classifier("gmu").fit(FRAMES, Y)
    model.save(folder / "model")
    for name, frame in FRAMES.items():
        frame.set_index(ROWS).to_csv(folder / f"{name}.csv")
    np.save(folder / "acid.npy", X[:, PARTS["acid"]])
    regressor("concat").fit(X, X[:, 0] * 3).save(folder / "numbers")
    pd.DataFrame(X).to_csv(folder / "all.csv", index=False)
    matrix = {name: list(names) for name, names in NAMES.items()}
    whole = pd.concat(FRAMES.values(), axis=1)
    classifier("gmu", modalities=matrix).fit(whole, Y).save(folder / "whole")
    whole.iloc[:, ::-1].to_csv(folder / "whole.csv", index=False)
    return folder, model


def run(folder, model, *args, **tables):
    """The predictions that the command writes."""
    given = [word for n, path in tables.items() for word in ("--table", f"{n}={folder / path}")]
    output = folder / "predictions.csv"
    predict([str(folder / model), *given, "--output", str(output), *args])
    return pd.read_csv(output, index_col=0)


def test_rows_are_joined_by_their_names(folder, capsys):
    folder, model = folder
    FRAMES["colour"].set_index(ROWS)[::-1].to_csv(folder / "back.csv")
    found = run(folder, "model", acid="acid.csv", colour="back.csv")
    assert found.index.equals(ROWS) and found.columns[0] == "prediction"
    assert "lacks" not in found
    expected = model.predict_proba(FRAMES)
    close(found[[f"probability {name}" for name in model.classes_]], expected, rtol=1e-6)
    assert (found["prediction"] == model.predict(FRAMES)).all()
    out = capsys.readouterr()
    assert "178 predictions in " in out.out and out.err == "rows joined by wine\n"


def test_frames_are_predicted_in_python_as_files_are(folder, capsys):
    folder, model = folder
    tables = {name: frame.set_index(ROWS) for name, frame in FRAMES.items()}
    tables["colour"] = tables["colour"][::-1].assign(new=1.0)
    with pytest.raises(ValueError, match=r"but has \['new'\] \(1\) besides; predict_data"):
        model.predict({**FRAMES, "colour": FRAMES["colour"].assign(new=1.0)})
    for given in (model, folder / "model"):
        found = predict_data(given, tables)
        assert found.index.equals(ROWS)
        assert (found["prediction"] == model.predict(FRAMES)).all()
        assert "rows joined by wine" in capsys.readouterr().err


def test_a_model_with_a_fusion_of_ones_own_is_told_which(folder, capsys):
    folder, _ = folder
    own = classifier(concat_linear, epochs=1).fit(FRAMES, Y)
    own.save(folder / "own")
    with pytest.raises(SystemExit, match="2"):
        run(folder, "own", acid="acid.csv", colour="colour.csv")
    assert "or --own-fusion MODULE:NAME" in capsys.readouterr().err
    name = "deq_fusion.fusions.adapters:concat_linear"
    found = run(folder, "own", "--own-fusion", name, acid="acid.csv", colour="colour.csv")
    assert (found["prediction"] == own.predict(FRAMES)).all()


def test_rows_that_a_table_lacks_lack_the_modality(folder, capsys):
    folder, model = folder
    FRAMES["colour"].set_index(ROWS)[10:].to_csv(folder / "few.csv")
    found = run(folder, "model", "--id", "wine", acid="acid.csv", colour="few.csv")
    views = {name: frame.copy() for name, frame in FRAMES.items()}
    views["colour"].iloc[:10] = np.nan
    close(found.iloc[:, 1:-1], model.predict_proba(views), rtol=1e-6)
    assert found.columns[-1] == "lacks" and (found["lacks"][:10] == "colour").all()
    assert found["lacks"][10:].isna().all()
    assert "colour lacks 10 of 178 rows" in capsys.readouterr().err


def test_new_columns_are_ignored_and_missing_ones_filled_in(folder, capsys):
    folder, model = folder
    other = FRAMES["acid"].drop(columns=["a2", "a3"]).assign(note=1.0)
    other.set_index(ROWS).to_csv(folder / "other.csv")
    found = run(folder, "model", acid="other.csv", colour="colour.csv")
    filled = FRAMES["acid"].assign(a2=np.nan, a3=np.nan)
    expected = model.predict_proba({"acid": filled, "colour": FRAMES["colour"]})
    close(found.iloc[:, 1:], expected, rtol=1e-6)
    said = capsys.readouterr().err
    assert "acid: 1 columns are new, and ignored: note" in said
    assert "acid: 2 columns are missing, and filled in: a2, a3" in said


def test_a_table_that_is_not_given_is_an_absent_modality(folder, capsys):
    folder, model = folder
    found = run(folder, "model", acid="acid.npy")
    expected = model.predict_proba({"acid": FRAMES["acid"], "colour": None})
    close(found.iloc[:, 1:-1], expected, rtol=1e-6)
    assert (found["lacks"] == "colour").all()
    said = capsys.readouterr().err
    assert "colour is given for no row, and counts as absent" in said
    assert "acid has no names of columns, which are taken in order" in said


def test_a_model_of_one_matrix_takes_one_table(folder):
    folder, _ = folder
    found = run(folder, "numbers", x="all.csv")
    model = regressor("concat").fit(X, X[:, 0] * 3)
    close(found["prediction"], model.predict(X), rtol=1e-6)
    assert (run(folder, "whole", x="whole.csv")["prediction"] == run_whole()).all()


def run_whole():
    whole = pd.concat(FRAMES.values(), axis=1)
    return classifier("gmu", modalities=NAMES).fit(whole, Y).predict(whole)


@pytest.mark.parametrize(
    ("model", "tables", "message"),
    [
        ("nothing", {"acid": "acid.csv"}, "there is no file"),
        ("acid.csv", {"acid": "acid.csv"}, "is no such file, or cut short"),
        ("model", {"smell": "acid.csv"}, "tables must be of the model's modalities"),
        ("model", {"acid": "nothing.csv"}, "there is no file"),
        ("model", {"acid": "colour.csv"}, "acid must have columns that the model was fitted with"),
        ("numbers", {"a": "all.csv", "b": "all.csv"}, "takes one table with all columns"),
        ("numbers", {"a": "acid.npy"}, "must have 13 columns, as the model was fitted with, got 6"),
    ],
)
def test_what_is_refused(folder, capsys, model, tables, message):
    with pytest.raises(SystemExit) as stop:
        run(folder[0], model, **tables)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_tables_without_a_name_and_words_among_numbers_are_refused(folder, capsys):
    folder, _ = folder
    with pytest.raises(SystemExit):
        predict([str(folder / "model"), "--table", "acid.csv", "--output", "x"])
    assert "--table: must be NAME=FILE, as rna=rna.csv, got 'acid.csv'" in capsys.readouterr().err
    frame = pd.DataFrame(X).astype(object)
    frame[3] = ["word", "other"] * 89
    frame.to_csv(folder / "words.csv", index=False)
    with pytest.raises(SystemExit):
        run(folder, "numbers", x="words.csv")
    assert "the table must hold numbers alone" in capsys.readouterr().err


def test_a_saved_model_is_exported(folder, capsys):
    folder, model = folder
    export([str(folder / "model"), str(folder / "model.pt2")])
    assert "takes acid, colour (raw numbers" in capsys.readouterr().out
    program = torch.export.load(folder / "model.pt2").module()
    found = program(*(torch.tensor(f.to_numpy(), dtype=torch.float32) for f in FRAMES.values()))
    close(found.detach(), model.predict_proba(FRAMES), atol=2e-6)
    with pytest.raises(SystemExit):
        export([str(folder / "model"), str(folder / "model.txt")])
    assert "must end in .pt2 or .onnx" in capsys.readouterr().err


def test_words_that_were_not_there_to_learn_from_are_said_once(tmp_path, capsys):
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"age": draw.normal(size=60), "site": draw.choice(["a", "b"], 60)})
    model = classifier("concat").fit({"own": frame}, frame["site"])
    new = frame[:6].assign(site=["a", "z", "z", "b", "q", None])
    told = "site of own has words that were not there to learn from, in 3 rows: z, q; they count"
    assert model.unseen({"own": new})[0].startswith(told)
    with pytest.warns(UnseenWords, match=told) as warned:
        shares = model.predict_proba({"own": new})
    assert len(warned) == 1
    gone = new.assign(site=new["site"].where(new["site"].isin(["a", "b"])))
    close(shares, model.predict_proba({"own": gone}))  # and now a warning would be an error
    model.save(tmp_path / "model")
    new.to_csv(tmp_path / "new.csv", index=False)
    lacks = run(tmp_path, "model", own="new.csv")["lacks"].fillna("").tolist()
    new_word = "site of own (new: {})".format
    assert lacks == ["", new_word("z"), new_word("z"), "", new_word("q"), ""]
    assert capsys.readouterr().err.count("words that were not there") == 1


@pytest.mark.parametrize("column", ["number", "word"])
def test_what_cannot_be_joined_is_told_with_the_command_s_own_options(folder, capsys, column):
    folder, _ = folder
    names = np.arange(178) if column == "number" else [f"n{i}" for i in range(178)]
    own = FRAMES["acid"].assign(**{column: names})
    back = FRAMES["colour"].assign(**{column if column == "number" else "other": names})[::-1]
    own.to_csv(folder / "own.csv", index=False)
    back.to_csv(folder / "other.csv", index=False)
    with pytest.raises(SystemExit):
        run(folder, "model", acid="own.csv", colour="other.csv")
    told = " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        predict(["--help"])
    helped = capsys.readouterr().out
    assert f"(id, --id {column})" in told and f"or take '{column}' out of the tables" in told
    flags = set(re.findall(r"--[a-z-]+", told))
    assert flags and all(flag in helped for flag in flags)


def test_a_feature_names_no_row_however_few_there_are():
    draw = np.random.default_rng(0)
    parts = {name: pd.DataFrame({"sex": draw.choice(["f", "m"], 60)}) for name in ("own", "other")}
    for part in parts.values():
        part["age"] = np.arange(60) % 9
    model = classifier("concat").fit(parts, parts["own"]["sex"])
    new = {
        "own": pd.DataFrame({"sex": ["f", "m"], "age": [1, 2]}),
        "other": pd.DataFrame({"sex": ["m", "f"], "age": [2, 1]}),
    }
    found, said = predicted(model, new)
    shares = model.predict_proba(new)[:, 0]
    assert said == [] and abs(shares[0] - shares[1]) > 1e-3
    close(found["probability f"], shares)
    named = {name: part.assign(who=["x", "y"]) for name, part in new.items()}
    named["other"] = named["other"][::-1]
    again, said = predicted(model, named)
    assert said == ["rows joined by who"] and again.index.tolist() == ["x", "y"]
    close(again["probability f"], shares, rtol=1e-6)


def test_a_table_that_is_no_modality_of_the_model_is_ignored_and_that_is_said(folder, capsys):
    folder, _ = folder
    model = classifier("concat").fit({"acid": FRAMES["acid"]}, Y)
    model.save(folder / "one")
    found = run(folder, "one", acid="acid.csv", colour="colour.csv")
    close(found.iloc[:, 1:], model.predict_proba({"acid": FRAMES["acid"]}), rtol=1e-6)
    said = "colour: no modality of the model, and ignored (the model is of acid alone)"
    assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):  # it may be misspelt where one is lacking
        run(folder, "one", acide="acid.csv", colour="colour.csv")
    error = " ".join(capsys.readouterr().err.split())
    assert "['acid'], but acide, colour are none of them, and acid is not there" in error


def test_rows_that_have_none_of_the_model_s_tables_are_left_out_and_that_is_said(folder, capsys):
    model = classifier("concat", epochs=1).fit({"acid": FRAMES["acid"]}, Y)
    acid, colour = (FRAMES[name].set_index(ROWS) for name in ("acid", "colour"))
    acid = acid[:12].copy()
    acid.loc["w2"] = np.nan
    found, said = predicted(model, {"acid": acid, "colour": colour[:14]})
    assert found.index.tolist() == [f"w{i}" for i in range(12) if i != 2]
    assert said[0].startswith("colour: no modality of the model, and ignored")
    assert said[1:] == ["3 rows have none of the model's tables and are left out: w2, w12, w13"]
    expected = model.predict_proba({"acid": acid.drop(index="w2")})
    close(found.iloc[:, 1:], expected, rtol=1e-6)
    _, said = predicted(model, {"acid": acid.drop(index="w2"), "colour": colour[3:13]})
    assert said[1:] == ["1 row has none of the model's tables and is left out: w12"]
    assert predicted(model, {"acid": acid[3:], "colour": FRAMES["colour"]})[1][1:] == []
    assert len(predicted(model, {"acid": acid[3:], "colour": "no_such_file.csv"})[0]) == 9
