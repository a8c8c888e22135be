"""Failures and interruptions: nothing finished is lost, and what follows is as if undisturbed."""

import re
import signal
import subprocess
import sys
from functools import partial

import pytest

from deq_fusion.training_structures.comparison import single_run
from unit_tests.training_structures.comparison import toy

STEPS = toy.EPOCHS * toy.BATCHES  # forwards of a training
SCRIPT = """
import os, signal, sys
from deq_fusion.training_structures.comparison import single_run
from unit_tests.training_structures.comparison import toy
from unit_tests.training_structures.comparison.test_interruption import Stepping

single_run.CHECKPOINT_SECONDS = 0.0
Stepping.last = int(sys.argv[2])
Stepping.error = lambda: os.kill(os.getpid(), signal.SIGKILL)
toy.run(sys.argv[1], {"sum": Stepping, "concat": toy.concat})
"""


@pytest.fixture(autouse=True)
def checkpoint_every_epoch(monkeypatch):
    monkeypatch.setattr(single_run, "CHECKPOINT_SECONDS", 0.0)


class Stepping(toy.Sum):
    """Counts the steps of all trainings, and raises in one of them."""

    steps, last, error = 0, None, KeyboardInterrupt

    def forward(self, features):
        Stepping.steps += self.training
        if Stepping.steps == self.last:
            raise Stepping.error()
        return super().forward(features)


@pytest.fixture
def stepping(monkeypatch):
    def begin(last=None, error=KeyboardInterrupt):
        for name, value in {"steps": 0, "last": last, "error": error}.items():
            monkeypatch.setattr(Stepping, name, value)
        return {"sum": Stepping, "concat": toy.concat}

    return begin


@pytest.mark.parametrize(("last", "trials"), [(1, 1), (STEPS, 2), (STEPS + toy.BATCHES + 1, 1)])
def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path, stepping, last, trials):
    undisturbed = toy.scores(toy.run(tmp_path / "a", stepping(), trials=trials))
    everything = Stepping.steps
    with pytest.raises(KeyboardInterrupt):
        toy.run(tmp_path / "b", stepping(last), trials=trials)
    resumed = toy.scores(toy.run(tmp_path / "b", stepping(), trials=trials))
    assert resumed == undisturbed
    done = (last - 1) // toy.BATCHES * toy.BATCHES  # whole epochs were kept
    assert Stepping.steps == everything - done
    assert not [path for path in (tmp_path / "b" / "runs").iterdir() if path.suffix != ".json"]


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on_where_it_was(tmp_path, stepping):
    last = STEPS + toy.BATCHES + 1  # in the second epoch of the second run
    killed = [sys.executable, "-c", SCRIPT, str(tmp_path / "b"), str(last)]
    assert subprocess.run(killed, timeout=100).returncode == -signal.SIGKILL
    kept = {path.name for path in (tmp_path / "b" / "runs").iterdir()}
    assert {"majority-0.json", "sum-0.json", "concat-0.json"} <= kept
    assert [name for name in kept if re.fullmatch(r"sum-1\.\w+\.ckpt", name)]
    assert "sum-1.json" not in kept
    resumed = toy.run(tmp_path / "b", stepping())
    assert Stepping.steps == STEPS - toy.BATCHES
    assert toy.scores(resumed) == toy.scores(toy.run(tmp_path / "a"))


def test_what_other_options_left_half_done_is_not_gone_on_with(tmp_path, stepping):
    undisturbed = toy.scores(toy.run(tmp_path / "a", stepping()))
    with pytest.raises(KeyboardInterrupt):
        other = {"fusion_options": {"sum": {"fail": False}}}
        toy.run(tmp_path / "b", stepping(STEPS), changes=other)
    assert toy.scores(toy.run(tmp_path / "b", stepping())) == undisturbed


def test_a_finished_run_leaves_the_checkpoints_of_others_alone(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    names = ["sum-10.ckpt", "sum-10+1.ckpt", "sum-1-2.ckpt", "summary-1.ckpt", "concat-1.ckpt"]
    for name in names:
        (folder / name).touch()
    found = toy.run(tmp_path, {"sum": toy.Sum}, runs=[1], trials=3)
    assert found.failures == []
    assert {path.name for path in folder.glob("*.ckpt")} == set(names)


def test_a_failed_run_is_told_while_the_others_go_on(tmp_path, stepping):
    fusions = stepping(last=STEPS + 1, error=partial(RuntimeError, "out of luck"))
    found = toy.run(tmp_path, fusions)
    failure = found.failures[0]
    assert (failure["method"], failure["run"]) == ("sum", 1) and len(found.failures) == 1
    assert "Traceback" in failure["error"] and "RuntimeError: out of luck" in failure["error"]
    written = tmp_path / "runs" / "sum-1.error.txt"
    assert written.read_text(encoding="utf-8") == failure["error"]
    assert [(r["method"], r["run"]) for r in found.results] == [
        ("majority", 0),
        ("majority", 1),
        ("sum", 0),
        ("concat", 0),
        ("concat", 1),
    ]
    again = toy.run(tmp_path, stepping())
    assert Stepping.steps == STEPS  # of the one that had failed
    assert again.failures == [] and not written.exists()
    assert toy.scores(again) == toy.scores(toy.run(tmp_path / "undisturbed"))


def test_a_floor_may_fail_as_well(tmp_path):
    def broken(known, scored):
        raise ArithmeticError("no floor")

    found = toy.run(tmp_path, runs=[0], changes={"floors": {"broken": broken}})
    assert [failure["method"] for failure in found.failures] == ["broken"]
    assert [result["method"] for result in found.results] == ["sum", "concat"]
