"""Optuna's search: it learns, a resumed one is the undisturbed one, and pruning is asked for."""

import math

import pytest
import torch
from scipy.stats import loguniform

from deq_fusion.training_structures.comparison import search as module
from deq_fusion.training_structures.comparison import single_run
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.search import search, searched_by
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.run import History
from unit_tests.training_structures.comparison import toy

optuna = pytest.importorskip("optuna")

RATES = {"lr": loguniform(1e-6, 1.0)}
BEST = 3e-3


def method(**changes):
    return Method("sum", toy.recipe(search=RATES, **changes), toy.Sum)


def distance(choice):
    """What a trial of that learning rate reaches, in powers of ten; the recipe's own is 1e-2."""
    return abs(math.log10(choice["optimizer"].get("lr", 1e-2) / BEST))


def test_it_comes_nearer_to_the_best_than_draws():
    def tried(run):
        found = search(method(), run, 20)
        for _ in range(20):
            choice = found.ask()
            found.tell(distance(choice), [])
            yield distance(choice)

    ends = [sum(list(tried(run))[-10:]) / 10 for run in range(5)]
    assert sum(ends) / 5 < 1.0  # draws over these six decades are 1.54 away in the mean


def test_a_diverged_trial_is_the_worst_whichever_way_is_better():
    for select in ("loss", "certainty"):
        found = search(method(select=select), 0, 12)
        rates = []
        for _ in range(12):
            rate = found.ask()["optimizer"].get("lr", 1e-2)
            rates.append(rate)
            sign = 1 if select == "certainty" else -1
            found.tell(None if rate > 1e-3 else sign * math.log10(rate), [])
        assert sum(rate > 1e-2 for rate in rates[6:]) <= 1


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(("prune", "fusion"), [(False, "sound"), (True, "diverges")])
def test_a_resumed_search_is_the_undisturbed_one(tmp_path, monkeypatch, prune, fusion):
    class Fragile(toy.Sum):
        """Diverges in the sixth epoch of some trials."""

        search = {"fail": (False, fusion == "diverges")}
        interrupts = False

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, features):
            self.steps += self.training
            late = self.fail and self.steps > 5 * toy.BATCHES
            if late and self.interrupts:  # when a checkpoint has the epoch before
                raise Interrupted
            return sum(features) * (float("nan") if late else self.scale)

    asked = {"run": 1, "trials": 9, "prune": prune}
    trained = None

    def train(*args, **options):
        if trained is None:
            return fit(*args, **options)
        trained.append(options)
        Fragile.interrupts = len(trained) > 5
        if len(trained) == 8:
            options["callbacks"] = [*options["callbacks"], interrupt]
        return fit(*args, **options)

    def interrupt(history):
        if len(history.epochs) == 2:
            raise Interrupted

    searched = Method("sum", toy.recipe(search=RATES, epochs=8, train=train), Fragile)
    whole = run_fusion(searched, **asked)
    trained = []
    monkeypatch.setattr(single_run, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "run.ckpt"
    with pytest.raises(Interrupted):
        run_fusion(searched, **asked, checkpoint=path)
    trained, Fragile.interrupts = None, False
    resumed = run_fusion(searched, **asked, checkpoint=path)
    assert resumed["trials"] == whole["trials"]
    assert resumed["scores"] == whole["scores"]
    assert resumed["epochs_spent"] == whole["epochs_spent"]
    assert any(t["valid"] is None for t in whole["trials"][5:]) == (fusion == "diverges")
    assert len({str(trial["optimizer"]) for trial in whole["trials"]}) == 9


def pruned_of(found, curves):
    """Which trials end, after which epoch, if each reaches the losses of its curve."""
    ends = []
    for curve in curves:
        found.ask()
        history, callbacks = History(), found.callbacks
        for epoch, loss in enumerate(curve, start=1):
            history.epochs.append({"epoch": epoch, "valid_loss": loss})
            history.ended = any([callback(history) for callback in callbacks])
            if history.ended:
                break
        found.tell(min(curve[:epoch]), curve[:epoch], pruned=history.ended)
        ends.append(epoch if history.ended else None)
    return ends


def test_trials_below_the_median_of_earlier_ones_are_pruned_if_that_is_asked_for():
    level = [1.0] * 6
    curves = [level, [0.9] * 6, [1.1] * 6, [1.05] * 6, [0.8] * 6, [2.0] * 3 + [0.5] * 3]
    ends = pruned_of(search(method(), 0, 6, prune=True), curves)
    assert ends == [None, None, None, 4, None, None]  # 4: the first epoch after three
    assert pruned_of(search(method(), 0, 6), curves) == [None] * 6


def test_a_pruned_trial_is_not_chosen_and_its_epochs_count():
    recipe = toy.recipe(search=RATES, epochs=10)
    result = run_fusion(Method("sum", recipe, toy.Sum), run=0, trials=9, prune=True)
    pruned = [trial for trial in result["trials"] if trial.get("pruned")]
    assert pruned and all(trial["epochs"] < 10 for trial in pruned)
    assert result["epochs_spent"] == sum(trial["epochs"] for trial in result["trials"]) < 90
    whole = [trial["valid"] for trial in result["trials"] if not trial.get("pruned")]
    assert result["valid"]["loss"] == min(whole)


def test_pruning_is_refused_without_a_search_and_without_optuna(monkeypatch):
    assert searched_by(1) is None
    assert searched_by(4) == f"Optuna {optuna.__version__}, TPE"
    assert searched_by(4, prune=True) == f"Optuna {optuna.__version__}, TPE and median pruning"
    with pytest.raises(ValueError, match="prune ends trials of a search, so ask for more"):
        searched_by(1, prune=True)
    monkeypatch.setattr(module, "optuna_version", lambda: None)
    assert searched_by(4) == "random draws"
    with pytest.raises(ValueError, match="needs Optuna: pip install"):
        searched_by(4, prune=True)


def test_what_searches_decides_whether_runs_are_reused(tmp_path, monkeypatch, capsys):
    changes = {"search": RATES}
    first = toy.run(tmp_path, changes=changes, trials=2, progress=True)
    by = f"Optuna {optuna.__version__}, TPE"
    assert f"every fusion tries 2 settings in each run, found by {by}\n" in capsys.readouterr().err
    by_method = {r["method"]: r["settings"].get("searched by") for r in first.results}
    assert by_method == {"majority": None, "sum": by, "concat": by}
    again = toy.run(tmp_path, changes=changes, trials=2)
    assert toy.scores(again) == toy.scores(first) and len(again.reused) == 1
    monkeypatch.setattr(module, "optuna_version", lambda: "1.0")
    found = toy.run(tmp_path, changes=changes, trials=2)
    assert found.reused[1:] == [
        f"4 runs made again (sum, concat): search was {by} and is Optuna 1.0, TPE"
    ]
    monkeypatch.setattr(module, "optuna_version", lambda: None)
    found = toy.run(tmp_path, changes=changes, trials=2, progress=True)
    assert "is random draws" in found.reused[-1]
    assert "found by random draws; Optuna would learn from the trials: pip install optuna" in (
        capsys.readouterr().err
    )
