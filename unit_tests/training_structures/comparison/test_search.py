"""The search: as many trials for every fusion, chosen on validation data alone."""

from functools import partial

import pytest
import torch
from scipy.stats import loguniform, norm, randint, uniform
from sklearn.model_selection import ParameterSampler

from deq_fusion.training_structures.comparison import search as module
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.table import cells, make_rows
from deq_fusion.training_structures.comparison.search import check_search, search
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.comparison.space import OWN
from unit_tests.training_structures.comparison import toy

RATES = {"lr": (1e-4, 1e-3, 3e-3, 3e-2)}


class Searched(toy.Sum):
    search = {"fail": (False,), "width": (1, 2, 3)}

    def __init__(self, input_dims, dim, width=0, **options):
        super().__init__(input_dims, dim, **options)


def method(fusion=toy.Sum, **changes):
    return Method("sum", toy.recipe(search=RATES, **changes), fusion)


@pytest.fixture(params=["Optuna", "draws"])
def either(request, monkeypatch):
    """Every test with it is of both searches."""
    if request.param == "Optuna":
        pytest.importorskip("optuna")
    else:
        monkeypatch.setattr(module, "optuna_version", lambda: None)


def settings(method, trials, run, scores=None):
    """The settings of all trials, each of which reaches a score."""
    found, tried = search(method, run, trials), []
    for number in range(trials):
        tried.append(found.ask())
        found.tell(scores[number] if scores else 1 / (1 + number), [])
    return tried


@pytest.mark.parametrize("fusion", [toy.Sum, toy.concat, Searched])
@pytest.mark.usefixtures("either")
def test_every_fusion_gets_as_many_trials_the_first_the_recipes_own(fusion):
    tried = settings(method(fusion), 4, run=0)
    assert len(tried) == 4 and tried[0] == OWN
    assert all(trial not in tried[:i] for i, trial in enumerate(tried))
    for trial in tried[1:]:
        assert trial["optimizer"]["lr"] in RATES["lr"]
        own = getattr(fusion, "search", {})
        assert trial["options"].keys() == own.keys()
        assert all(trial["options"][name] in own[name] for name in own)


@pytest.mark.usefixtures("either")
def test_trials_are_drawn_by_the_number_of_the_run():
    searched = Method("sum", toy.recipe(search={"lr": loguniform(1e-4, 1e-1)}), toy.Sum)
    first, again, other = (settings(searched, 8, run) for run in (3, 3, 4))
    assert first == again and first[1:] != other[1:]
    rates = [trial["optimizer"]["lr"] for trial in first[1:]]
    assert all(type(rate) is float and 1e-4 <= rate <= 1e-1 for rate in rates)


@pytest.mark.usefixtures("either")
def test_integers_and_any_distribution_are_searched():
    space = {"size": randint(2, 5), "shift": norm(), "share": uniform(0.5, 0.25)}
    tried = settings(Method("sum", toy.recipe(search=space), toy.Sum), 9, run=0)
    for trial in tried[1:]:
        size, shift, share = (trial["optimizer"][name] for name in space)
        assert type(size) is int and size in (2, 3, 4)
        assert type(shift) is float and -6 < shift < 6
        assert 0.5 <= share <= 0.75


def test_what_cannot_be_searched_is_refused():
    class Other:
        def rvs(self):
            return 0.1

    with pytest.raises(ValueError, match="lr of sum must be searched among values, or in a frozen"):
        check_search(Method("sum", toy.recipe(search={"lr": Other()}), toy.Sum), 2)


@pytest.mark.usefixtures("either")
def test_all_settings_can_be_tried_and_more_trials_are_refused():
    check_search(method(), 5)
    rates = [trial["optimizer"]["lr"] for trial in settings(method(), 5, run=0)[1:]]
    assert sorted(rates) == sorted(RATES["lr"])
    with pytest.raises(ValueError, match="6 trials need 5 settings.*sum has 4 to choose from"):
        check_search(method(), 6)
    nothing = Method("sum", toy.recipe(search={}), toy.Sum)
    check_search(nothing, 1)
    assert settings(nothing, 1, run=0) == [OWN]
    with pytest.raises(ValueError, match="2 trials need 1 settings.*sum has 0 to choose from"):
        check_search(nothing, 2)


def test_without_optuna_settings_are_scikit_learns_draws(monkeypatch):
    monkeypatch.setattr(module, "optuna_version", lambda: None)
    space = {"lr": loguniform(1e-4, 1e-1)}
    drawn = ParameterSampler({("optimizer", "lr"): space["lr"]}, 3, random_state=5)
    tried = settings(Method("sum", toy.recipe(search=space), toy.Sum), 4, run=5)
    assert [t["optimizer"]["lr"] for t in tried[1:]] == [d["optimizer", "lr"] for d in drawn]


