"""The paper's tables: its figures, ours beside them, and what is said of the difference."""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from deq_fusion.datasets.loaders import make_loader
from deq_fusion.examples.compare_fusions import FLOORS, RECIPES, SYSTEMS
from deq_fusion.examples.studies.paper_tables import ablations
from deq_fusion.examples.studies.paper_tables import measure as measuring
from deq_fusion.examples.studies.paper_tables.__main__ import main, make_parser, wanted
from deq_fusion.examples.studies.paper_tables.paper import TABLES
from deq_fusion.examples.studies.paper_tables.paper_of_deq import ABLATIONS, CONVERGENCE, STEPS
from deq_fusion.examples.studies.paper_tables.protocol import load_for_test, selected_on_test
from deq_fusion.examples.studies.paper_tables.rows import Group, PaperTable, Row, Shown, cells
from deq_fusion.examples.studies.paper_tables.summary import summary
from deq_fusion.examples.studies.published_tables import read_all
from deq_fusion.examples.studies.tables import Spread, read_tables
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.checkpoint import seeded
from deq_fusion.training_structures.comparison.program.settings import settings_of
from deq_fusion.training_structures.fit import evaluate, fit, load_best
from unit_tests.examples import test_recipes
from unit_tests.training_structures.comparison import toy

omics = test_recipes.omics  # its fixture
ROOT = Path(__file__).parents[3]
NEW = {  # methods that stand beside this study, each in its own place
    *("gridge", "mogonet", "early", "dynmm", "mmbt", "pmf", "mfm", "mctn"),
    *("ef_lstm", "mfn", "marn", "rmfn"),
}


def printed(number, label, modalities):
    table = TABLES[number]
    row = next(r for r in table.rows if (r.label, r.modalities) == (label, modalities))
    return [cell.mean for cell in row.cells(table.scores)]


def test_figures_are_those_of_the_tables_that_are_published_here():
    """They were typed apart from these, and some of these with fewer digits."""
    tables = {name: published.table for name, published in read_all().items()}
    hosts = tables["paper_mm_dynamics"]
    for ours, theirs in (
        ("MM-Dynamics", "MM-Dynamics"),
        ("MM-Dynamics + DEQ Fusion", "MM-Dynamics with DEQ fusion"),
    ):
        expected = [
            hosts.cell(theirs, name).mean for name in ("accuracy", "f1_weighted", "f1_macro")
        ]
        assert printed(1, ours, "mR+D+miR") == pytest.approx(expected)
    parts, places = tables["paper_ablation"], {"brca": 0, "imdb": 0, "mosi": 3}
    headings = {"brca": "BRCA, accuracy", "imdb": "MM-IMDB, micro F1", "mosi": "CMU-MOSI, MAE"}
    for ablation in ABLATIONS.values():
        for row, figures in ablation.rows.items():
            for dataset, text in figures.items():
                found = cells(text, ablation.scores[dataset])[places[dataset]].mean
                assert found == pytest.approx(parts.cell(row, headings[dataset]), abs=6e-4)
    for name, text in CONVERGENCE.values():
        expected = [tables["paper_convergence"].cell(name, f"step {step}") for step in STEPS]
        assert list(map(float, text.split())) == pytest.approx(expected, rel=0.02)


def test_the_full_fusion_has_the_same_figures_in_every_table():
    full = {number: ablation.rows["full"] for number, ablation in ABLATIONS.items()}
    best = TABLES[1].rows[-1].figures
    assert full[5]["brca"] == full[6]["brca"] == best
    assert full[7]["imdb"] == next(
        row.figures for row in TABLES[2].rows if row.label == "DEQ Fusion (VGGNet + Word2vec)"
    )
    assert full[7]["mosi"] == TABLES[3].rows[-1].figures


def test_figures_become_shares_where_they_are_in_percent():
    shown = (Shown("accuracy", "accuracy"), Shown("MAE", "mae", ".3f"))
    assert cells("87.5±0.5 1.023", shown) == [Spread(0.875, 0.005), Spread(1.023)]
    with pytest.raises(ValueError, match="zip"):
        cells("87.5", shown)


