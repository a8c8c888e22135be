"""Recipes as functions: their settings, and what a command line applies to what they return."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
import torch

from deq_fusion.examples.brca import train as brca_train
from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.examples.vqa import train as vqa_train
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.program.arguments import make_parser
from deq_fusion.training_structures.comparison.program.settings import (
    add_settings,
    asked_recipe,
    describe_settings,
    literal,
    make_recipe,
    settings_of,
)
from deq_fusion.training_structures.comparison.single_run import run_fusion
from unit_tests.training_structures.comparison import toy


def recipe(
    data_dir: Path | None = None,
    *,
    official: bool = False,
    width: Annotated[int, "of the fused feature"] = 8,
    rate: Annotated[float | None, "learning rate; by default the host's"] = None,
    kind: str = "plain",
    deep=False,
):
    return toy.recipe(name=repr((data_dir, official, width, rate, kind, deep)))


def bare(data_dir):
    return toy.recipe()


def parsed(*argv):
    parser = ArgumentParser(formatter_class=RawDescriptionHelpFormatter)
    add_settings(parser)
    describe_settings(parser, {"mine": recipe, "bare": bare})
    return parser.parse_args(argv), parser.format_help()


def test_settings_reach_the_recipe_with_their_types():
    args, _ = parsed("--set", "width=4", "--set", "kind=large", "--set", "rate=1")
    made = make_recipe(recipe, "here", official=True, settings=dict(args.settings))
    assert made.name == repr(("here", True, 4, 1, "large", False))
    assert make_recipe(recipe).name == recipe().name


def test_help_tells_names_defaults_and_sentences():
    _, text = parsed()
    section = text[text.index("mine:") :].splitlines()
    assert [line.strip() for line in section] == [
        "mine:",
        "width=8: of the fused feature",
        "rate: learning rate; by default the host's",
        "kind=plain",
        "deep=False",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_the_benchmarks_has_types_and_a_sentence(name):
    for setting in settings_of(RECIPES[name]).values():
        assert len(setting.sentence) > 8 and setting.types, setting.name
        setting.check(setting.default)  # of the type that it says
        stands_for_another = setting.default in ("", 0) and setting.default is not False
        none = "workers", "mislabelled"  # of which 0 means none
        assert not stands_for_another or setting.name in none


@pytest.mark.parametrize("name", ["vqa", "brca"])
def test_programs_tell_of_every_setting(name, capsys):
    with pytest.raises(SystemExit):
        {"vqa": vqa_train, "brca": brca_train}[name].main(["--help"])
    script = " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit, match="0"):
        make_parser("it", RECIPES, usual=["sum"]).parse_args(["--dataset", name, "--help"])
    comparison = " ".join(capsys.readouterr().out.split())
    for setting in settings_of(RECIPES[name]).values():
        assert setting.sentence in script and setting.sentence in comparison


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 3}, r"no such setting; choose from \['width', 'rate', 'kind', 'deep'\]"),
        ({"width": "wide"}, r"--set width must be int, got 'wide'"),
        ({"width": True}, "must be int, got True"),
        ({"rate": "fast"}, "must be float or None, got 'fast'"),
        ({"kind": 3}, "must be str, got 3"),
        ({"deep": 1}, "must be bool, got 1"),
    ],
)
def test_a_wrong_setting_is_explained(given, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(recipe, settings=given)


def test_what_a_recipe_does_not_have_is_said():
    with pytest.raises(ValueError, match="it has none"):
        make_recipe(bare, settings={"width": 3})
    with pytest.raises(ValueError, match="no official split of its own: leave out --official"):
        make_recipe(bare, official=True)


def test_a_setting_without_a_default_must_be_given():
    def needy(data_dir=None, *, part: Annotated[str, "of the body"]):
        return toy.recipe(name=part)

    assert make_recipe(needy, settings={"part": "arm"}).name == "arm"
    with pytest.raises(ValueError, match="needs --set part=VALUE: of the body"):
        make_recipe(needy)


def test_annotations_may_be_text():
    def late(data_dir: "Unknown" = None, *, width: "int" = 3):  # noqa: F821
        return toy.recipe()

    def known(data_dir: "str" = None, *, width: "Annotated[int | None, 'how wide']" = None):
        return toy.recipe()

    assert settings_of(late)["width"].types == (int,)  # that of its default
    assert settings_of(known)["width"].types == (int, type(None))
    assert settings_of(known)["width"].sentence == "how wide"


@pytest.mark.parametrize(
    ("old", "shown"),
    [
        (lambda args: toy.recipe(), r"<lambda>\(args\)"),
        (lambda args, *, width=8: toy.recipe(), r"<lambda>\(args, \*, width=8\)"),
        (lambda: toy.recipe(), r"<lambda>\(\)"),
        (lambda data_dir, width=8: toy.recipe(), r"<lambda>\(data_dir, width=8\)"),
    ],
)
def test_a_recipe_of_another_form_is_shown_the_form(old, shown):
    form = r"recipe\(data_dir=None, \*, official=False, \*\*settings\) -> Recipe"
    with pytest.raises(ValueError, match=f"must be a function {form}, got {shown}: .*--epochs"):
        make_recipe(old)


def test_what_is_no_recipe_is_refused():
    with pytest.raises(ValueError, match="nothing must return a Recipe, got NoneType"):

        def nothing(data_dir):
            return None

        make_recipe(nothing)


ASKED = {"data_dir": None, "official": False, "settings": [], "modalities": None}
ASKED |= {"epochs": None, "precision": None, "part": "test"}


def test_epochs_precision_part_and_modalities_are_applied_to_what_it_returns():
    plain = asked_recipe(bare, Namespace(**ASKED))
    assert (plain.epochs, plain.precision, plain.part) == (toy.EPOCHS, "fp32", "test")
    given = {"epochs": 7, "precision": "bf16", "part": "valid", "modalities": ["b"]}
    other = asked_recipe(bare, Namespace(**ASKED | given))
    assert (other.epochs, other.precision, other.part) == (7, "bf16", "valid")
    assert other.modalities == ("b",)


def test_what_the_data_lack_is_refused_where_it_is_asked_for():
    def lacking(data_dir):
        return toy.recipe(lacking={"a": "no a: give --modalities b", "test": "no test"})

    def asked(**given):
        return asked_recipe(lacking, Namespace(**ASKED | given))

    for given, message in (
        ({"part": "valid"}, "no a: give --modalities b"),
        ({"part": "valid", "modalities": ["a"]}, "no a: give"),
        ({"modalities": ["b"]}, "no test"),
    ):
        with pytest.raises(ValueError, match=message):
            asked(**given)
    assert len(asked(part="valid", modalities=["b"]).loaders(0)) == 3
    with pytest.raises(ValueError, match="no a"):
        lacking(None).loaders(0)


def planned(optimizer, *, epochs):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch / epochs)


def history_of(trained, recipe):
    return trained.history.epochs


def test_a_plan_over_all_epochs_follows_their_number():
    made = toy.recipe(scheduler=partial(planned, epochs=3), patience=None)
    for epochs in (2, 4):
        changed = asked_recipe(lambda data_dir: made, Namespace(**ASKED | {"epochs": epochs}))
        found = run_fusion(Method("sum", changed, toy.Sum), run=0, analyse=history_of)
        rates = [record["learning_rate_0"] for record in found["analysis"]]
        assert rates == pytest.approx([1e-2 * (1 - e / epochs) for e in range(epochs)])


@pytest.mark.parametrize("text", ["width", "=3", "a b=3", "width="])
def test_what_is_no_setting_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        parsed("--set", text)
    assert "must be NAME=VALUE" in capsys.readouterr().err


def test_literals():
    assert [literal(t) for t in ("3", "0.5", "raw", "True", "a/b")] == [3, 0.5, "raw", True, "a/b"]


def test_scheduler_accumulation_and_clipping_reach_the_loop():
    halved = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    plain = run_fusion(Method("sum", toy.recipe(epochs=3), toy.Sum), run=0)
    for change in ({"scheduler": halved}, {"accumulate": 2}, {"clip_norm": 1e-3}):
        changed = toy.recipe(epochs=3, **change)
        other = run_fusion(Method("sum", changed, toy.Sum), run=0)
        assert other["curve"] != plain["curve"]
        assert changed.shared_settings() != toy.recipe(epochs=3).shared_settings()
        assert list(change)[0] not in toy.recipe().shared_settings()
