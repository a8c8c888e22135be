"""Own data compared in one call, and on the command line: the same data give the same scores."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_wine

from deq_fusion import compare_data
from deq_fusion.estimators import FusionClassifier, FusionRegressor
from deq_fusion.fusions.adapters import concat_linear
from deq_fusion.own_data import command, comparing, confusion, own_data
from deq_fusion.own_data.refusals import MayBeGroups
from deq_fusion.training_structures.comparison.comparison import Best

torch.set_num_threads(1)
FIVE = ["deq", "concat", "gmu", "late", "low_rank"]
X, CODES = load_wine(return_X_y=True)
NAMES = load_wine().feature_names
Y = np.array(["barolo", "grignolino", "barbera"])[CODES]
WINES = np.array([f"wine {i:03}" for i in range(len(Y))])
MIXED = np.random.default_rng(0).permutation(Y)[:90]  # of which no column tells a thing
SHORT = {"runs": 2, "epochs": 3, "progress": False}


def scores(found):
    return {(r["method"], r["run"]): r["scores"] for r in found.results}


@pytest.fixture(scope="module")
def of_arrays():
    tables = {"taste": X[:, :6], "colour": X[:, 6:]}
    return compare_data(tables, Y, FIVE, **SHORT)


@pytest.fixture
def files(tmp_path):
    """Three csv files: rows in different orders, one row missing in each table."""
    frame = pd.DataFrame(X, columns=NAMES).assign(wine=WINES)
    parts = {
        "taste": frame[["wine", *NAMES[:6]]].drop(index=3),
        "colour": frame[["wine", *NAMES[6:]]].drop(index=50),
        "labels": pd.DataFrame({"wine": WINES, "grape": Y, "cellar": np.arange(len(Y)) // 2}),
    }
    for seed, (name, part) in enumerate(parts.items()):
        part.sample(frac=1, random_state=seed).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def test_five_fusions_on_two_arrays(of_arrays):
    methods = ["most frequent", "linear", "only taste", "only colour", *FIVE]
    assert set(scores(of_arrays)) == {(name, run) for name in methods for run in range(2)}
    assert of_arrays.score.name == "balanced_accuracy" and not of_arrays.failures
    rows = {row.method: row.scores for row in of_arrays.table()}
    assert rows["most frequent"]["balanced_accuracy"].mean == pytest.approx(1 / 3)
    assert rows["linear"]["balanced_accuracy"].mean > 0.9
    assert {"recall barolo", "recall barbera", "f1_macro"} <= rows["deq"].keys()
    assert of_arrays.best().name in methods


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_rows_in_another_form_give_the_same_scores(of_arrays, jobs):
    frame = pd.DataFrame(X, WINES, NAMES)
    parts = {"taste": frame[NAMES[:6]], "colour": frame[NAMES[6:]].sample(frac=1, random_state=0)}
    asked = {"jobs": jobs, "unimodal": False, **SHORT}
    again = scores(compare_data(parts, pd.Series(Y, WINES), ["deq"], **asked))
    expected = scores(of_arrays)
    assert again == {key: expected[key] for key in again}


def arguments(files, *more):
    return [
        *("--table", f"taste={files}/taste.csv", "--table", f"colour={files}/colour.csv"),
        *("--target", f"{files}/labels.csv:grape", "--group", "cellar"),
        *("--fusions", ",".join(FIVE), "--runs", "1", "--epochs", "2"),
        *("--output", f"{files}/command", *more),
    ]


def test_five_fusions_on_files_in_python_and_on_the_command_line(files, capsys):
    tables = {name: f"{files}/{name}.csv" for name in ("taste", "colour")}
    target = f"{files}/labels.csv:grape"
    found = compare_data(tables, target, FIVE, groups="cellar", runs=1, epochs=2)
    said = capsys.readouterr().err
    assert "rows joined by wine: 176 of 178 in all tables; taste lacks 1; colour lacks 1" in said
    assert "classification into 3 classes: barbera (48), barolo (59), grignolino (71)" in said
    assert "no one of 89 groups in two parts" in said
    of_command = command.main(arguments(files))
    told = capsys.readouterr()
    assert scores(of_command) == scores(found) and len(scores(found)) == 4 + len(FIVE)
    data = f"{files}/command/data.md"
    assert f"know about these data, and which classes were taken for which: {data}" in told.out
    assert "rows joined by wine: 176 of 178" in told.err and "balanced_accuracy" in told.out


def test_the_report_the_confusion_and_what_is_used_again(tmp_path):
    tables, asked = {"taste": X[:, :6], "colour": X[:, 6:]}, {"output": tmp_path, **SHORT}
    found = compare_data(tables, Y, ["concat"], **asked)
    with open(tmp_path / "confusion.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["method"] for line in lines} == {"only taste", "only colour", "concat"}
    own = [line for line in lines if line["method"] == "concat"]
    right = sum(int(line["rows"]) for line in own if line["class"] == line["taken for"])
    assert sum(int(line["rows"]) for line in own) == 2 * 36
    accuracy = [s["accuracy"] for (name, _), s in scores(found).items() if name == "concat"]
    assert right / 72 == pytest.approx(np.mean(accuracy))
    text = (tmp_path / "data.md").read_text(encoding="utf-8")
    assert "- 178 rows, joined in order" in text and "## concat" in text
    assert "Rows are true classes, columns predicted ones" in text
    page = (tmp_path / "results.html").read_text(encoding="utf-8").replace("&nbsp;", " ")
    chosen = found.chosen()
    assert chosen.startswith(f"Chosen on validation data: {found.best().name} (balanced_accuracy ")
    assert all(chosen in each for each in (text, page))
    assert "<h2>Classes, and what they were taken for</h2>" in page
    matrix = sum(np.array(r["analysis"]) for r in found.results if r["method"] == found.best().name)
    for name, counts in zip(found.best().recipe.refit.args[1].classes, matrix, strict=True):
        cells = "".join(f"<td>{count}</td>" for count in counts)
        assert f'<tr class=""><td>{name}</td>{cells}</tr>' in page
    about = [
        "178 rows, joined in order",
        "classification into 3 classes: barbera (48), barolo (59), grignolino (71)",
        "every run is a fresh split, 60/20/20, stratified by class",
    ]
    assert list(found.recipe.about[:3]) == about and len(found.recipe.about) == 5
    told = "columns that alone go a third of the way from chance to perfect, or more, by balanced"
    assert found.recipe.about[3].startswith(f"{told} accuracy on rows held out: column 0 of colour")
    about = list(found.recipe.about)
    lines = "".join(f"- {sentence}\n" for sentence in about)
    head = "What to know about these data"
    assert f"## {head}\n\n{lines}" in (tmp_path / "results.md").read_text(encoding="utf-8")
    lines = "".join(f"<li>{sentence}</li>" for sentence in about[:3])
    assert (
        f'<h2>{head}</h2><ul class="">{lines}<li>columns that alone'
        in (tmp_path / "results.html").read_text()
    )
    assert json.loads((tmp_path / "results.json").read_text())["about"] == about
    assert json.loads((tmp_path / "results.json").read_text())["title"].startswith("own data")
    assert "10 of 10 runs reused" in compare_data(tables, Y, ["concat"], **asked).reused[0]
    changed = {**tables, "taste": X[:, :6] * np.random.default_rng(0).uniform(1, 2, (len(X), 1))}
    again = compare_data(changed, Y, ["concat"], **asked)
    assert scores(again)["concat", 0] != scores(found)["concat", 0]


def test_words_that_may_name_groups_are_warned_of():
    patients = pd.DataFrame(X[:90, :6]).add_prefix("t").assign(patient=np.arange(90) // 3)
    patients["patient"] = "p" + patients["patient"].astype(str)
    tables = {"taste": patients, "colour": X[:90, 6:]}
    with pytest.warns(
        MayBeGroups, match=r"patient of taste \(30 words in 90 rows\) may name groups"
    ):
        own = own_data(tables, MIXED)
    assert "words of taste, a column for each: patient (30)" in own.said
    assert any("patient of taste (30 words in 90 rows)" in line for line in own.recipe.about)
    for said in ({"groups": "patient"}, {"drop": ["patient"]}, {"allow": ["patient"]}):
        own_data(tables, MIXED, **said)  # a warning would be an error


def test_what_is_warned_of_is_in_the_report_too(tmp_path, capsys):
    taste = pd.DataFrame(X[:, :6]).add_prefix("t").assign(same=1.0, after=Y)
    with pytest.warns(UserWarning) as told:
        compare_data({"a": taste, "b": X[:, 6:]}, Y, ["sum"], runs=1, epochs=1, output=tmp_path)
    said = [str(warning.message) for warning in told]
    assert "THE TARGET MAY LEAK" in said[0] and "same of a does not" in said[1]
    assert json.loads((tmp_path / "results.json").read_text())["about"][:2] == said
    for sentence in said:
        assert f"- {sentence}\n" in (tmp_path / "data.md").read_text(encoding="utf-8")
        assert sentence not in capsys.readouterr().err  # it was warned of already


def test_a_floor_that_scores_best_is_not_saved_and_that_is_said(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(90, 5))).add_prefix("x")
    rows.assign(y=rows.sum(axis=1)).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(rng.normal(size=(90, 2))).add_prefix("z").to_csv(tmp_path / "b.csv", index=False)
    asked = ["--table", f"a={tmp_path}/a.csv", "--table", f"b={tmp_path}/b.csv", "--target", "y"]
    asked += ["--fusions", "concat", "--no-unimodal", "--runs", "1", "--epochs", "1"]
    asked += ["--set", "width=8"]
    model = tmp_path / "model.safetensors"
    found = command.main([*asked, "--output", f"{tmp_path}/out", "--save", str(model)])
    assert found.table()[0].method == "linear" and found.best().name == "concat"
    out = " ".join(capsys.readouterr().out.split())
    assert f"What to know about these data: {tmp_path}/out/data.md" in out
    assert "linear is a floor, which a fusion has to beat, and no model to save; best of the" in out
    assert "linear, which scores best, is a floor and keeps no model. concat, the best on" in out
    assert FusionRegressor.load(model).fusion == "concat" and "equilibrium" not in out
    assert FusionRegressor.load(model).width == 8
    assert f"saved in {model}; but a single run is too few to choose by: take 6 at least" in out
    asked[asked.index("concat")] = "deq"
    command.main([*asked, "--output", f"{tmp_path}/deq", "--save", str(model)])
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "deq-fusion export cannot take; for a model to export compare with --option deq.un" in out
    )


@pytest.mark.parametrize(
    "column, found",
    [
        ({"patient": np.arange(90) // 3}, "30 numbers in 90 rows"),
        ({"PatientID": np.arange(90) // 3 + 0.0}, "30 numbers in 90 rows"),
        ({"who": [f"p{i // 3}" for i in range(90)]}, "30 words in 90 rows"),
        ({"hospital": [f"h{i % 6}" for i in range(90)]}, "6 words in 90 rows"),
        ({"stage": [f"s{i % 6}" for i in range(90)]}, None),
        ({"age": 20 + np.arange(90) // 3}, None),
        ({"acid": np.arange(90) // 3}, None),
        ({"site": np.arange(90) % 3}, None),
        ({"patient": np.linspace(0, 1, 30).repeat(3)}, None),
        ({"row_id": np.arange(90)}, None),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else str(bool(value)),
)
def test_a_column_beside_the_target_may_name_groups(column, found, tmp_path):
    pd.DataFrame({"wine": WINES[:90], "grape": MIXED, **column}).to_csv(tmp_path / "y.csv")
    frame = pd.DataFrame(X[:90], columns=NAMES).assign(wine=WINES[:90])
    (name,) = column
    asked = {"id": "wine"}
    if found is None:
        own_data({"a": frame}, f"{tmp_path}/y.csv:grape", **asked)  # a warning would be an error
        return
    with pytest.warns(MayBeGroups) as told:
        own = own_data({"a": frame}, f"{tmp_path}/y.csv:grape", **asked)
    assert f"{name} beside the target ({found}) may name groups" in str(told[0].message)
    assert "--group COLUMN" in str(told[0].message) and "--drop" not in str(told[0].message)
    assert own.recipe.about[0] == str(told[0].message)
    own_data({"a": frame}, f"{tmp_path}/y.csv:grape", allow=[name], **asked)
    own_data({"a": frame}, f"{tmp_path}/y.csv:grape", groups=name, **asked)


def test_named_groups_do_not_silence_the_warning_of_another_column():
    inside, across = np.arange(90) // 3, np.arange(90) % 30
    frame = pd.DataFrame(X[:90], columns=NAMES).assign(hospital=inside // 5)
    where = r"patient of a \(30 words in 90 rows\) may name groups"
    for patients, said in ((inside, f"{where} within those that are named"), (across, where)):
        tables = {"a": frame.assign(patient=[f"p{number}" for number in patients])}
        with pytest.warns(MayBeGroups, match=said) as told:
            own = own_data(tables, MIXED, groups="hospital")
        assert str(told[0].message) in own.recipe.about
        assert ("do not keep its rows together" in str(told[0].message)) == (patients is across)
        own_data(tables, MIXED, groups="hospital", drop=["patient"])
        own_data(tables, MIXED, groups="hospital", allow=["patient"])


def test_numbers_in_a_table_may_name_groups_by_the_column_s_name():
    frame = pd.DataFrame(X[:90], columns=NAMES)
    numbers = np.arange(90) // 3
    with pytest.warns(MayBeGroups, match=r"subject_id of a \(30 numbers in 90 rows\) may name"):
        own_data({"a": frame.assign(subject_id=numbers)}, MIXED)
    own_data({"a": frame.assign(count=numbers, ward=np.arange(90) % 9)}, MIXED)


def test_an_argument_of_another_name_is_told_what_it_is():
    with pytest.raises(TypeError, match="no argument group; did you mean groups"):
        compare_data({"a": X}, Y, ["sum"], group=Y)


def test_a_name_of_the_registry_is_no_name_for_ones_own():
    with pytest.raises(ValueError, match="'deq' is a fusion of the registry; name your own"):
        compare_data({"a": X}, Y, {"deq": concat_linear})


@pytest.mark.parametrize(
    "fusions, match",
    [
        (["deq", "glue"], "unknown fusion 'glue'"),
        (["deq", "deq"], "'deq' comes twice"),
    ],
)
def test_unknown_fusions_are_refused(fusions, match):
    with pytest.raises(ValueError, match=match):
        compare_data({"a": X}, Y, fusions)


def test_runs_follow_the_seed_or_are_listed():
    asked = {"epochs": 1, "unimodal": False, "progress": False}
    for runs in ({"runs": [4]}, {"runs": 1, "seed": 4}):
        found = compare_data({"a": X}, Y, {"mine": concat_linear}, **runs, **asked)
        assert {(r["method"], r["run"]) for r in found.results} >= {("mine", 4), ("linear", 4)}


@pytest.mark.parametrize(
    "change, match",
    [
        (("--table", "taste"), "must be NAME=FILE, as rna=rna.csv, got 'taste'"),
        (("--table", "taste=x.csv"), "must give every table a name of its own"),
        (("--test-target", "y.csv:grape"), "a test set needs --test-table"),
        (("--id", "patient"), "every table must have the id 'patient'"),
        (("--folds", "90"), "folds must be a number from 2 to 48"),
        (("--target", "none.csv:grape"), "there is no file none.csv"),
        (("--metric", "beauty"), "unknown metric 'beauty'"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(change, match, files, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments(files, *change))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "deq-fusion compare: error:" in error
    assert re.search(match, error.replace("\n", " "))


def test_a_test_set_on_the_command_line(files, capsys):
    frame = pd.DataFrame(X, columns=NAMES).assign(wine=[f"new {name}" for name in WINES], grape=Y)
    frame[["wine", *NAMES[:6]]].to_csv(files / "t.csv", index=False)
    frame[["wine", "grape", *NAMES[6:]]].to_csv(files / "c.csv", index=False)
    more = ["--test-table", f"taste={files}/t.csv", "--test-table", f"colour={files}/c.csv"]
    more += ["--test-target", f"{files}/c.csv:grape", "--no-unimodal", "--fusions", "concat"]
    more += ["--save", f"{files}/model.safetensors"]
    asked = [a for a in arguments(files, *more) if a not in ("--group", "cellar")]
    found = command.main(asked)
    assert {r["run"] for r in found.results} == {0}
    model = FusionClassifier.load(files / "model.safetensors")
    assert list(model.columns_["taste"].names) == NAMES[:6]
    assert "test set: rows joined by wine: 178 of 178 in all tables" in capsys.readouterr().err
    assert found.test_share is None


@pytest.mark.parametrize("name", ["deq", "concat", "only colour"])
def test_a_method_is_fitted_again_on_all_rows(name, of_arrays, tmp_path):
    method = next(method for method in of_arrays.methods if method.name == name)
    best = Best(of_arrays.recipe, method, {}, 1.0, {"options": {}, "optimizer": {"lr": 5e-3}})
    model = best.refit()
    tables = {"taste": X[:, :6], "colour": X[:, 6:]}
    taken = {modality: tables[modality] for modality in model.columns_}
    assert list(taken) == (["colour"] if name == "only colour" else ["taste", "colour"])
    guess = model.predict(taken)
    assert set(guess) <= set(Y) and (guess == Y).mean() > 0.6
    assert len(model.history_) <= 3 and model.lr == 5e-3
    model.save(tmp_path / "model.safetensors")
    again = FusionClassifier.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(taken), guess)


def test_the_best_of_numbers_is_fitted_with_absent_rows_and_weights():
    taste, colour, y = X[:, :6].copy(), X[:, 6:].copy(), X[:, 0] / 7 + X[:, 9]
    taste[:9] = np.nan
    found = compare_data(
        {"taste": taste, "colour": colour},
        y,
        ["concat"],
        allow=["column 3"],
        sample_weight=np.arange(len(y)),
        **SHORT,
    )
    model = found.best().refit()
    assert isinstance(model, FusionRegressor)
    tables = {"taste": taste, "colour": colour}
    assert model.predict({name: tables[name] for name in model.columns_}).shape == y.shape


@pytest.mark.parametrize("seed", [0, 3])
def test_folds_test_every_row_once_whatever_the_seed(seed, monkeypatch):
    asked = []

    def carried_out(own, fusions, runs, **how):
        asked.append(runs)

    monkeypatch.setattr(comparing, "carried_out", carried_out)
    compare_data({"x": X}, Y, ["concat"], folds=4, seed=seed)
    own = own_data({"x": X}, Y, folds=4)
    tested = [own.recipe.load.args[0].splits(run)[2] for run in asked[0]]
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(len(Y)))


def test_a_class_that_is_rarely_found_is_named_with_what_helps():
    names = ["common", "other", "rare"]
    matrix = np.array([[90, 10, 0], [20, 80, 0], [15, 3, 2]])  # recalls 0.9, 0.8 and 0.1
    (said,) = confusion.rarely_found("deq", names, matrix, balanced=False)
    assert said.startswith("class rare is rarely found: deq finds 10 % of its 20 scored rows in")
    assert "85 % of the other classes on average" in said and "--class-weight balanced" in said
    (said,) = confusion.rarely_found("deq", names, matrix, balanced=True)
    assert "--class-weight" not in said and "classes weigh the same already" in said
    few = matrix.copy()
    few[2] = [6, 2, 1]  # as rare, but of too few rows to tell
    assert confusion.rarely_found("deq", names, few, balanced=False) == []
    matrix[2] = [10, 4, 6]  # 0.3 of 0.85 is more than a third
    assert confusion.rarely_found("deq", names, matrix, balanced=False) == []


def test_what_is_said_of_a_rarely_found_class_stands_in_the_reports(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(["common", "rare"], [180, 30])  # of which nothing tells
    tables = {"a": rng.normal(size=(210, 3)), "b": rng.normal(size=(210, 2))}
    asked = {"runs": 2, "epochs": 1, "unimodal": False, "progress": False}
    found = compare_data(tables, y, ["concat"], output=tmp_path, **asked)
    assert found.recipe.about[-1].startswith("class rare is rarely found: concat finds 0 % of")
    for name in ("results.md", "data.md", "results.html"):
        assert "class rare is rarely found" in (tmp_path / name).read_text(encoding="utf-8")
