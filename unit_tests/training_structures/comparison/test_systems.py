"""Systems: whole models with a training of their own, under the protocol of the fusions."""

import pickle
import re
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from deq_fusion.training_structures.checkpoint import seeded
from deq_fusion.training_structures.comparison import System, command_line, compare
from deq_fusion.training_structures.comparison.identity.identities import Identities
from deq_fusion.training_structures.comparison.methods import FUSION, SYSTEM, Method, gather
from deq_fusion.training_structures.comparison.program.listing import listing
from deq_fusion.training_structures.comparison.recipe import described
from deq_fusion.training_structures.comparison.single_run import run_floor, run_fusion
from deq_fusion.training_structures.comparison.systems import About
from deq_fusion.training_structures.fit import evaluate, fit, load_best
from unit_tests.training_structures.comparison import toy

ROUNDS = ["first", "second"]


class Chain(nn.Module):
    """Two layers, each learnt in a round of its own."""

    round = None

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Linear(width, 2), nn.Linear(2, 2)

    def forward(self, views):
        guess = self.first(torch.cat(list(views), 1))
        return guess if self.round == "first" else self.second(guess.detach())


class Blind(Chain):
    """The same, which can do without a modality: its inputs are then zeros."""

    hidden = None

    @contextmanager
    def without(self, modality):
        self.hidden = modality
        try:
            yield
        finally:
            self.hidden = None

    def forward(self, views):
        views = [view * (i != self.hidden) for i, view in enumerate(views)]
        return super().forward(views)


def build(cls, fusion, train):
    return cls(sum(view.shape[1] for view in train.dataset.dataset.tensors[:-1]))


def schedule(epoch, *, epochs):
    """Half of the training learns the first layer alone."""
    return ROUNDS[:1] if 2 * epoch <= epochs else ROUNDS


def meet(recipe, cls=Chain, **changes):
    if recipe.modalities == ("b",):
        raise ValueError("needs what tells the truth")
    train = partial(fit, rounds=partial(schedule, epochs=1))
    adam = partial(torch.optim.Adam, lr=0.05)
    own = {"build": partial(build, cls), "train": train, "optimizer": adam, "epochs": 6}
    return replace(recipe, **own | {"search": {"lr": (0.01, 0.02, 0.05)}} | changes)


def system(cls=Chain, needs=None, modalities=(1, None), **changes):
    words = "two layers", "Nobody, 2020", "vectors", "d^2"
    return System(partial(meet, cls=cls, **changes), *words, modalities, needs)


CHAIN = system()


def recipe(systems=None, **changes):
    return toy.recipe(systems={"chain": CHAIN} if systems is None else systems, **changes)


def run(folder, systems, **asked):
    asked = {"unimodal": False, "progress": False} | asked
    return compare(recipe(systems), {**systems, "sum": toy.Sum}, range(2), output=folder, **asked)


def by_hand(number):
    """What the protocol gives of the chain: its split, its selection, the test part once."""
    with seeded(number):
        train, valid, test = toy.load(number, ("a", "b"))
        model = Chain(6)
        history = fit(
            *(model, train, valid, nn.functional.cross_entropy),
            epochs=6,
            optimizer=partial(torch.optim.Adam, lr=0.05),
            metrics=toy.metrics,
            rounds=lambda epoch: ROUNDS[: 1 if epoch <= 3 else 2],
            progress=False,
        )
    load_best(model, history)
    return evaluate(model, test, metrics=toy.metrics), history


def test_a_system_is_trained_its_own_way_under_the_same_protocol(tmp_path):
    found = run(tmp_path, {"chain": CHAIN}, baseline="sum")
    assert not found.failures
    for number in range(2):
        result = next(r for r in found.results if (r["method"], r["run"]) == ("chain", number))
        scores, history = by_hand(number)
        assert result["scores"] == pytest.approx(scores, abs=0)
        assert result["best_epoch"] == history.best_epoch and result["epochs"] == 6
        assert (result["kind"], result["fusion_parameters"]) == (SYSTEM, 0)
    rows = {row.method: row for row in found.table()}
    assert rows["chain"].test.difference is not None and rows["sum"].kind == FUSION


def test_its_runs_are_used_again(tmp_path):
    first = run(tmp_path, {"chain": CHAIN})
    said = replace(CHAIN, summary="in other words")
    again = run(tmp_path, {"chain": said})
    assert toy.scores(again) == toy.scores(first)
    assert again.reused[0].startswith("6 of 6 runs reused")
    slower = run(tmp_path, {"chain": system(optimizer=torch.optim.Adam)})
    assert "2 runs made again (chain): optimizer changed" in slower.reused


