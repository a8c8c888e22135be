"""Every way of changing code or data makes runs again, and nothing else does."""

import importlib
import shutil
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from deq_fusion.training_structures.comparison.identity import identities
from deq_fusion.training_structures.files import read_json
from unit_tests.training_structures.comparison import toy

RECIPE = '''"""A benchmark."""

from functools import partial

import torch

from bench.parts import load
from bench.losses import *
from deq_fusion.training_structures.comparison import Recipe, Score
from unit_tests.training_structures.comparison import toy

RATE = 1e-2  # of learning


def metrics(prediction, truth):
    """The share that is right."""
    from bench.scores import accuracy

    return {"accuracy": accuracy(prediction, truth)}


def recipe():
    return Recipe(
        name="bench",
        modalities=("a", "b"),
        load=load,
        build=toy.build,
        objective=loss,
        metrics=metrics,
        scores=[Score("accuracy")],
        epochs=2,
        optimizer=partial(torch.optim.Adam, lr=RATE),
        floors={"majority": toy.majority},
    )
'''
PARTS = """
from unit_tests.training_structures.comparison import toy

SHIFT = 0


def load(run, modalities):
    return toy.load(run + SHIFT, modalities)
"""
LOSSES = """
from torch import nn


def loss(prediction, truth, smoothing=0.0):
    return nn.functional.cross_entropy(prediction, truth, label_smoothing=smoothing)
"""
SCORES = """
def accuracy(prediction, truth):
    return float((prediction.argmax(1) == truth).float().mean())
"""
FUSIONS = '''
from torch import nn

from . import helpers as h


class Plain(nn.Module):
    def __init__(self, input_dims, dim):
        super().__init__()

    def forward(self, features):
        """Adds."""
        return sum(features)


class Helped(Plain):
    def forward(self, features):
        return h.scaled(super().forward(features))


def other(features):
    return None
'''
HELPERS = """
SCALE = 2.0


def scaled(x):
    return SCALE * x
"""
FILES = {"recipe": RECIPE, "parts": PARTS, "losses": LOSSES, "scores": SCORES}
FILES |= {"fusions": FUSIONS, "helpers": HELPERS, "__init__": ""}


class Bench:
    """A project of its own in a folder, whose files can be changed."""

    def __init__(self, folder):
        self.folder, self.package = folder, folder / "bench"
        self.package.mkdir(exist_ok=True)
        for name, text in FILES.items():
            (self.package / f"{name}.py").write_text(text, encoding="utf-8")

    def edit(self, name, before, after):
        path = self.package / f"{name}.py"
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")

    def run(self, **changes):
        """Returns the methods that were trained, once the same command trains nothing."""
        forget()
        importlib.invalidate_caches()
        fusions = importlib.import_module("bench.fusions")
        recipe = importlib.import_module("bench.recipe").recipe()
        found, again = (
            toy.compare(
                replace(recipe, **changes),
                {"plain": fusions.Plain, "helped": fusions.Helped},
                runs=[0],
                output=self.folder / "results",
                unimodal=False,
                progress=False,
            )
            for _ in range(2)
        )
        assert not found.failures and again.reused[0].startswith("3 of 3 runs reused")
        self.told = " ".join(found.reused)
        kept = found.reused[0].partition(" ")[0] if "reused" in self.told else "0"
        trained = {name for name in ("majority", "plain", "helped") if name in self.told}
        assert len(trained) == (3 - int(kept) if found.reused else 0)
        return trained


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "bench"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a project whose runs are all done."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(folder)
        made = Bench(folder)
        assert made.run() == set() and made.told == ""
    forget()
    return folder


