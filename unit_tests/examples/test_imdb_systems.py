"""The systems of the films: who is built, what trains it at which rate, and what it refuses."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from deq_fusion.examples.imdb import systems as module
from deq_fusion.examples.imdb.recipe import recipe as imdb
from deq_fusion.examples.imdb.systems import train_experts_first
from deq_fusion.training_structures.comparison import compare
from deq_fusion.training_structures.comparison.identity.identities import Identities
from deq_fusion.training_structures.comparison.methods import Method, gather
from deq_fusion.training_structures.comparison.single_run import run_floor, run_fusion
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.run import load_best

RAW = {"width": 8, "size": 32, "length": 8, "batch_size": 8}


def met(folder, name, **settings):
    recipe = imdb(folder, **settings)
    return recipe.systems[name].meet(recipe)


def built(recipe):
    torch.manual_seed(0)
    train, valid, _ = recipe.loaders(0)
    return recipe.build(None, train), train, valid


@pytest.mark.parametrize("name", ["early", "dynmm"])
def test_systems_of_features_learn(films, name):
    recipe = imdb(films, width=8, lr=0.05, balanced=True).shortened(10)
    recipe = replace(recipe, floors={})
    run = compare(
        recipe,
        {name: recipe.systems[name]},
        runs=1,
        unimodal=False,
        drop_modality=True,
        progress=False,
    )
    (result,) = (r for r in run.results if r["method"] == name)
    assert result["scores"]["f1_micro"] > 0.9
    assert set(result["missing"]) == ({"image"} if name == "dynmm" else set())


def test_early_reads_the_features_as_they_are(films):
    model, train, _ = built(met(films, "early", width=8))
    *views, _ = next(iter(train))
    seen = []
    model.head.op0.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model.eval()(views)
    assert torch.equal(seen[0], torch.cat(views, dim=1))
    inputs, hidden, genres = 6 + 10, 8, 2
    maxouts = 2 * (inputs * hidden + hidden) + 2 * (hidden * hidden + hidden)
    norms = 2 * (inputs + 2 * hidden)
    count = sum(p.numel() for p in model.parameters())
    assert count == maxouts + norms + hidden * genres + genres


def test_late_fusion_is_the_row_concat(films):
    recipe = imdb(films, width=8)
    model, train, _ = built(met(films, "dynmm", width=8))
    concat = recipe.build(lambda dims, dim, outputs: (module.Concat(), sum(dims)), train)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (model.experts[1], concat)]
    assert shapes[0] == shapes[1]


def options(recipe, epochs):
    return {"epochs": epochs, "metrics": recipe.metrics, "select": recipe.select, "progress": False}


def test_experts_are_trained_to_their_best_epochs_first(films):
    recipe = met(films, "dynmm", width=8)
    model, train, valid = built(recipe)
    apart, _, _ = built(recipe)
    rates, given = (0.5, 2.0, 0.0), options(recipe, 3)
    optimizer = partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-2)
    train.generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    history = train_experts_first(
        model,
        *(train, valid, recipe.objective),
        rates=rates,
        optimizer=optimizer,
        parameters=list(model.parameters()),
        **given,
    )
    train.generator.manual_seed(1)
    torch.manual_seed(2)
    for expert, rate in zip(apart.experts, (5e-4, 2e-3), strict=True):
        own = partial(optimizer, lr=rate)
        alone = fit(expert, train, valid, recipe.objective, optimizer=own, **given)
        load_best(expert, alone)
    for own, other in zip(model.experts, apart.experts, strict=True):
        pairs = zip(own.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert len(history.epochs) == 3 and {e["learning_rate"] for e in history.epochs} == {0.0}
    assert "solver_share_of_expert_2" in history.epochs[0]


class Stopped(Exception):
    pass


PARTS = ["OneModality", "MMDL", "DynMM"]  # the experts, and the whole


@pytest.mark.parametrize(
    ("part", "epoch", "again"), [("DynMM", 2, PARTS[2:]), ("DynMM", 1, PARTS), ("MMDL", 2, PARTS)]
)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    films, tmp_path, monkeypatch, part, epoch, again
):
    """From the whole's checkpoint, which is there after an epoch, without training experts."""
    recipe, trained, stopping = met(films, "dynmm", width=8), [], []
    seconds = {}

    def fit_and_stop(model, *data, callbacks=(), **more):
        kind = type(model).__name__
        trained.append(kind)

        def stop(history):
            seconds[kind] = [each["seconds"] for each in history.epochs]
            if stopping and (kind, len(history.epochs)) == (part, epoch):
                raise Stopped

        return fit(model, *data, callbacks=[*callbacks, stop], **more)

    def train(**more):
        model, loader, valid = built(recipe)
        torch.manual_seed(2)
        history = recipe.train(
            model,
            *(loader, valid, recipe.objective),
            optimizer=recipe.optimizer,
            parameters=list(model.parameters()),
            **options(recipe, 3),
            **more,
        )
        return history.epochs, model.state_dict()

    monkeypatch.setattr(module, "fit", fit_and_stop)
    expected, weights = train()
    assert seconds["DynMM"][0] > sum(seconds["OneModality"]) + sum(seconds["MMDL"])
    path = {"checkpoint": tmp_path / "run.ckpt", "resume": True}
    stopping.append(True)
    with pytest.raises(Stopped):
        train(**path)
    first = seconds["DynMM"][0]
    stopping.clear()
    trained.clear()
    epochs, resumed = train(**path)
    assert trained == again
    assert again == PARTS or epochs[0]["seconds"] == first
    assert [e["train_loss"] for e in epochs] == [e["train_loss"] for e in expected]
    assert all(torch.equal(resumed[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("encoders", "name"), [("resnet_bert", "mmbt"), ("vgg_bert", "mmbt"), ("resnet_bert", "pmf")]
)
def test_systems_of_plots_and_posters_are_trained(raw_films, encoders, name):
    pytest.importorskip("transformers")
    recipe = imdb(raw_films, encoders=encoders, balanced=True, **RAW).shortened(1)
    run = compare(recipe, {name: recipe.systems[name]}, runs=1, unimodal=False, progress=False)
    (result,) = (r for r in run.results if r["method"] == name)
    assert 0 <= result["scores"]["f1_macro"] <= 1
    assert "untrained weights" in recipe.systems[name].summary


def test_what_is_untrained_says_so(raw_films):
    weights = {"text_weights": "bert", "vit_weights": "vit", "encoders": "resnet_bert"}
    named = imdb(raw_films, **weights).systems
    assert not any("untrained" in system.summary for system in named.values())
    half = imdb(raw_films, **weights | {"vit_weights": None}).systems
    assert "untrained" in half["pmf"].summary and "untrained" not in half["mmbt"].summary


def test_rates_are_published_unless_given(films):
    default = {"early": 4e-2, "dynmm": 8e-3}
    raw = {"mmbt": 5e-5, "pmf": 1e-3}
    for rates, encoders in ((default, "vgg_word2vec"), (raw, "resnet_bert")):
        for name, rate in rates.items():
            chosen = met(films, name, encoders=encoders).optimizer.keywords
            assert chosen == {"lr": rate, "weight_decay": 1e-2}
            given = met(films, name, encoders=encoders, lr=0.5).optimizer.keywords
            assert given["lr"] == 0.5
    rates = met(films, "dynmm").train.keywords["rates"]
    assert rates == (1 / 80, 1.0, 1 / 80)
    rates = met(films, "dynmm", lr=1e-2, expert_lr=1e-3).train.keywords["rates"]
    assert rates == pytest.approx((0.1, 1.0, 1 / 80))


def test_only_trained_weights_are_frozen_at_first(films):
    def rounds(**weights):
        chosen = met(films, "mmbt", encoders="resnet_bert", **weights).train.keywords["rounds"]
        return [chosen(epoch)[0] for epoch in (1, 3, 4, 5, 6)]

    assert rounds() == ["all"] * 5
    assert rounds(text_weights="bert") == ["image"] * 4 + ["all"]
    assert rounds(image_weights="resnet") == ["text"] * 2 + ["all"] * 3
    both = {"text_weights": "bert", "image_weights": "resnet"}
    assert rounds(**both) == ["new"] * 2 + ["image"] * 2 + ["all"]


def test_other_weights_in_the_same_folder_are_other_runs(films, tmp_path):
    def given(text):
        (tmp_path / "weights").write_text(text)
        recipe = imdb(films, encoders="resnet_bert", text_weights=str(tmp_path))
        mmbt = recipe.systems["mmbt"]
        methods = Method("mmbt", mmbt.meet(recipe), mmbt), Method("concat", recipe, module.Concat)
        return [Identities(run_fusion, run_floor).of(m)["given"]["build"] for m in methods]

    first, other = given("first"), given("other")
    assert given("first") == first
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_text_and_image_are_not_taken_for_each_other(films):
    turned = ["image", "text"]
    for name, encoders in (
        *(("dynmm", "vgg_word2vec"), ("mmbt", "vgg_bert"), ("mmbt", "resnet_bert")),
        ("pmf", "resnet_bert"),
    ):
        recipe = imdb(films, width=8, encoders=encoders).restricted(turned)
        _, skipped = gather(recipe, {name: recipe.systems[name]}, unimodal=False)
        assert "takes text and image in this order, and they are image, text" in skipped[name]
    recipe = imdb(films, width=8).restricted(turned)
    early = recipe.systems["early"].meet(recipe)
    assert built(early)[0](next(iter(early.loaders(0)[0]))[:-1]).shape == (24, 2)


def test_norms_and_biases_do_not_decay():
    model = nn.ModuleDict({"LayerNorm": nn.LayerNorm(3), "dense": nn.Linear(3, 2)})
    decayed, rest = module.decayed_but_norms(model)
    assert decayed == {"params": [model["dense"].weight]} and rest["weight_decay"] == 0.0
    assert len(rest["params"]) == 3


def test_other_data_is_refused(films):
    for name, encoders in (
        *(("early", "vgg_bert"), ("dynmm", "resnet_bert")),
        *(("mmbt", "vgg_word2vec"), ("pmf", "vgg_bert")),
    ):
        with pytest.raises(ValueError, match=f"needs encoders=.*, and they are {encoders}"):
            met(films, name, encoders=encoders)
    recipe = replace(imdb(films, width=8), epochs=1, floors={})
    both = {"pmf": recipe.systems["pmf"], "early": recipe.systems["early"]}
    run = compare(recipe, both, runs=1, unimodal=False, progress=False)
    assert list(run.skipped) == ["pmf"]
