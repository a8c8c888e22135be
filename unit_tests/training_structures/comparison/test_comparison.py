"""What a comparison has found, as one object: table, numbers, the best method, differences."""

import math
from dataclasses import replace
from statistics import fmean

import numpy as np
import pandas
import pytest

from deq_fusion.training_structures.comparison import Score, compare
from deq_fusion.training_structures.comparison.methods import FLOOR, FUSION, SINGLE
from deq_fusion.training_structures.comparison.paired import compare_paired, estimate
from deq_fusion.training_structures.comparison.report.choice import too_few
from deq_fusion.training_structures.comparison.report.table import fitted, make_rows, short_cells
from deq_fusion.training_structures.comparison.report.text import columns_of
from unit_tests.training_structures.comparison import toy

RUNS = 7


@pytest.fixture(scope="module")
def found():
    recipe = toy.recipe(resplit=True, epochs=1)
    return compare(recipe, toy.FUSIONS, RUNS, drop_modality=True, progress=False)


def scores_of(found, method, part="scores", score="accuracy"):
    return [r[part][score] for r in found.results if r["method"] == method]


def test_an_int_is_the_number_of_runs_and_nothing_is_kept_without_a_folder(found):
    assert {r["run"] for r in found.results} == set(range(RUNS))
    some = compare(toy.recipe(epochs=1), toy.FUSIONS, [4, 2], unimodal=False, progress=False)
    assert [r["run"] for r in some.results if r["method"] == "sum"] == [4, 2]
    assert not some.reused


def test_methods_rows_and_results_have_a_kind(found):
    kinds = {"majority": FLOOR, "only a": SINGLE, "only b": SINGLE, "sum": FUSION, "concat": FUSION}
    assert {m.name: m.kind for m in found.methods} == kinds
    assert {row.method: row.kind for row in found.table()} == kinds
    assert {r["method"]: r["kind"] for r in found.results} == kinds


def test_a_fusion_that_is_called_like_a_single_modality_is_a_fusion():
    fusions = {"only the sum": toy.Sum}
    found = compare(toy.recipe(epochs=1), fusions, 1, progress=False)
    assert "only the sum" not in found._repr_markdown_().split("Best single modality: ")[1][:9]
    assert next(row for row in found.table() if row.method == "only the sum").kind == FUSION


def test_the_table_is_that_of_the_runs_against_the_baseline(found):
    share = toy.SIZES[2] / toy.SIZES[0]
    assert found.baseline == "concat" and found.test_share == share
    asked = {"baseline": "concat", "test_share": share}
    assert found.table() == make_rows(found.results, toy.recipe().scores, **asked)
    assert compare(toy.recipe(epochs=1), {"sum": toy.Sum}, 1, progress=False).baseline is None


def test_the_data_frame_has_the_numbers_of_the_table(found):
    frame = found.to_dataframe().set_index("method")
    assert list(frame.index) == [row.method for row in found.table()]
    for row in found.table():
        line, values = frame.loc[row.method], scores_of(found, row.method)
        expected = estimate(values, test_share=found.test_share)
        assert (line["mean"], line["sd"], line["low"], line["high"]) == pytest.approx(
            (expected.mean, expected.sd, expected.low, expected.high)
        )
        assert line["kind"] == row.kind and line["runs"] == RUNS
        sure = scores_of(found, row.method, score="certainty")
        assert line["certainty"] == pytest.approx(fmean(sure))
        if row.method == "concat":
            assert math.isnan(line["difference"]) and math.isnan(line["p"])
        else:
            assert line["difference"] == row.test.difference and line["p"] == row.test.p
    numbers = frame.drop(columns="kind")
    assert all(pandas.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes)
    missing = [r["missing"]["a"]["accuracy"] for r in found.results if r["method"] == "sum"]
    assert frame.loc["sum", "without_a"] == pytest.approx(fmean(missing))
    assert math.isnan(frame.loc["majority", "without_a"])


def test_a_difference_is_the_corrected_test_of_any_two(found):
    first, second = scores_of(found, "sum"), scores_of(found, "only b")
    expected = compare_paired(first, second, test_share=found.test_share)
    assert found.difference("sum", "only b") == expected
    assert found.difference("only b", "sum").difference == -expected.difference
    with pytest.raises(ValueError, match="no run of 'film'; choose from majority, .*concat"):
        found.difference("sum", "film")
    apart = replace(
        found, results=[r for r in found.results if (r["run"] < 2) == (r["method"] == "sum")]
    )
    with pytest.raises(
        ValueError, match="sum and concat must have a run in common, they have none"
    ):
        apart.difference("sum", "concat")


def changed(found, valid, **changes):
    """The comparison with other scores on validation data, method -> one for all runs."""
    results = [
        r if r["method"] not in valid else {**r, "valid": {"accuracy": valid[r["method"]]}}
        for r in found.results
    ]
    return replace(found, results=results, **changes)