def test_other_methods_runs_are_as_they_were(tmp_path):
    """That a recipe has systems changes neither settings nor identities of its fusions."""
    identities, given = Identities(run_fusion, run_floor), []
    for systems in ({}, {"chain": CHAIN}):
        method = Method("sum", recipe(systems), toy.Sum)
        given.append((method.settings(), identities.of(method)))
    assert given[0] == given[1] and "train" not in given[0][0]


def test_how_a_system_trains_is_told_by_name():
    settings = meet(toy.recipe()).settings("chain")
    assert settings["train"].endswith(
        "fit(rounds=unit_tests.training_structures.comparison.test_systems.schedule(epochs=6))"
    )
    assert described(partial(toy.load, "x", flag=True)).endswith("toy.load('x', flag=True)")


def test_rounds_follow_the_epochs_that_are_asked_for():
    for epochs in (2, 8):
        shorter = recipe().shortened(epochs)
        met = shorter.systems["chain"].meet(shorter)
        rounds = met.train.keywords["rounds"]
        assert (shorter.epochs, met.epochs) == (epochs, epochs)
        assert rounds(epochs // 2) == ROUNDS[:1] and rounds(epochs // 2 + 1) == ROUNDS


def test_what_cannot_take_the_recipe_is_left_out_with_the_reason():
    wanted = {"chain": CHAIN, "pairs": system(modalities=(3, 3))}
    methods, skipped = gather(recipe(wanted), wanted, unimodal=False)
    assert [m.name for m in methods] == ["majority", "chain"]
    assert skipped == {"pairs": "takes 3 modalities, and there are 2"}
    assert methods[1].recipe.systems == {}
    _, skipped = gather(recipe().restricted(["b"]), {"chain": CHAIN}, unimodal=False)
    assert skipped == {"chain": "needs what tells the truth"}


def test_a_system_leaves_what_all_share_as_it_is():
    for changes, name in (({"part": "valid"}, "part"), ({"select": "accuracy"}, "select")):
        with pytest.raises(TypeError, match=f"chain must leave .* as they are.*changes {name}"):
            gather(recipe(), {"chain": system(**changes)}, unimodal=False)
    empty = System(lambda recipe: None, "nothing", "", "", "")
    with pytest.raises(TypeError, match="meet of the system chain must return a Recipe, got None"):
        gather(recipe(), {"chain": empty}, unimodal=False)


def test_data_of_a_loader_of_its_own_are_its_own(tmp_path):
    """An identity's digests are not those of the loaders that the fusions have."""

    def load(run, modalities):
        return toy.load(run + 9, modalities)

    own = system(load=load)
    first = run(tmp_path, {"chain": own})
    again = run(tmp_path, {"chain": own})
    assert toy.scores(again) == toy.scores(first) and "6 of 6 runs reused" in again.reused[0]


def hidden(found, method):
    return next(r for r in found.results if r["method"] == method)["missing"]


def test_without_a_modality_a_system_does_what_it_knows(tmp_path):
    systems = {"blind": system(Blind), "chain": CHAIN, "text": system(needs=("a",))}
    found = run(tmp_path, systems, drop_modality=True)
    assert not found.failures
    assert list(hidden(found, "blind")) == list(hidden(found, "sum")) == ["a", "b"]
    assert hidden(found, "chain") == {}
    result = next(r for r in found.results if r["method"] == "text")
    assert result["missing"] == {"b": result["scores"]}  # which it does not need
    text = str(found)
    assert "Not scored, for the system knows no way: chain without a, b; text without a." in (
        " ".join(text.split())
    )
    again = run(tmp_path, systems, drop_modality=True)
    assert toy.scores(again) == toy.scores(found)
    found.write(tmp_path / "results")


def test_a_search_tries_a_systems_own_values(tmp_path):
    found = run(tmp_path, {"chain": CHAIN}, trials=3)
    tried = next(r for r in found.results if r["method"] == "chain")["trials"]
    assert {trial["optimizer"].get("lr") for trial in tried} <= {None, 0.01, 0.02, 0.05}
    assert all(trial["options"] == {} for trial in tried)


def test_reports_tell_systems_apart(tmp_path):
    found = run(tmp_path, {"chain": CHAIN}, baseline="sum")
    kinds = dict(zip(found.to_dataframe()["method"], found.to_dataframe()["kind"], strict=True))
    assert kinds["chain"] == SYSTEM
    found.write(tmp_path / "results")
    page = (tmp_path / "results" / "results.html").read_text(encoding="utf-8")
    assert "<td>chain</td><td>system</td>" in page and "<th>kind</th>" in page
    assert "A system has a network and a training of its own" in str(found)
    plain = run(None, {})
    assert "kind" not in str(plain) and "system" not in str(plain)


def test_a_model_for_use_is_not_made_of_a_system_unless_it_can(tmp_path):
    def refit(name, fusion, options, **optimizer):
        return name, optimizer

    chain = {"chain": CHAIN}
    options = {"unimodal": False, "progress": False}
    found = compare(recipe(chain, refit=refit), chain, range(1), **options)
    with pytest.raises(ValueError, match="chain is a system, whose recipe has no refit of its own"):
        found.best().refit()
    own = {"chain": system(refit=refit)}
    assert compare(recipe(own), own, range(1), **options).best().refit() == ("chain", {})


def test_it_can_be_sent_to_other_processes(tmp_path):
    assert pickle.loads(pickle.dumps(CHAIN)).meet.func is meet
    found = run(tmp_path, {"chain": CHAIN}, jobs=2)
    assert toy.scores(found)["chain", 1]["accuracy"] == by_hand(1)[0]["accuracy"]


def test_what_of_a_system_cannot_be_sent_is_named(tmp_path):
    local = system(search={"lr": (threading.Lock(),)})
    said = "the system local's search must be sent to other processes"
    with pytest.raises(ValueError, match=said):
        run(tmp_path, {"local": local, "chain": CHAIN}, jobs=2)


def typed(text, folder=None, recipes=None, **options):
    recipes = recipes or {"toy": lambda data_dir=None: recipe(), "other": toy.recipe}
    known = {"toy": lambda: {"chain": CHAIN, "hosted": CHAIN}, "other": lambda: {"strange": CHAIN}}
    argv = [*text.split(), *(["--output", str(folder)] if folder else [])]
    options = {"systems": known, "program": "it", "usual": ["sum"]} | options
    return command_line(recipes, toy.FUSIONS, argv, **options)


def test_a_command_line_names_systems_as_it_does_fusions(tmp_path):
    shared = "--runs 1 --no-unimodal --epochs 2"
    found = typed(f"{shared} --fusions chain,sum", tmp_path)
    epochs = {r["method"]: r.get("epochs") for r in found.results}
    assert epochs == {"majority": None, "sum": 2, "chain": 2}
    found = typed(f"{shared} --fusions all", tmp_path / "all")
    assert [m.name for m in found.methods] == ["majority", "sum", "concat", "chain"]
    found = typed(shared, tmp_path / "usual")
    assert [m.name for m in found.methods] == ["majority", "sum"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("strange", "strange is a system of other, not of toy; name another --dataset"),
        (
            "sum,chian",
            r"unknown \['chian'\]; did you mean chain\? or .* sum, concat, chain, hosted, or all",
        ),
        ("hosted", "hosted is neither a fusion nor a system of toy, with these settings.*: chain"),
        ("chain --option chain.a=1", "chain cannot be built with .*: has no option a; its options"),
    ],
)
def test_a_system_that_is_not_there_is_told_of(text, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        typed(f"--runs 1 --fusions {text}", tmp_path)
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_a_recipe_of_ones_own_may_have_systems(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "recipe_of_mine", lambda data_dir=None: recipe(), raising=False)
    dataset = "--dataset unit_tests.training_structures.comparison.toy:recipe_of_mine"
    found = typed(f"{dataset} --runs 1 --fusions chain --no-unimodal", tmp_path)
    assert [m.name for m in found.methods] == ["majority", "chain"]


def test_the_list_has_systems_and_floors_once_each():
    known = {"one": lambda: {"chain": CHAIN}, "two": lambda: {"chain": CHAIN}}
    floors = {"one": {"majority": About("the usual class", "classical", "labels", "none")}}
    lines = [line.split("|") for line in listing({}, known, floors).splitlines()]
    rows = [[cell.strip() for cell in line[1:-1]] for line in lines if len(line) > 1]
    assert ["chain", "two layers", "Nobody, 2020", "vectors", "d^2", "one, two"] in rows
    assert ["majority", "the usual class", "classical", "labels", "none", "one"] in rows


def test_the_list_of_a_dataset_leaves_out_what_its_settings_refuse(capsys):
    def no(recipe):
        raise ValueError("needs other encoders")

    known = {"chain": CHAIN, "picky": System(no, "", "", "", ""), "trio": system(modalities=(3, 3))}
    recipes = {"toy": lambda data_dir=None: recipe(known)}
    options = {"program": "it", "usual": ["chain"], "systems": {"toy": lambda: known}}
    command_line(recipes, {}, ["--list", "--dataset", "toy"], **options)
    shown = capsys.readouterr().out
    assert "chain" in shown and "picky" not in shown and "trio" not in shown
