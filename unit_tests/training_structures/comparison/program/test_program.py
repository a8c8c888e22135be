"""The command line: what a user types is what is compared, printed and written."""

import csv
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy
import pytest
import torch

from deq_fusion.fusions.registry import FUSIONS, Entry
from deq_fusion.fusions.weighted_sum import WeightedSum
from deq_fusion.training_structures.comparison import command_line
from deq_fusion.training_structures.comparison.program.listing import listing
from deq_fusion.training_structures.comparison.report import table
from unit_tests.training_structures.comparison import toy

OWN = """
from torch import nn

class Half(nn.Module):
    def __init__(self, input_dims, dim, share=0.5):
        super().__init__()
        self.share = share

    def forward(self, features):
        return self.share * sum(features)
"""
DATASET = """
from unit_tests.training_structures.comparison import toy

def mine(data_dir=None, *, official=False):
    return toy.recipe(name="mine")
"""


RECIPES = {
    "toy": lambda data_dir: toy.recipe(),
    "numbers": lambda data_dir: toy.regression_recipe(),
}


def typed(text, output, recipes=RECIPES, **options):
    argv = [*text.split(), "--output", str(output)]
    return command_line(recipes, toy.FUSIONS, argv, program="compare", **options)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs a command, without the time that pictures take."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    def call(text, recipes=RECIPES, folder="results"):
        return typed(text, tmp_path / folder, recipes)

    return call


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module that can be imported, also after it was changed."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        sys.modules.pop(name, None)

    yield write
    for name in ("own_fusion", "own_dataset"):
        sys.modules.pop(name, None)