def test_the_best_is_so_on_validation_data_and_never_on_test_data(found):
    means = {
        name: fmean(scores_of(found, name, "valid"))
        for name in ("only a", "only b", "sum", "concat")
    }
    best = found.best()
    assert best.name == max(means, key=means.get) and best.valid == max(means.values())
    for name, kind in (("only b", SINGLE), ("sum", FUSION)):  # whatever the test data say
        best = changed(found, dict.fromkeys(means, 0.1) | {name: 0.2}).best()
        assert (best.name, best.kind, best.valid) == (name, kind, pytest.approx(0.2))
        row = next(row for row in found.table() if row.method == name)
        assert best.scores == row.scores


def test_less_of_an_error_is_the_best_and_what_failed_or_is_undefined_is_not(found):
    valid = {"only a": 0.3, "only b": 0.2, "sum": 0.1, "concat": math.nan}
    lower = changed(found, valid, score=Score("accuracy", lower=True))
    assert lower.best().name == "sum" and changed(found, valid).best().name == "only a"
    failure = {"method": "sum", "kind": FUSION, "run": 9, "error": "it failed"}
    assert replace(lower, failures=[failure]).best().name == "only b"
    with pytest.raises(ValueError, match="with a validation accuracy in every run, there is none"):
        changed(found, dict.fromkeys(valid, math.nan)).best()


def judged(found, floor, valid=0.75):
    """The comparison with runs in which concat has these test scores more than the floor."""
    results = []
    for result in found.results:
        own = {"majority": 0.6, "concat": 0.6 + floor[result["run"]]}.get(result["method"], 0.1)
        valids = {"accuracy": valid if result["method"] == "concat" else 0.1}
        results.append({**result, "scores": {**result["scores"], "accuracy": own}})
        results[-1] |= {} if result["method"] == "majority" else {"valid": valids}
    return replace(found, results=results)


def test_what_is_chosen_is_said_by_both_scores_and_beside_a_floor_within_chance(found, tmp_path):
    ahead = judged(found, [0.2, 0.21, 0.19, 0.2, 0.2, 0.22, 0.18])
    said = ahead.chosen()
    test = fmean(scores_of(ahead, "concat"))
    assert said == (
        f"Chosen on validation data: concat (accuracy 75.0 % there, {100 * test:.1f} % on the test "
        "part). Only fusions and single modalities can be chosen, no floors."
    )
    shares = [0.2, -0.2, 0.1, -0.1, 0.05, -0.02, 0.0]
    level = judged(found, shares)
    pairs = [scores_of(level, name) for name in ("concat", "majority")]
    p = compare_paired(*pairs, test_share=found.test_share).p
    assert level.chosen().endswith(
        f"majority, a floor, is within chance of it (p {p:.3f}), and costs less: think of using "
        "just that."
    )
    behind = judged(found, [-x for x in (0.2, 0.21, 0.19, 0.2, 0.2, 0.22, 0.18)])
    assert behind.chosen().endswith("majority, a floor, is better than it beyond chance: use it.")
    level.write(tmp_path)
    for text in (str(level), (tmp_path / "results.md").read_text(), level._repr_html_()):
        assert "Chosen on validation data: concat" in " ".join(text.split())
    page = (tmp_path / "results.html").read_text().replace("&nbsp;", " ")
    assert "<li>Chosen on validation data: concat (accuracy 75.0 % there" in page


def test_with_few_runs_no_floor_is_within_chance_and_they_are_too_few(found):
    few = replace(found, results=[r for r in found.results if r["run"] < 2])
    assert "floor, is" not in few.chosen() and too_few(found) == ""
    assert too_few(few) == "2 runs are too few to choose by: take 6 at least, better 20"
    one = replace(found, results=[r for r in found.results if r["run"] < 1])
    assert too_few(one).startswith("a single run is too few to choose by")
    floors = replace(found, methods=[m for m in found.methods if m.kind == FLOOR])
    assert floors.chosen() == "" and "Chosen" not in str(floors)


def fit_again(name, fusion, options, modalities=("a", "b"), **optimizer):
    return name, fusion, options, modalities, optimizer


def test_the_best_is_refitted_by_its_recipe():
    options = {"sum": {"fail": False}}
    recipe = toy.recipe(refit=fit_again, epochs=1, fusion_options=options)
    found = compare(recipe, toy.FUSIONS, 2, trials=2, progress=False)
    valid = {"only a": 0.1, "only b": 0.1, "concat": 0.1, "sum": 0.2}
    best = changed(found, valid).best()
    chosen = [r["hyperparameters"] for r in found.results if r["method"] == "sum"]
    assert best.chosen in chosen
    told = "sum", toy.Sum, {"fail": False, **best.chosen["options"]}, ("a", "b")
    assert best.refit() == (*told, best.chosen["optimizer"])
    alone = changed(found, valid | {"only b": 0.9}).best().refit()
    assert alone[0] == "only b" and alone[3] == ("b",)  # it needs no more than that
    module, width = alone[1]([3], 7)
    assert width == 3 and module(["features"]) == "features"


