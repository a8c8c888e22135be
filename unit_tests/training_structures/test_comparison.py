"""The comparison: one protocol for all, every run stored once, nothing lost, honest tables."""

import csv
import json
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training_structures import report
from training_structures.comparison import Recipe, command_line, compare
from training_structures.metrics import classification
from training_structures.paired import compare_paired, holm

CALLS, LEARNT_FROM = [], []


class Sum(nn.Module):
    def __init__(self, fail=False):
        super().__init__()
        self.scale, self.fail = nn.Parameter(torch.ones(())), fail

    def forward(self, features):
        if self.fail:
            raise RuntimeError("this fusion fails")
        return self.scale * sum(features)


def make_sum(input_dims, dim, **options):
    CALLS.append(options)
    return Sum(**options), dim


def make_concat(input_dims, dim):
    return Concat(), sum(input_dims)


class Concat(nn.Module):
    def forward(self, features):
        return torch.cat(features, 1)


class Host(nn.Module):
    def __init__(self, fusion, width):
        super().__init__()
        self.fusion, self.head = fusion, nn.Linear(width, 2)

    def forward(self, views):
        return self.head(self.fusion(views))


def load(run):
    generator = torch.Generator().manual_seed(run)
    x, y = torch.randn(90, 2, 3, generator=generator), torch.arange(90) % 2
    x[:, 0] += y.unsqueeze(1)
    data = TensorDataset(x[:, 0], x[:, 1], y)
    parts = torch.utils.data.random_split(data, [50, 20, 20], generator=generator)
    return tuple(DataLoader(part, batch_size=25) for part in parts)


def build(fusion, train):
    return Host(*fusion([3, 3], 3))


def majority(known, scored):
    LEARNT_FROM.append(sum(len(loader.dataset) for loader in known))
    return torch.tensor([[1.0, 0.0]]).expand(len(scored.dataset), 2)


def recipe(**changes):
    settings = {
        "name": "toy",
        "load": load,
        "build": build,
        "objective": nn.functional.cross_entropy,
        "metrics": classification,
        "epochs": 3,
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "floors": {"majority": majority},
    }
    return Recipe(**settings | changes)


FUSIONS = {"sum": make_sum, "concat": make_concat}


def run(folder, runs=range(2), **changes):
    return compare(recipe(**changes), FUSIONS, runs=runs, output=folder, progress=False)


def test_every_method_gets_every_run_in_order(tmp_path):
    results = run(tmp_path)
    keys = [(r["method"], r["run"]) for r in results]
    assert keys == [(m, i) for m in ("majority", "sum", "concat") for i in range(2)]
    for result in results[2:]:
        assert set(result["scores"]) == set(result["valid"]) - {"loss"}
        assert 1 <= result["best_epoch"] <= result["epochs"] == 3
    assert [r["fusion_parameters"] for r in results[2:]] == [1, 1, 0, 0]


def test_a_floor_is_scored_on_the_test_part(tmp_path):
    _, _, test = load(1)
    truth = torch.cat([batch[-1] for batch in test])
    assert run(tmp_path)[1]["scores"]["accuracy"] == pytest.approx(
        float((truth == 0).double().mean())
    )


def test_the_test_part_is_not_read_when_hyperparameters_are_chosen(tmp_path):
    def without_test(run):
        return *load(run)[:2], None

    LEARNT_FROM.clear()
    results = run(tmp_path, runs=[0], part="valid", load=without_test)
    assert LEARNT_FROM == [50]  # nor does a floor learn from what is scored
    for result in results[1:]:
        assert result["scores"]["accuracy"] == result["valid"]["accuracy"]


def test_a_run_depends_on_its_number_alone(tmp_path):
    together = run(tmp_path / "a", runs=range(3))
    alone = run(tmp_path / "b", runs=[2])
    for method in range(3):
        assert together[3 * method + 2]["scores"] == alone[method]["scores"]
    assert torch.initial_seed() == 0  # the caller's generator, as the test's fixture left it


def test_finished_runs_are_read_and_not_repeated(tmp_path):
    first = run(tmp_path)
    (tmp_path / "runs" / "sum-1.json").unlink()  # as if it had been interrupted there
    CALLS.clear()
    again = run(tmp_path)
    assert len(CALLS) == 1
    assert [r["scores"] for r in again] == [r["scores"] for r in first]


def test_a_failure_keeps_the_runs_that_had_finished(tmp_path):
    with pytest.raises(RuntimeError, match="this fusion fails"):
        run(tmp_path, fusion_options={"sum": {"fail": True}})
    assert (tmp_path / "runs" / "majority-0.json").exists()


def test_runs_of_other_settings_are_not_mixed(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="epochs was 3 and is 4; choose another output folder"):
        run(tmp_path, epochs=4)