@pytest.mark.parametrize("number", TABLES)
def test_every_row_is_of_a_method_and_a_module_that_there_is(number):
    table = TABLES[number]
    known = {*FUSIONS, *SYSTEMS[table.dataset](), *FLOORS[table.dataset]}
    for row in table.rows:
        assert len(row.cells(table.scores)) == len(table.scores)
        for method in row.methods:
            there = method in known or method.startswith("only ")
            assert there or method in NEW, method
            files = [word.strip("(),") for word in row.behind.split() if ".py" in word]
            assert not there or all((ROOT / file).is_file() for file in files), row.behind
    assert {row.group for row in table.rows} == set(table.groups)


@pytest.mark.parametrize("number", TABLES)
def test_groups_set_what_the_recipe_has(number):
    table = TABLES[number]
    known = settings_of(RECIPES[table.dataset])
    for group in table.groups.values():
        assert {*group.settings, *group.published} <= set(known)
    # weights of systems are settings, too, which come with them
    assert {name for row in table.rows for name in row.weights} <= {*known, "vit_weights"}


TOY = PaperTable(
    title="toys",
    dataset="toy",
    scores=(Shown("accuracy", "accuracy"), Shown("certainty", "certainty", ".3f")),
    rows=(
        Row("Plain", "a+b", "91.0±0.5 0.500", ("sum", "concat"), "both", "fusions/late.py"),
        Row("Alone", "a", "90.0 0.400", ("only a",), "both", "its encoder"),
        Row("Floor", "", "50.0 0.500", ("majority",), "both", "a floor", weights=("weights",)),
        Row("Other", "a+b", "95.5 0.600", ("missing",), "both", "nothing"),
    ),
    groups={"both": Group("toys in place of data")},
    parts="9/9/9",
    protocol="on test",
    on_test=True,
)


@pytest.fixture
def toys(monkeypatch):
    """Measures the toy's table."""
    monkeypatch.setattr(measuring, "RECIPES", {"toy": lambda data_dir=None: toy.recipe()})

    def run(folder, rows=TOY.rows, more="", **options):
        parser = make_parser()
        argv = f"--table 1 --data-dir {folder} --output {folder} --runs 2 {more}".split()
        args = parser.parse_args(argv)
        return measuring.measure(TOY, rows, parser, args, ["it"], **options)

    return run


def test_ours_stand_beside_the_papers_with_what_differs(toys, tmp_path):
    found = toys(tmp_path)
    (table,) = summary(1, TOY, TOY.rows, found).tables
    assert [row[:3] for row in table.rows] == [
        ("Plain", "a+b", "sum"),
        ("Plain", "a+b", "concat"),
        ("Alone", "a", "only a"),
        ("Floor", "", "majority"),
        ("Other", "a+b", "missing"),
    ]
    assert table.cell("Plain, a+b, sum", "accuracy, paper") == Spread(0.91, 0.005)
    for method in ("sum", "only a", "majority"):
        files = (tmp_path / "both" / "runs").glob(f"{method.replace(' ', '?')}*.json")
        stored = [json.loads(path.read_text()) for path in files]
        scores = [run["scores"]["certainty"] for run in stored if run["method"] == method]
        name = next(name for name in table.row_names if name.endswith(f", {method}"))
        assert table.cell(name, "certainty, ours").mean == pytest.approx(fmean(scores))
        assert len(scores) == 2 == table.cell(name, "runs")
    differs = dict(zip(table.row_names, (row[-1] for row in table.rows), strict=True))
    assert differs["Plain, a+b, sum"] == (
        "toy; 40/20/20 samples in place of 9/9/9; toys in place of data"
    )
    assert differs["Floor, , majority"].endswith("untrained weights")
    assert differs["Other, a+b, missing"].startswith("not measured: missing is not among")
    assert table.cell("Other, a+b, missing", "accuracy, ours") is None
    assert table.cell("Other, a+b, missing", "accuracy, paper") == Spread(0.955)


def test_rows_may_have_other_settings_than_others(toys, tmp_path):
    """A floor or a modality alone is measured beside one fusion, whatever is asked for."""
    found = toys(tmp_path, TOY.rows[2:3])["both"]
    assert [m.name for m in found.comparison.methods] == ["majority", "concat"]
    found = toys(tmp_path / "none", TOY.rows[3:])["both"]
    assert found.comparison is None and list(found.absent) == ["missing"]