@pytest.mark.parametrize(
    ("make", "select", "pick"),
    [
        (toy.recipe, "certainty", max),
        (toy.recipe, "loss", min),
        (toy.regression_recipe, "mae", min),
    ],
)
@pytest.mark.usefixtures("either")
def test_the_trial_that_is_best_on_validation_data_is_scored(make, select, pick):
    recipe = make(select=select, search=RATES)
    result = run_fusion(Method("sum", recipe, toy.Sum), run=0, trials=5)
    valid = [trial["valid"] for trial in result["trials"]]
    assert len(set(valid)) > 1
    chosen = result["trials"][valid.index(pick(valid))]
    assert result["hyperparameters"] == {k: chosen[k] for k in ("options", "optimizer")}
    assert result["valid"][select] == pick(valid)
    alone = recipe.tuned("sum", chosen["options"], chosen["optimizer"])
    by_itself = run_fusion(Method("sum", alone, toy.Sum), run=0)
    assert by_itself["scores"] == result["scores"]
    for trial in result["trials"]:
        tuned = recipe.tuned("sum", trial["options"], trial["optimizer"])
        assert run_fusion(Method("sum", tuned, toy.Sum), run=0)["valid"][select] == trial["valid"]


def test_the_epoch_that_is_best_on_validation_data_is_scored():
    recipe = toy.recipe(part="valid", epochs=6, optimizer=partial(torch.optim.Adam, lr=1.0))
    results = [run_fusion(Method("sum", recipe, toy.Sum), run) for run in range(3)]
    assert any(result["best_epoch"] < 6 for result in results)
    for result in results:
        assert result["scores"] == {name: result["valid"][name] for name in result["scores"]}
        last = result["curve"][-1]["valid_loss"]
        assert result["valid"]["loss"] <= last * (1 + 1e-5)


class Counting:
    """A loader that counts how often it is read."""

    def __init__(self, loader):
        self.loader, self.dataset, self.reads = loader, loader.dataset, 0

    def __iter__(self):
        self.reads += 1
        return iter(self.loader)


def test_the_scored_part_is_read_once_whatever_is_tried():
    made = []

    def load(run, modalities):
        train, valid, test = toy.load(run, modalities)
        made.append(Counting(test))
        return train, valid, made[-1]

    run_fusion(method(load=load), run=0, trials=4)
    assert sum(test.reads for test in made) == 1


def test_the_test_part_is_not_there_when_hyperparameters_are_chosen():
    def load(run, modalities):
        return *toy.load(run, modalities)[:2], None

    result = run_fusion(method(load=load, part="valid"), run=0, trials=3)
    assert result["scores"]["accuracy"] == result["valid"]["accuracy"]


def test_a_choice_is_put_upon_the_recipes_own_settings():
    given = []

    def fusion(input_dims, dim, **options):
        given.append(options)
        return toy.Sum(input_dims, dim), dim

    rates = []

    def optimizer(groups, **keywords):
        rates.append(keywords)
        return torch.optim.SGD(groups, **keywords)

    recipe = toy.recipe(
        fusion_options={"it": {"width": 1, "depth": 2}, "other": {"width": 9}},
        optimizer=partial(optimizer, lr=0.5, momentum=0.25),
    )
    changed = Method("it", recipe, fusion).changed({"width": 3}, {"lr": 0.125})
    run_fusion(changed, run=0)
    assert given == [{"width": 3, "depth": 2}]
    assert rates == [{"lr": 0.125, "momentum": 0.25}]
    assert changed.settings() != Method("it", recipe, fusion).settings()


class Diverging(toy.Sum):
    """Diverges where `fail` tells it to."""

    search = {"fail": (True,)}

    def forward(self, features):
        return sum(features) * (float("nan") if self.fail else self.scale)


@pytest.mark.usefixtures("either")
def test_a_trial_that_diverges_is_the_worst():
    result = run_fusion(Method("sum", toy.recipe(search=RATES), Diverging), run=0, trials=3)
    assert [trial["valid"] is None for trial in result["trials"]] == [False, True, True]
    assert "training loss is nan" in result["trials"][1]["error"]
    assert [trial["epochs"] for trial in result["trials"]] == [toy.EPOCHS, 1, 1]
    assert result["epochs_spent"] == toy.EPOCHS + 2
    assert result["hyperparameters"] == OWN
    always = Method("sum", toy.recipe(search=RATES).tuned("sum", {"fail": True}, {}), Diverging)
    with pytest.raises(FloatingPointError, match="training loss is nan"):
        run_fusion(always, run=0, trials=2)


def test_the_runs_of_another_search_are_made_again(tmp_path):
    changes = {"search": RATES}
    toy.run(tmp_path, changes=changes, trials=2)
    toy.run(tmp_path, changes=changes, trials=2)
    found = toy.run(tmp_path, changes={"search": {"lr": loguniform(1e-4, 1e-1)}}, trials=2)
    assert found.reused[1:] == ["4 runs made again (sum, concat): search changed"]


def test_the_epochs_of_all_trials_are_told_where_there_are_several(tmp_path):
    searched = toy.run(tmp_path / "searched", changes={"search": RATES}, trials=3)
    plain = toy.run(tmp_path / "plain")
    found = {name: _column(c, "epochs spent") for name, c in (("3", searched), ("1", plain))}
    spent = str(3 * toy.EPOCHS)
    assert found == {"3": {"majority": "", "sum": spent, "concat": spent}, "1": None}


def _column(comparison, heading):
    """What a table says in that column, by method; None if it has none."""
    scores = [Score("accuracy")]
    head, lines = cells(make_rows(comparison.results, scores), scores, None)
    return {line[0]: line[head.index(heading)] for line in lines} if heading in head else None