def test_settings_read_the_same_in_every_process():
    settings = recipe(load=partial(load, 3)).settings("sum")
    assert settings["load"].endswith("test_comparison.load(3)")
    assert settings["optimizer"] == "torch.optim.adam.Adam(lr=0.01)"


def test_processes_give_the_results_of_one(tmp_path):
    serial = run(tmp_path / "a")
    parallel = compare(
        recipe(), FUSIONS, runs=range(2), output=tmp_path / "b", jobs=2, progress=False
    )
    assert [r["scores"] for r in serial] == [r["scores"] for r in parallel]


def test_the_fusion_has_its_own_learning_rate(tmp_path):
    kept = []

    def keep(*args):
        kept.append(build(*args))
        return kept[-1]

    run(tmp_path, fusion_lr={"sum": 0.0}, runs=[0], build=keep, epochs=1)
    assert kept[0].fusion.scale.item() == 1
    torch.manual_seed(0)
    assert not torch.equal(kept[0].head.weight, Host(Sum(), 3).head.weight)


def test_the_table_states_means_deviations_and_corrected_tests(tmp_path):
    results = run(tmp_path, runs=range(6))
    rows = report.table(results, test_share=0.4)
    first, second, base = (
        [r["scores"]["accuracy"] for r in results[i : i + 6]] for i in (0, 6, 12)
    )
    expected = [compare_paired(x, base, test_share=0.4) for x in (first, second)]
    corrected = holm([test.p for test in expected])
    for row, test, p in zip(rows, expected, corrected, strict=False):
        assert (row["test"].difference, row["test"].low) == (test.difference, test.low)
        assert row["test"].p == p
    values = torch.tensor([r["scores"]["accuracy"] for r in results[6:12]], dtype=torch.float64)
    assert rows[1]["accuracy"] == pytest.approx((values.mean().item(), values.std().item()))
    assert rows[2]["test"] is None  # the baseline is not compared with itself
    text = report.markdown(rows)
    assert f"{100 * values.mean():.1f} ± {100 * values.std():.1f}" in text
    alone = report.markdown(report.table(results[:1]))
    assert alone.count("\n") == 2 and "±" not in alone  # one run has no spread


def test_the_files_hold_every_run(tmp_path):
    results = run(tmp_path)
    report.write(report.table(results), results, tmp_path, title="toy")
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], int(line["run"])) for line in lines] == [
        (r["method"], r["run"]) for r in results
    ]
    assert float(lines[3]["accuracy"]) == results[3]["scores"]["accuracy"]
    assert (tmp_path / "results.md").read_text(encoding="utf-8").startswith("# toy")
    pytest.importorskip("matplotlib")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_runs_prints_and_writes(tmp_path, capsys):
    arguments = ["--fusions", "sum,concat", "--runs", "1", "--output", str(tmp_path)]
    command_line({"toy": lambda args: recipe()}, FUSIONS, arguments)
    assert "| sum " in capsys.readouterr().out
    assert json.loads((tmp_path / "runs" / "sum-0.json").read_text(encoding="utf-8"))["run"] == 0


def test_the_command_line_corrects_fresh_splits_and_refuses_to_mix_settings(tmp_path, capsys):
    def fresh(**changes):
        return {"toy": lambda args: recipe(resplit=True, **changes)}

    arguments = ["--fusions", "sum,concat", "--runs", "6", "--output", str(tmp_path)]
    results = command_line(fresh(), FUSIONS, arguments)
    rows = report.table(results, test_share=20 / 50)
    printed = capsys.readouterr().out
    assert report.markdown(rows) in printed and "corrected for resampling (Nadeau" in printed
    with pytest.raises(SystemExit):
        command_line(fresh(epochs=4), FUSIONS, arguments)
    assert "epochs was 3 and is 4" in capsys.readouterr().err


def test_options_reach_the_fusion_they_name(tmp_path):
    arguments = ["--fusions", "sum,concat", "--runs", "1", "--output", str(tmp_path)]
    CALLS.clear()
    command_line(
        {"toy": lambda args: recipe()}, FUSIONS, [*arguments, "--option", "sum.fail=False"]
    )
    assert CALLS == [{"fail": False}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fusions", "sum,sums"], r"unknown \['sums'\]; choose from \['sum', 'concat'\]"),
        (["--option", "sum=3"], "must be FUSION.NAME=VALUE with a fusion of .*got 'sum=3'"),
        (["--runs", "0"], "argument --runs: must be an integer of at least 1, got 0"),
        (["--epochs", "0"], "argument --epochs: must be an integer of at least 1, got 0"),
        (["--fusions", "sum", "--option", "concat.a=1"], r"--option concat.a must be of a fusion"),
        (["--dataset", "none"], "invalid choice: 'none'"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        command_line({"toy": lambda args: recipe()}, FUSIONS, arguments)
    assert re.search(message, capsys.readouterr().err)