def test_a_group_without_data_is_told_of_and_the_others_are_measured(toys, tmp_path, capsys):
    def recipe(data_dir=None, *, lost=False):
        def load(run, modalities):
            raise FileNotFoundError("the file of posters is not there")

        return toy.recipe(load=load) if lost else toy.recipe()

    measuring.RECIPES["toy"] = recipe
    groups = {"lost": Group("", {"lost": True}), **TOY.groups}
    table = replace(TOY, groups=groups)
    rows = [replace(TOY.rows[3], group="lost", methods=("sum",)), TOY.rows[0]]
    parser = make_parser()
    argv = f"--table 1 --data-dir {tmp_path} --output {tmp_path} --runs 1"
    asked = parser, parser.parse_args(argv.split()), ["it"]
    found = measuring.measure(table, rows, *asked)
    lines = summary(1, table, rows, found).tables[0].rows
    assert lines[0][-1] == "not measured: the file of posters is not there"
    assert lines[0][4] is None and all(isinstance(line[4], Spread) for line in lines[1:])
    with pytest.raises(SystemExit):
        measuring.measure(table, rows[:1], *asked)
    assert "the file of posters is not there" in capsys.readouterr().err


def test_the_published_protocol_is_a_loop_by_hand_that_looks_at_test(toys, tmp_path):
    rows = [replace(TOY.rows[0], methods=("sum",))]
    honest, published = toys(tmp_path, rows), toys(tmp_path, rows, published=True)
    results = {
        r["run"]: r["scores"] for r in published["both"].comparison.results if "sum" in r["method"]
    }
    for run in range(2):
        with seeded(run):
            train, _, test = toy.load(run, ("a", "b"))
            model = toy.Host(*FUSIONS["sum"]([3, 3], 3), 2)
            adam = partial(torch.optim.Adam, lr=1e-2)
            history = fit(
                *(model, train, test, torch.nn.functional.cross_entropy),
                epochs=toy.EPOCHS,
                optimizer=adam,
                metrics=toy.metrics,
                progress=False,
            )
        load_best(model, history)
        assert results[run] == pytest.approx(evaluate(model, test, metrics=toy.metrics), abs=1e-6)
    (table,) = summary(1, TOY, rows, honest, published).tables
    assert "accuracy, ours, selected on test" in [column.name for column in table.columns]
    assert "selected on test: 40/-/20 samples" in table.rows[0][-1]
    assert published["both"].comparison.recipe.name == "toy, selected on test"
    assert "selected on test" not in honest["both"].comparison.recipe.name


def test_a_floor_never_learns_from_the_part_that_is_scored(toys, tmp_path):
    """By the published protocol validation is the test part, of which a floor would learn."""
    published = toys(tmp_path, TOY.rows[2:3], published=True)["both"].comparison
    for result in (r for r in published.results if r["method"] == "majority"):
        with seeded(result["run"]):
            train, _, test = toy.load(result["run"], ("a", "b"))
        usual = toy.truth_of(train).mode().values
        expected = (toy.truth_of(test) == usual).double().mean().item()
        assert result["scores"]["accuracy"] == pytest.approx(expected)


def test_validation_that_was_cut_from_train_goes_back_into_it():
    def load(run, modalities):
        parts = [torch.arange(10.0)[a:b, None] for a, b in ((0, 5), (5, 7), (7, 10))]
        return [make_loader(TensorDataset(x), batch_size=size, shuffle=False) for x in parts]

    for size in (2, None):
        train, valid, test = load_for_test(load, 0, ("x",))
        assert valid is test and len(test.dataset) == 3
        rows = [batch[0].flatten().tolist() for batch in train]
        assert sorted(sum(rows, [])) == list(range(7))
        assert len(rows) == (4 if size else 1)
        assert rows != [list(np.arange(7))] or size  # in a new order
    recipe = selected_on_test(toy.recipe())
    assert recipe.loaders(0)[1] is not None and recipe.part == "test"


def test_the_list_names_every_row(capsys):
    assert main(["--list"]) is None
    out = capsys.readouterr().out
    for table in TABLES.values():
        for row in table.rows:
            assert row.label in out and row.behind in out


def test_rows_are_asked_for_by_label_or_method():
    parser, rows = argparse.ArgumentParser(), TABLES[1].rows
    assert wanted(parser, rows, None) == list(rows)
    assert [row.label for row in wanted(parser, rows, ["GMU"])] == ["GMU"]
    found = wanted(parser, rows, ["deq"])
    assert len(found) == 4 and {row.methods for row in found} == {("deq",)}
    whole = wanted(parser, rows, ["MM-Dynamics + DEQ Fusion"])
    assert {row.methods for row in whole} == {("deq", "deq_paper")}