def test_it_compares_prints_and_writes(tmp_path, capsys):
    found = typed("--runs 2 --search 2 --drop-modality", tmp_path / "results", subject="sum")
    methods = ["majority", "only a", "only b", "sum", "concat"]
    assert [(r["method"], r["run"]) for r in found.results] == [
        (method, run) for method in methods for run in (0, 1)
    ]
    out = capsys.readouterr().out
    rows = table.make_rows(found.results, toy.recipe().scores, baseline="concat")
    full = table.markdown(*table.cells(rows, toy.recipe().scores, "concat"))
    short = table.fitted(*table.short_cells(rows, found.score, "concat"), 80)
    assert short in out and "sum minus concat" in out and "results.html" in out
    text = (tmp_path / "results" / "results.md").read_text(encoding="utf-8")
    assert text.startswith("# toy\n") and full in text and "without a" in full
    assert f"compare --runs 2 --search 2 --drop-modality --output {tmp_path}" in text
    with open(tmp_path / "results" / "results.csv", newline="", encoding="utf-8") as file:
        assert [line["method"] for line in csv.DictReader(file)] == [
            r["method"] for r in found.results
        ]
    page = (tmp_path / "results" / "results.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "only a" in page


def test_the_json_says_how_to_get_each_number_again(tmp_path, call):
    found = call("--runs 1 --first-run 3 --search 2 --threads 1")
    content = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert content["command"].startswith("compare --runs 1 --first-run 3")
    assert content["made_by"]["torch"] == torch.__version__
    assert content["made_by"]["numpy"] == numpy.__version__
    assert content["made_by"]["threads"] == 1 and content["made_by"]["device"] == "cpu"
    assert content["settings"].items() <= found.results[0]["settings"].items()
    assert [line["method"] for line in content["table"]] == [
        row.method for row in table.make_rows(found.results, toy.recipe().scores)
    ]
    for row, numbers in zip(found.table(), content["rows"], strict=True):
        assert numbers["method"] == row.method and numbers["mean"] == row.scores["accuracy"].mean
        assert numbers["p"] is None  # of a single run
    for made, stored in zip(found.results, content["runs"], strict=True):
        assert stored["run"] == 3 and stored["scores"] == made["scores"]
        assert stored["made_by"] == content["made_by"]
        if stored["method"] != "majority":
            assert stored["hyperparameters"].keys() == {"options", "optimizer"}
    try:
        git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    assert commit in content["made_by"]["commit"]


def test_the_same_command_again_only_reads(call, capsys):
    first = call("--runs 1")
    printed = capsys.readouterr().out
    assert call("--runs 1") == first
    assert capsys.readouterr().out == printed


def test_fusions_seeds_and_modalities_are_those_asked_for(call):
    found = call("--fusions sum --seeds 5,2 --modalities b --no-unimodal")
    assert [(r["method"], r["run"]) for r in found.results] == [
        (method, run) for method in ("majority", "sum") for run in (5, 2)
    ]
    assert found.results[-1]["settings"]["modalities"] == "('b',)"
    whole = call("--fusions sum --seeds 5,2 --no-unimodal", folder="whole")
    alone = toy.recipe().restricted(["b"])
    only = call("--fusions sum --seeds 5,2", folder="b", recipes={"toy": lambda data_dir: alone})
    assert toy.scores(found) == toy.scores(only) != toy.scores(whole)


@pytest.mark.parametrize(("resplit", "runs"), [(True, 20), (False, 5)])
def test_the_number_of_runs_follows_the_protocol(call, resplit, runs):
    recipe = toy.recipe(resplit=resplit, epochs=1)
    found = call("--fusions sum --no-unimodal", {"toy": lambda data_dir: recipe})
    assert [r["run"] for r in found.results if r["method"] == "sum"] == list(range(runs))


@pytest.mark.parametrize(("part", "scored"), [("test", 2), ("valid", 1)])
def test_fresh_splits_are_corrected_for_what_they_share(call, tmp_path, capsys, part, scored):
    recipe = toy.recipe(resplit=True, epochs=1)
    found = call(f"--runs 6 --part {part}", {"toy": lambda data_dir: recipe})
    share = toy.SIZES[scored] / toy.SIZES[0]
    rows = table.make_rows(found.results, recipe.scores, baseline="concat", test_share=share)
    text = (tmp_path / "results" / "results.md").read_text(encoding="utf-8")
    assert table.markdown(*table.cells(rows, recipe.scores, "concat")) in text
    out = capsys.readouterr().out
    assert "Nadeau and Bengio" in out and f"on the {part} part" in out


def test_metric_and_baseline_decide_what_is_compared(call, capsys):
    found = call("--runs 6 --metric certainty --baseline sum")
    rows = table.make_rows(found.results, [toy.recipe().scores[1]], baseline="sum")
    out = capsys.readouterr().out
    assert table.fitted(*table.short_cells(rows, found.score, "sum"), 80) in out
    assert "minus sum [95 %]" in out and "certainty" in out


def test_a_score_may_be_an_error(call, capsys):
    found = call("--dataset numbers --runs 1 --baseline mean")
    out = capsys.readouterr().out
    best = min(found.results, key=lambda result: result["scores"]["mae"])
    lines = out[out.index("\nmethod ") + 1 :].splitlines()
    assert "mae (less is better)" in lines[0] and lines[2].startswith(f"{best['method']} ")


def test_a_user_brings_a_fusion_from_a_file(call, own):
    own("own_fusion", OWN)
    found = call("--runs 1 --fusions sum --own-fusion own_fusion:Half --option Half.share=0.25")
    half = next(r for r in found.results if r["method"] == "Half")
    assert half["settings"]["options"] == "{'share': 0.25}" and half["fusion_parameters"] == 0
    assert "own_fusion.py" in half["identity"]["files"]
    again = call("--runs 1 --fusions sum,Half --fusion own_fusion:Half --option Half.share=0.25")
    assert again == found  # by the flag's name of before, too


def test_precision_is_that_asked_for(call):
    full, half = (call(f"--runs 1 --precision {p}", folder=p) for p in ("fp32", "bf16"))
    plain = call("--runs 1", folder="plain")
    assert [r["curve"][-1]["train_loss"] for r in plain.results if "curve" in r] == [
        r["curve"][-1]["train_loss"] for r in full.results if "curve" in r
    ]
    assert half.results[-1]["settings"]["precision"] == "'bf16'"
    assert half.results[-1]["curve"][-1]["train_loss"] == pytest.approx(
        full.results[-1]["curve"][-1]["train_loss"], rel=0.05
    )
    assert half.results[-1]["curve"] != full.results[-1]["curve"]


def test_a_log_is_written_and_a_search_can_prune(call, tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("optuna")
    asked = "--runs 1 --no-unimodal --fusions sum --search 3 --prune"
    found = call(f"{asked} --log {tmp_path / 'log'}")
    names = {path.name for path in (tmp_path / "log").iterdir()}
    assert names == {"sum-0", "sum-0+1", "sum-0+2"}
    result = found.results[-1]
    assert result["settings"]["searched by"].endswith("TPE and median pruning")
    assert result["epochs_spent"] == 3 * toy.EPOCHS  # too few for one to be pruned


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--prune", "prune ends trials of a search, so ask for more of them"),
        ("--log log", "event files need TensorBoard .*pip install tensorboard"),
    ],
)
def test_what_log_and_prune_need_is_said(call, capsys, monkeypatch, asked, said):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit):
        call(f"--runs 1 {asked}")
    assert re.search(said, capsys.readouterr().err)


def test_results_do_not_outlive_the_file_of_the_users_fusion(call, own, capsys):
    own("own_fusion", OWN)
    call("--runs 1 --fusions sum --own-fusion own_fusion:Half")
    own("own_fusion", OWN.replace("0.5", "0.75"))
    call("--runs 1 --fusions sum --own-fusion own_fusion:Half")
    error = capsys.readouterr().err
    assert "1 run made again (Half): code of own_fusion.py changed" in error
    assert f"4 of 5 runs reused, of {date.today().day} " in error