@pytest.fixture
def bench(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    yield Bench(tmp_path)
    forget()


ALL, TRAINED = {"majority", "plain", "helped"}, {"plain", "helped"}


@pytest.mark.parametrize(
    ("file", "before", "after", "trained"),
    [
        ("recipe", "RATE = 1e-2", "RATE = 2e-2", TRAINED),
        ("recipe", 'return {"accuracy": acc', 'return {"accuracy": 1 - acc', ALL),
        ("parts", "SHIFT = 0", "SHIFT = 1", ALL),
        ("losses", "smoothing=0.0", "smoothing=0.1", TRAINED),
        ("scores", "float((", "abs((", ALL),
        ("fusions", "return sum(features)", "return -sum(features)", TRAINED),
        ("fusions", "h.scaled(super", "-h.scaled(super", {"helped"}),
        ("helpers", "SCALE = 2.0", "SCALE = 3.0", {"helped"}),
        ("helpers", "return SCALE * x", "return SCALE + x", {"helped"}),
        ("helpers", "SCALE = 2.0", "SCALE = 2.0\nglobals().update(SCALE=1.0)", {"helped"}),
        # what changes nothing
        ("recipe", "  # of learning", "", set()),
        ("recipe", '"""A benchmark."""', '"""Another text."""', set()),
        ("recipe", '    """The share that is right."""\n', "", set()),
        ("recipe", "RATE = 1e-2", "RATE = 0.01\nUNUSED = 3", set()),
        ("fusions", '        """Adds."""\n', "\n\n        # adds\n", set()),
        ("fusions", "return None", "return 3", set()),
        ("fusions", "sum(features)", "sum(\n            features)", set()),
    ],
)
def test_a_change_of_code_makes_those_again_that_use_it(bench, file, before, after, trained):
    bench.edit(file, before, after)
    assert bench.run() == trained
    why = f"code of {file}.py changed" if "RATE" not in before else "optimizer changed"
    assert (why in bench.told) == bool(trained)


def test_a_module_that_is_moved_changes_nothing(bench):
    (bench.package / "parts.py").rename(bench.package / "moved.py")
    bench.edit("recipe", "from bench.parts import", "from bench.moved import")
    (bench.package / "helpers.py").rename(bench.package / "helping.py")
    bench.edit("fusions", "import helpers as h", "import helping as h")
    (bench.package / "scores.py").rename(bench.package / "shares.py")
    bench.edit("recipe", "from bench.scores import", "from bench.shares import")
    assert bench.run() == set()


def test_a_module_that_takes_anothers_place_is_another(bench):
    """Both were there before, so that no text of a definition is new."""
    (bench.package / "others.py").write_text(HELPERS.replace("2.0", "4.0"), encoding="utf-8")
    bench.edit("fusions", "import helpers as h", "import others as h")
    assert bench.run() == {"helped"}


def test_another_checkout_of_the_same_code_is_the_same(bench, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(bench.package, elsewhere / "bench")
    monkeypatch.syspath_prepend(elsewhere)
    bench.package = elsewhere / "bench"
    assert bench.run() == set()


@pytest.mark.parametrize(
    ("changes", "trained", "why"),
    [
        ({"select": "accuracy"}, TRAINED, "select changed"),
        ({"patience": 1}, TRAINED, "patience changed"),
        ({"clip_norm": 1.0}, TRAINED, "clip_norm changed"),
        ({"fusion_options": {"plain": {}}}, set(), ""),
        ({"fusion_lr": {"plain": 0.1}}, {"plain"}, "fusion_lr changed"),
        ({"optimizer": partial(torch.optim.Adam, lr=0.5)}, TRAINED, "optimizer changed"),
        ({"load": partial(toy.load)}, ALL, "load changed"),
    ],
)
def test_what_the_recipe_is_given_counts(bench, changes, trained, why):
    assert bench.run(**changes) == trained
    assert why in bench.told


def test_the_values_of_a_closure_count(bench):
    def smoothed(amount):
        return lambda p, t: torch.nn.functional.cross_entropy(p, t, label_smoothing=amount)

    assert bench.run(objective=smoothed(0.1)) == TRAINED
    assert bench.run(objective=smoothed(0.1)) == set()
    assert bench.run(objective=smoothed(0.2)) == TRAINED


@pytest.mark.parametrize("name", ["torch", "numpy", "scikit-learn", "Python"])
def test_another_version_makes_everything_again(bench, monkeypatch, name):
    known = identities.versions()
    monkeypatch.setattr(identities, "versions", lambda: known | {name: "99"})
    assert bench.run() == ALL
    assert f"{name} was {known[name]} and is 99" in bench.told


DATA = {"x": torch.arange(24.0).reshape(12, 2), "y": torch.arange(12) % 2}


def load_file(path, run, modalities):
    saved = torch.load(path, weights_only=True)
    data = TensorDataset(saved["x"], saved["x"] + 1, saved["y"])
    parts = (Subset(data, range(at, at + 4)) for at in (0, 4, 8))
    return tuple(DataLoader(part, batch_size=4) for part in parts)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x": DATA["x"].flip(0), "y": DATA["y"].flip(0)}, "train and valid and test data changed"),
        ({"y": 1 - DATA["y"]}, "train and valid and test data changed"),
        ({"x": DATA["x"].double()}, "train and valid and test data changed"),
        ({"x": DATA["x"] + torch.eye(12, 2) * 1e-6}, "data changed"),
        ({}, ""),
    ],
)
def test_a_change_of_data_makes_all_again(tmp_path, change, why):
    def run():
        changes = {"load": partial(load_file, tmp_path / "data.pt"), "build": build}
        return toy.run(tmp_path / "results", runs=[0], changes=changes).reused

    def build(fusion, train):
        return toy.Host(*fusion([2, 2], 2, 2), 2).to(train.dataset.dataset.tensors[0].dtype)

    torch.save(DATA, tmp_path / "data.pt")
    assert run() == []
    torch.save(DATA | change, tmp_path / "data.pt")  # of another time in any case
    told = run()
    assert len(told) == 1
    assert why in told[0] and ("3 runs made again" if why else "3 of 3 runs reused") in told[0]
    assert run()[0].startswith("3 of 3 runs reused")


def test_old_results_are_kept_under_another_name(bench):
    before = read_json(bench.folder / "results" / "runs" / "helped-0.json")
    bench.edit("helpers", "2.0", "3.0")
    bench.run()
    runs = bench.folder / "results" / "runs"
    assert read_json(runs / "helped-0.json.changed") == before
    assert read_json(runs / "helped-0.json") != before