def test_a_recipe_without_refit_says_what_it_would_be(found):
    with pytest.raises(ValueError, match="the recipe of toy has no refit: .*name, fusion, options"):
        found.best().refit()


def test_it_is_written_as_the_command_writes_it(found, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "deq_fusion.training_structures.comparison.report.report._page", lambda _: ""
    )
    found.write(tmp_path / "new" / "folder")
    files = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert files == {"results.md", "results.csv", "results.json", "results.html"}
    text = (tmp_path / "new" / "folder" / "results.md").read_text(encoding="utf-8")
    assert "compare(toy, ['sum', 'concat'], runs=[0, 1, 2, 3, 4, 5, 6])" in text


def test_a_notebook_and_a_terminal_show_the_verdict_and_the_table(found, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    texts = str(found), found._repr_markdown_(), found._repr_html_()
    for text in texts:
        assert "Best of 5 methods: " in text and "minus concat [95 %]" in text
        assert all(row.method in text for row in found.table())
        assert len(text) < 4000
    assert all(columns_of(line) <= 80 for line in texts[0].splitlines())
    assert repr(found) == "<Comparison of 5 methods on toy: 35 runs>"


def test_when_all_has_failed_it_says_so():
    recipe = toy.recipe(floors={}, fusion_options={"sum": {"fail": True}})
    found = compare(recipe, {"sum": toy.Sum}, 2, unimodal=False, progress=False)
    assert "No run of 2 has finished." in str(found) and "this fusion fails" in str(found)
    assert "2 of them failed" in found._repr_html_() and "2 of them" in found._repr_markdown_()
    for ask in (found.table, found.to_dataframe, lambda: found.write("x")):
        with pytest.raises(ValueError, match="every run failed, the last with:\n(.*\n)*.*fails"):
            ask()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"runs": 0}, "runs must be different numbers, at least one, got 0"),
        ({"baseline": "film"}, "unknown baseline 'film'; choose from majority, .*, sum, concat"),
        ({"subject": "film"}, "unknown subject 'film'; choose from sum, concat"),
        ({"metric": "f1"}, "unknown metric 'f1'; choose from accuracy, certainty"),
        ({"device": "nonsense"}, "device must be one that torch has here, .* got .nonsense"),
    ],
)
def test_a_name_that_is_not_there_is_refused_before_any_work(asked, message):
    with pytest.raises(ValueError, match=message):
        compare(toy.recipe(), toy.FUSIONS, **{"runs": 1, "progress": False} | asked)


def test_data_that_cannot_be_read_are_told_before_any_work(tmp_path):
    def load(run, modalities):
        raise FileNotFoundError("there is no such folder")

    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        compare(toy.recipe(load=load), toy.FUSIONS, 1, output=tmp_path / "x", progress=False)
    assert not (tmp_path / "x").exists()


LONG = ["a method of one's own with a name that does not end soon", "模态" * 20, "deq"]


@pytest.mark.parametrize("width", [30, 45, 80, 200])
@pytest.mark.parametrize("runs", [1, 3, 8])
def test_the_table_of_a_terminal_fits_its_width(width, runs):
    generator = np.random.default_rng(0)
    results = [
        {"method": name, "run": run, "seconds": 1234.5, "scores": {"balanced accuracy": share}}
        for name in LONG
        for run, share in enumerate(generator.random(runs))
    ]
    score = Score("balanced accuracy")
    rows = make_rows(results, [score], baseline="deq")
    lines = fitted(*short_cells(rows, score, "deq"), width).splitlines()
    assert len(lines) == 2 + len(LONG) and all(columns_of(line) <= width for line in lines)
    assert "(<" not in "".join(lines) and (" p " in lines[0]) == (runs >= 6 and width > 45)
    whole = [name for name in LONG if any(line.startswith(name) for line in lines)]
    assert whole == (LONG if width == 200 else ["deq"])
    if width >= 80:
        assert "seconds" in lines[0] and "1234.5" in lines[2]


def test_a_table_keeps_a_column_as_long_as_names_keep_twelve():
    head, lines = ["method", "alpha", "gamma"], [["n" * 20, "12345", "67890"]]  # 20 + 2 + 5 + 2 + 5
    assert fitted(head, lines, 34).splitlines()[2] == "n" * 20 + "  12345  67890"
    title, rule, line = fitted(head, lines, 26).splitlines()
    assert title == "method        alpha  gamma" and rule == "-" * 12 + "  -----  -----"
    name, *numbers = line.split()
    assert len(name) == 12 and numbers == ["12345", "67890"]
    assert fitted(head, lines, 25).splitlines()[0].split() == ["method", "alpha"]


def test_headings_of_a_table_that_is_too_wide_have_twenty_columns():
    lines = [["a", "1", "2"]]
    for longest, wanted in ((20, "h" * 20), (21, "h" * 10 + "…" + "h" * 9)):
        title = fitted(["method", "h" * longest, "i" * 40], lines, 60).splitlines()[0]
        assert title.split()[1] == wanted
