"""What cannot be done is explained in one sentence, before any work, and with the choices."""

import re
import sys

import pytest

from deq_fusion.training_structures.comparison import command_line
from unit_tests.training_structures.comparison import toy

RECIPES = {"toy": lambda data_dir: toy.recipe()}


@pytest.fixture
def error(tmp_path, capsys):
    """Returns the message that arguments end with."""

    def error(text, recipes=RECIPES, folder="results", fusions=toy.FUSIONS):
        argv = [*text.split(), "--output", str(tmp_path / folder)]
        with pytest.raises(SystemExit) as ended:
            command_line(recipes, fusions, argv, program="compare")
        assert ended.value.code == 2
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        return printed.splitlines()[-1]

    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--fusions sum,sums",
            r"--fusions: unknown \['sums'\]; did you mean sum\? or choose from sum",
        ),
        ("--dataset none", "--dataset: unknown 'none'; choose from toy, or name my_module:recipe"),
        ("--metric f1", "unknown metric 'f1'; choose from accuracy, certainty"),
        (
            "--baseline all",
            "unknown baseline 'all'; choose from majority, only a, only b, sum, concat",
        ),
        ("--baseline concat --fusions sum", "unknown baseline 'concat'; choose from .*sum"),
        ("--modalities a,c", r"modalities must be different names out of \['a', 'b'\], got"),
        ("--modalities a,a", r"modalities must be different names .*got \['a', 'a'\]"),
        ("--runs 0", "--runs: must be an integer of at least 1, got 0"),
        ("--runs two", "--runs: must be an integer of at least 1, got two"),
        ("--epochs 0", "--epochs: must be an integer of at least 1, got 0"),
        ("--jobs 0", "--jobs: must be an integer of at least 1"),
        ("--threads 0", "--threads: must be an integer of at least 1"),
        ("--search 0", "--search: must be an integer of at least 1"),
        ("--search 9", "9 trials need 8 settings besides .* to choose from"),
        ("--first-run -1", "--first-run: must be an integer of at least 0, got -1"),
        ("--first-run one", "--first-run: must be an integer of at least 0, got one"),
        ("--seeds 1,²", "--seeds: must be different integers as 0,1,2, got 1,²"),
        ("--seeds 1,1", "--seeds: must be different integers as 0,1,2, got 1,1"),
        ("--seeds 1,x", "--seeds: must be different integers as 0,1,2, got 1,x"),
        ("--seeds 1,01", r"runs must be different numbers, at least one, got \[1, 1\]"),
        ("--part train", "--part: invalid choice: 'train'"),
        ("--option sum=3", "--option: must be FUSION.NAME=VALUE, got 'sum=3'"),
        ("--option sum.a.=3", "--option: must be FUSION.NAME=VALUE, got 'sum.a.=3'"),
        ("--option sum.a.b=1", r"sum cannot be built with \{'a.b': 1\}: .*a.b"),
        ("--option film.a=3", r"--option film.a must be of a fusion in \['sum', 'concat'\]"),
        ("--option sum.fial=1", r"sum cannot be built with \{'fial': 1\}: .*fial"),
        ("--device nonsense", "device must be one that torch has here, .* got .nonsense"),
        ("--own-fusion Mine", "--own-fusion: must be module:name, got 'Mine'"),
        ("--own-fusion not_there:Mine", "cannot import not_there .ModuleNotFoundError.*PYTHONPATH"),
        ("--own-fusion json:Mine", "json must have a class or function Mine; it has .*'loads'"),
        ("--dataset not_there:recipe", "cannot import not_there .ModuleNotFoundError"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_arguments_that_make_no_sense(error, tmp_path, arguments, message):
    assert re.search(message, error(arguments))
    assert not (tmp_path / "results").exists()


def test_a_users_module_that_breaks(error, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_fusion.py").write_text("1 / 0", encoding="utf-8")
    said = error("--own-fusion broken_fusion:Mine")
    assert "cannot import broken_fusion (ZeroDivisionError: division by zero)" in said


def test_a_name_that_is_taken(error, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "taken_fusion.py").write_text("def sum(dims, dim): ...\ndef mine(): ...")
    assert "a name of its own, ['sum'] is there already" in error("--own-fusion taken_fusion:sum")
    twice = "--own-fusion taken_fusion:mine --own-fusion taken_fusion:mine"
    assert "a name of its own, ['mine'] is there already" in error(twice)
    sys.modules.pop("taken_fusion", None)


def test_a_folder_of_another_comparison(error, tmp_path):
    toy.run(tmp_path / "results", runs=[0])
    said = error("--runs 1 --epochs 5")
    assert re.search("epochs was 3 and is 5; choose another output folder", said)


def test_a_folder_that_cannot_be_written(error, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    said = error("--runs 1", folder="file/results")
    assert re.search("cannot write to .*file/results .*; choose another folder", said)


def test_a_dataset_that_no_fusion_takes(error):
    class Three(toy.Sum):
        modalities = (3, 3)

    bare = {"toy": lambda data_dir: toy.recipe(floors={})}
    said = error("--no-unimodal", bare, fusions={"three": Three})
    assert "no fusion takes this dataset: three takes 3 modalities, and there are 2" in said


def test_data_that_is_not_there(error):
    def recipe(data_dir):
        raise FileNotFoundError("there is no such folder; name it with --data-dir")

    assert "name it with --data-dir" in error("--runs 1", {"toy": recipe})


def test_a_recipe_of_the_old_form_is_shown_the_new_one(error, tmp_path, monkeypatch):
    (tmp_path / "old_dataset.py").write_text("def mine(args):\n    return args.data_dir\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = error("--dataset old_dataset:mine")
    assert "must be a function recipe(data_dir=None, *, official=False, **settings)" in said
    assert "got mine(args): the folder and the split are its parameters" in said


def test_what_a_recipe_refuses_is_one_line(error):
    def recipe(data_dir, *, official=False):
        raise ValueError("data_dir must name a folder")

    assert error("--official", {"toy": recipe}) == "compare: error: data_dir must name a folder"


def test_a_cluster_that_does_not_answer(error, monkeypatch):
    dask = pytest.importorskip("dask.distributed")

    def refuse(address, timeout):
        raise OSError("timed out")

    monkeypatch.setattr(dask, "Client", refuse)
    said = error("--cluster tcp://nowhere:1")
    assert "no dask scheduler answers at tcp://nowhere:1 (timed out)" in said
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    assert "--cluster needs dask: pip install distributed" in error("--cluster tcp://nowhere:1")


def test_torchrun_is_refused(error, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert re.search("must be one process, .* --jobs, got 2 of torchrun", error(""))


FUSIONS_OF_A_USER = """
from torch import nn

class Narrow(nn.Module):
    def __init__(self, input_dims, dim):
        super().__init__()

    def forward(self, features):
        return features[0][:, :1]

class Listed(Narrow):
    def forward(self, features):
        return features

class Broken(Narrow):
    def forward(self, features):
        return features[0] @ features[1]

class Alone(nn.Module):
    def __init__(self, dims):
        super().__init__()

def nothing(input_dims, dim):
    return None
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Narrow", r"Narrow cannot fuse a batch: Narrow must return .batch, 3., .* \(20, 1\)"),
        ("Listed", "Listed cannot fuse a batch: Listed must return .batch, 3., .* returned list"),
        ("Broken", "Broken cannot fuse a batch: RuntimeError: mat1.* .fusions_of_a_user.py, line"),
        ("Alone", "Alone cannot be built with .input_dims, dim.: .*takes 2 positional arguments"),
        ("nothing", "nothing cannot be built with .input_dims, dim.: a fusion must be an nn.Modul"),
    ],
)
def test_a_fusion_of_ones_own_is_tried_before_the_runs(error, tmp_path, monkeypatch, name, message):
    (tmp_path / "fusions_of_a_user.py").write_text(FUSIONS_OF_A_USER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fusions_of_a_user", raising=False)
    assert re.search(message, error(f"--own-fusion fusions_of_a_user:{name}"))
    assert not (tmp_path / "results").exists()