def test_results_do_not_outlive_the_file_of_the_users_dataset(call, own, capsys):
    own("own_dataset", DATASET)
    call("--dataset own_dataset:mine --runs 1 --epochs 2")
    own("own_dataset", DATASET + "# edited\nUNUSED = 1")
    call("--dataset own_dataset:mine --runs 1 --epochs 2")
    assert "5 of 5 runs reused" in capsys.readouterr().err
    own("own_dataset", DATASET.replace('name="mine"', 'name="mine", select="accuracy"'))
    call("--dataset own_dataset:mine --runs 1 --epochs 2")
    error = capsys.readouterr().err
    assert "4 runs made again (only a, only b, sum, concat): select changed" in error


def test_a_user_brings_a_dataset_from_a_file(call, own, capsys):
    own("own_dataset", DATASET)
    found = call("--dataset own_dataset:mine --epochs 2 --runs 1 --option sum.fail=False")
    assert found.results[-1]["epochs"] == 2
    assert found.results[-2]["settings"]["options"] == "{'fail': False}"
    assert "certainty" not in capsys.readouterr().out  # the terminal has the first score alone


def test_a_failure_is_told_and_the_rest_is_there(call, capsys, tmp_path):
    with pytest.raises(SystemExit, match="runs that failed: 1; the same command tries them again"):
        call("--runs 1 --option sum.fail=True")
    assert "RuntimeError: this fusion fails" in capsys.readouterr().out
    for name in ("results.html", "results.json"):
        text = (tmp_path / "results" / name).read_text(encoding="utf-8")
        assert "this fusion fails" in text and "concat" in text


def test_nothing_but_failures_ends_with_the_last(call):
    bare = toy.recipe(floors={}, fusion_options={"sum": {"fail": True}})
    with pytest.raises(SystemExit, match="every run failed.*\n(.*\n)*.*this fusion fails"):
        call("--runs 1 --fusions sum --no-unimodal", {"toy": lambda data_dir: bare})


def noisy_recipe(data_dir=None):
    return toy.recipe(noise={"a": less, "b": less})


def less(x, level, generator):
    return (1 - level) * x


def test_robustness_is_measured_at_the_usual_levels_or_at_those_given(call, capsys, tmp_path):
    recipes = {"toy": noisy_recipe}
    found = call("--runs 1 --no-unimodal --robustness 0,0.5", recipes)
    assert [row.levels for row in found.robustness()] == [(0.0, 0.5)] * len(found.robustness())
    assert found.results[-1]["robustness"]["levels"] == [0, 0.5]
    out = capsys.readouterr().out
    assert "noise in all %" in out and "robustness.csv" in out
    usual = call("--runs 1 --no-unimodal --robustness --fusions sum", recipes, "usual")
    assert usual.results[-1]["robustness"]["levels"] == [i / 10 for i in range(11)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("0,half", "must be numbers as 0,0.5,1, got 0,half"),
        ("0.5,1", "robustness must be levels that begin with 0"),
        ("0,1", "has none for a, b: Recipe\\(noise="),
    ],
)
def test_levels_and_noise_that_are_not_there_are_answered(call, capsys, asked, said):
    with pytest.raises(SystemExit):
        call(f"--robustness {asked}")
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


def test_the_list_shows_what_fusions_take_and_cost(capsys):
    fusions = {
        "mine": Entry(
            *(WeightedSum, "a sum", "N d"),
            modalities=(2, 4),
            tasks=("multilabel",),
            source="A, 2020",
        ),
        "wide": Entry(WeightedSum, "wide", "much", modalities=(3, 3), reduce=4),
    }
    assert command_line(RECIPES, fusions, ["--list"], program="it") is None
    out = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    weights = 3 * 4 * 128 + 3 * 4 * 128  # into four numbers, and to the width again
    expected = ["mine", "a sum", "A, 2020", "2 to 4: vectors", "multilabel", "3", "N d", ""]
    assert expected in lines
    wide = next(line for line in lines if line[:1] == ["wide"])
    assert wide[3:5] == ["3: vectors", "any task"] and wide[6:] == ["much", "reduced to 4 first"]
    assert abs(int(wide[5].replace(",", "")) - weights) <= 3 * 4 + 3  # biases and weights


def test_every_fusion_of_ours_is_listed():
    assert all(entry.source for entry in FUSIONS.values())
    lines = listing(FUSIONS, {}, {}).splitlines()
    listed = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert listed[2:] == list(FUSIONS)


def test_a_cluster_is_named_by_its_address(call):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        found = call(f"--runs 1 --cluster {cluster.scheduler_address}")
    assert toy.scores(found) == toy.scores(call("--runs 1", folder="alone"))
