"""The command `deq-fusion` hands each of its parts the arguments that follow the part's name."""

import sys

import numpy as np
import pytest

from deq_fusion import __version__
from deq_fusion.command import PARTS, PREPARED, main
from deq_fusion.own_data import own_data
from deq_fusion.training import DEFAULTS, SETTINGS

WORDS = np.array(["ill", "well"])[np.arange(40) % 2]
NUMBERS = np.random.default_rng(0).normal(size=40)


@pytest.mark.parametrize("part", [*PARTS, *(f"prepare {name}" for name in PREPARED)])
def test_every_part_is_there_and_tells_how_it_is_called(part, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*part.split(), "--help"])
    assert "usage: deq-fusion" in capsys.readouterr().out


def test_the_help_of_compare_tells_of_benchmarks_own_data_and_settings(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--dataset", "brca", "--help"])
    said = capsys.readouterr().out
    assert "--table NAME=FILE" in said and "--data-dir DIR" in said
    known = ", ".join(f"{name}={getattr(DEFAULTS, name):g}" for name in SETTINGS)
    assert f"of these --set takes {known}" in said
    assert "brca:" in said and "sizes=ours: how large the host is" in said


def test_what_it_does_not_know_is_an_error_that_lists_what_it_does(capsys):
    for argv, known in ((["trian"], "compare"), (["prepare", "mnist"], "imdb"), ([], "PART")):
        with pytest.raises(SystemExit, match="2"):
            main(argv)
        assert known in capsys.readouterr().err


def test_its_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"deq-fusion {__version__}\n"


def test_a_fusion_of_the_current_folder_is_found(tmp_path, monkeypatch, capsys):
    code = "from deq_fusion.fusions.weighted_sum import Sum\n\nclass Mine(Sum):\n    pass\n"
    (tmp_path / "fusion_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    asked = "--dataset digits --modalities TL --own-fusion fusion_of_mine:Mine --runs 1"
    with pytest.raises(SystemExit, match="2"):
        main(["compare", *asked.split()])
    assert "modalities must be different names" in capsys.readouterr().err  # so it was imported


def test_the_list_has_the_floors_of_tables_of_ones_own(capsys):
    main(["list"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "tables of your own" in line]
    recipes = [own_data({"a": np.eye(40)[:, :3]}, y).recipe for y in (WORDS, NUMBERS)]
    floors = {name for recipe in recipes for name in recipe.floors}
    assert {line.split("|")[1].strip() for line in lines} == floors
