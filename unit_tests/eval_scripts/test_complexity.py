"""Training and testing run once, and three and two lines are printed."""

import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from deq_fusion.eval_scripts import complexity
from deq_fusion.private_test_scripts import all_in_one
from deq_fusion.training_structures.multibench import print_complexity

MODULES = [nn.Linear(3, 4), nn.Linear(4, 2, bias=False).requires_grad_(False)]
COUNT = 3 * 4 + 4 + 4 * 2


def lines(text):
    return dict(line.split(": ") for line in text.splitlines())


def test_training_runs_once_and_is_measured(capsys):
    calls = []
    complexity.all_in_one_train(lambda: calls.append(time.sleep(0.05)), MODULES)
    printed = lines(capsys.readouterr().out)
    assert len(calls) == 1
    assert list(printed) == ["Training Time", "Training Peak Mem", "Training Params"]
    assert 0.05 <= float(printed["Training Time"]) < 5
    assert int(printed["Training Params"]) == COUNT


@pytest.mark.parametrize("system, unit", [("linux", 2**10), ("darwin", 1)])  # KiB and bytes
def test_the_peak_is_in_mebibytes(system, unit, monkeypatch, capsys):
    usage = SimpleNamespace(ru_maxrss=300 * 2**20 // unit)
    stub = SimpleNamespace(RUSAGE_SELF=0, getrusage={0: usage}.__getitem__)
    monkeypatch.setitem(sys.modules, "resource", stub)
    monkeypatch.setattr(sys, "platform", system)
    complexity.all_in_one_train(lambda: None, [])
    assert float(lines(capsys.readouterr().out)["Training Peak Mem"]) == 300


def test_without_a_measure_of_memory_its_line_stays(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resource", None)
    complexity.all_in_one_train(lambda: None, [])
    assert lines(capsys.readouterr().out)["Training Peak Mem"] == "nan"


def test_testing_runs_once_and_is_measured(capsys):
    calls = []
    complexity.all_in_one_test(lambda: calls.append(time.sleep(0.05)), MODULES)
    printed = lines(capsys.readouterr().out)
    assert len(calls) == 1
    assert list(printed) == ["Inference Time", "Inference Params"]
    assert 0.05 <= float(printed["Inference Time"]) < 5
    assert int(printed["Inference Params"]) == COUNT


def test_an_error_in_training_reaches_the_caller(capsys):
    with pytest.raises(ZeroDivisionError):
        complexity.all_in_one_train(lambda: 1 / 0, MODULES)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("what", ["Training", "Inference"])
def test_train_and_test_print_of_themselves_what_these_do(what, capsys):
    wrap = {"Training": complexity.all_in_one_train, "Inference": complexity.all_in_one_test}[what]
    wrap(lambda: None, MODULES)
    ours = lines(capsys.readouterr().out)
    print_complexity(what, time.time(), nn.ModuleList(MODULES))
    theirs = lines(capsys.readouterr().out)
    assert list(ours) == list(theirs)
    assert ours[f"{what} Params"] == theirs[f"{what} Params"]
    if what == "Training":
        peaks = [float(printed["Training Peak Mem"]) for printed in (ours, theirs)]
        assert peaks[0] == pytest.approx(peaks[1], rel=0.01)


def test_the_second_name_has_the_same_functions():
    text = Path(all_in_one.__file__).read_text(encoding="utf-8")
    names = re.findall(r"^(\w+) = _complexity\.", text, flags=re.M)
    assert sorted(names) == ["all_in_one_test", "all_in_one_train", "getallparams"]
    for name in names:
        assert getattr(all_in_one, name) is getattr(complexity, name)
