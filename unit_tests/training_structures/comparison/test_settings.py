"""Settings: a recipe's keyword-only parameters, given as --set NAME=VALUE."""

from argparse import ArgumentParser, Namespace
from functools import partial

import pytest
import torch

from training_structures.comparison import make_recipe
from training_structures.comparison.methods import Method
from training_structures.comparison.settings import add_settings, literal
from training_structures.comparison.single_run import run_fusion
from unit_tests.training_structures.comparison import toy


def recipe(args, *, width: int = 8, rate: float = 0.1, kind: str = "plain"):
    return args.data_dir, width, rate, kind


def parsed(*argv):
    parser = ArgumentParser()
    add_settings(parser, {"mine": recipe, "plain": lambda args: None})
    return parser.parse_args(argv), parser.format_help()


def test_settings_reach_the_recipe_with_their_types():
    args, _ = parsed("--set", "width=4", "--set", "kind=large", "--set", "rate=1")
    args.data_dir = "here"
    assert make_recipe(recipe, args) == ("here", 4, 1, "large")


def test_help_lists_names_and_defaults():
    _, text = parsed()
    assert "mine has width=8, rate=0.1, kind=plain" in " ".join(text.split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("depth", 3)], r"no such setting; choose from \['width', 'rate', 'kind'\]"),
        ([("width", "wide")], r"--set width must be like 8, got 'wide'"),
        ([("kind", 3)], "must be like 'plain'"),
    ],
)
def test_a_wrong_setting_is_explained(given, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(recipe, Namespace(data_dir=None, settings=given))


def test_a_recipe_without_settings_says_so():
    with pytest.raises(ValueError, match="it has none"):
        make_recipe(lambda args: None, Namespace(settings=[("width", 3)]))


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