@pytest.mark.parametrize(
    "text, message",
    [
        ("--data-dir x", "--table must be a number of the paper, 1 to 8"),
        ("--table 9 --data-dir x", "invalid choice"),
        ("--table 1", "--data-dir must name the folder"),
        ("--table 1 --data-dir x --data-dir y", "table 1 is of one set"),
        ("--table 2 --data-dir x --published", "--published is of tables 1 and 4"),
        ("--table 5 --data-dir x --published", "it has no other protocol here"),
        ("--table 5 --data-dir x --rows full", "--rows is of tables 1 to 4"),
        ("--table 1 --data-dir x --rows gmv", "unknown 'gmv'; choose from gridge, gmu"),
        ("--table 7 --data-dir nowhere", "--data-dir must be the folder of a set of table 7"),
        ("--table 1 --data-dir nowhere", "nowhere"),
        ("--table 1 --data-dir x --set nonsense=1", "no such setting"),
        ("--table 2 --data-dir x --set encoders=vgg_bert", "--set encoders: the rows of table 2"),
    ],
)
def test_arguments_that_make_no_sense(text, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(text.split())
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_study_gets_those_of_the_arguments_that_it_has(tmp_path):
    argv = (
        f"--table 7 --data-dir x --runs 3 --jobs 2 --set width=8 --set host=mlp --output {tmp_path}"
    )
    args = make_parser().parse_args(argv.split())
    found = ablations.study_arguments("imdb", "x", ["full", "no_gate"], args)
    assert found[:6] == ["--dataset", "imdb", "--data-dir", "x", "--fusions", "full,no_gate"]
    assert {"--runs=3", "--jobs=2", "--set=width=8"} <= set(found)
    assert "--set=host=mlp" not in found
    assert "--set=host=mlp" in ablations.study_arguments("mosi", "x", ["full"], args)


def test_parts_left_out_stand_beside_the_papers():
    scores = {"f1_micro": SimpleNamespace(mean=0.5, sd=0.1)}
    row = SimpleNamespace(method="full", scores=scores)
    found = {"imdb": {"raw": SimpleNamespace(table=lambda: [row])}}
    (table,) = ablations.ablation_summary(7, ABLATIONS[7], found).tables
    assert table.cell("full, raw", "MM-IMDB, micro F1, paper") == Spread(0.6152)
    assert table.cell("full, raw", "MM-IMDB, micro F1, ours") == Spread(0.5, 0.1)
    assert table.cell("no_gate, raw", "MM-IMDB, micro F1, ours") is None
    assert "CMU-MOSI, MAE, ours" not in [column.name for column in table.columns]
    assert table.cell("no_gate, raw", "CMU-MOSI, MAE, paper") == Spread(0.751)
    (table,) = ablations.convergence_summary({}).tables
    assert table.cell("BRCA, -, as printed", "step 40") == 5.18e-3


def test_a_table_is_carried_out_and_goes_on(omics, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    argv = f"--table 1 --data-dir {omics} --runs 1 --epochs 1 --set hidden=8 --rows gmu,deq"
    argv = [*argv.split(), "--output", str(tmp_path / "out")]
    found = main(argv)
    (table,) = found.tables
    assert [row[2] for row in table.rows] == ["gmu", "deq", "deq", "deq", "deq"]
    assert all(isinstance(row[4], Spread) for row in table.rows)
    assert read_tables(tmp_path / "out" / "tables.json")[1] == {"table_1": table}
    assert (tmp_path / "out" / "table_1.png").stat().st_size > 0
    capsys.readouterr()
    assert main(argv).tables[0].rows == table.rows
    assert "runs reused" in capsys.readouterr().err


@pytest.mark.slow
def test_the_studies_of_the_fusion_itself_are_brought_together(omics, tmp_path, capsys):
    shared = f"--data-dir {omics} --runs 1 --epochs 1 --set hidden=8".split()
    (table,) = main(["--table", "6", *shared, "--output", str(tmp_path / "gate")]).tables
    assert {row[:2] for row in table.rows} == {
        (row, injection) for row in ("no_gate", "full") for injection in ("scale_free", "raw")
    }
    assert all(isinstance(row[3], Spread) for row in table.rows)
    (table,) = main(["--table", "8", *shared, "--output", str(tmp_path / "steps")]).tables
    measured = [row for row in table.rows if row[:2] == ("BRCA", "scale_free")]
    assert [row[2] for row in measured] == ["no_penalty", "penalty"]
    assert all(row[3] > 0 for row in measured)
