"""What is told while a comparison is at work: a bar on a terminal, else a line a minute."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

from deq_fusion.training_structures.comparison.methods import gather
from deq_fusion.training_structures.comparison.report import progress
from deq_fusion.training_structures.comparison.report.progress import Progress
from deq_fusion.training_structures.comparison.work import Work
from unit_tests.training_structures.comparison import toy

PROGRAM = """
import sys, time
from deq_fusion.training_structures.comparison import command_line
from unit_tests.training_structures.comparison import toy

class Slow(toy.Sum):
    def forward(self, features):
        time.sleep(float(sys.argv[2]))
        return super().forward(features)

sys.modules["matplotlib.figure"] = None  # no pictures: they take their time
argv = ["--runs", "2", "--output", sys.argv[1]]
recipes = {"toy": lambda data_dir: toy.recipe()}
command_line(recipes, {"slow": Slow, "concat": toy.concat}, argv, program="it")
"""
SCORES = toy.recipe().scores


def result(method, run, accuracy=0.5):
    return {"method": method, "run": run, "scores": {"accuracy": accuracy}, "seconds": 2.0}


def test_elsewhere_a_line_says_how_far_it_is_and_what_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    done = {(method, run): None for method in ("floor", "deq", "mult") for run in range(3)}
    with Progress("toy", done, SCORES) as told:
        now[0] = 60.0
        assert told.line() == "toy: 0 of 9 runs after 1 min"
        for method, run, seconds in (("floor", 0, 0.5), ("deq", 0, 49.5), ("deq", 1, 70.0)):
            epochs = {} if method == "floor" else {"epochs": 3}
            done[method, run] = result(method, run) | {"seconds": seconds} | epochs
            told.tell(done[method, run])
        now[0] = 240.0  # of which 120 s went into training: half the time
        # left: 2 floors of 0.5 s, and 4 runs of deq and mult, 59.75 s as deq's, twice as long
        said = "toy: 3 of 9 runs after 4 min, about 8 min left; last deq, run 1: accuracy 50.0 %"
        assert told.line() == said
        done["mult", 0] = result("mult", 0) | {"seconds": 600.0, "epochs": 3}
        now[0] = 1440.0  # 720 s of training
        minutes = 2 * (2 * 0.5 + 59.75 + 2 * 600.0) / 60
        assert told.line().startswith(f"toy: 4 of 9 runs after 24 min, about {minutes:.0f} min")
    assert capsys.readouterr().err == ""  # it took less than a minute


def test_a_run_that_takes_long_does_not_silence_it(monkeypatch, capsys):
    monkeypatch.setattr(progress, "MINUTE", 0.01)
    with Progress("toy", {("deq", 0): None}, SCORES):
        time.sleep(0.2)  # nothing ends meanwhile
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and lines[0].startswith("toy: 0 of 1 runs after ")
    threads = [thread.name for thread in threading.enumerate()]
    assert not any("_tell_time" in name for name in threads)


def test_nothing_is_told_if_it_is_not_to_be(monkeypatch, capsys):
    monkeypatch.setattr(progress, "MINUTE", 0.0)
    done = {("deq", 0): None}
    with Progress("toy", done, SCORES, shown=False) as told:
        told.tell(result("deq", 0))
    assert capsys.readouterr().err == ""


def test_a_failed_run_is_told_as_such():
    failed = {"method": "deq\x1b[0m", "run": 0, "error": "a traceback"}
    done = {("deq\x1b[0m", 0): None}
    with Progress("toy", done, SCORES) as told:
        done["deq\x1b[0m", 0] = failed
        told.tell(failed)
        assert told.line().endswith("deq\\x1b[0m, run 0: failed")


def test_lines_fill_in_above_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = {(method, run): None for method in ("deq", "concat", "film") for run in range(2)}
    with Progress("toy", done, SCORES) as told:
        for method, run in done:
            failed = {"method": method, "run": run, "error": "a traceback"}
            made = failed if method == "film" else result(method, run, 0.5 + run / 10)
            done[method, run] = made
            told.tell(made)
    lines = [line.rpartition("\r")[2].split() for line in capsys.readouterr().err.split("\n")]
    assert [line for line in lines if line][:4] == [
        ["method", "accuracy", "%", "seconds"],
        ["deq", "55.0", "±", "7.1", "2.0"],
        ["concat", "55.0", "±", "7.1", "2.0"],
        ["film", "all", "runs", "failed"],
    ]


def on_a_terminal(folder, columns, seconds="0", interrupt=None):
    """Returns what a program writes on a terminal of that width, and its exit code."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-c", PROGRAM, str(folder), seconds]
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    environment |= {"OMP_NUM_THREADS": "1", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment) as program:
        os.close(its)
        said = b""
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # it has ended
                break
            if interrupt is not None and interrupt in said:
                program.send_signal(signal.SIGINT)
                interrupt = None
    os.close(ours)
    return said.decode(), program.returncode


@pytest.mark.slow
def test_a_terminal_has_a_bar_lines_that_fill_in_and_a_table_that_fits(tmp_path):
    said, code = on_a_terminal(tmp_path, 80)
    assert code == 0
    assert "10/10 runs |" in said or "9/10 runs |" in said
    lines = [line.rpartition("\r")[2] for line in said.replace("\r\n", "\n").split("\n")]
    assert all(len(line) <= 80 for line in lines if "results.html" not in line and "/" not in line)
    head = next(line for line in lines if line.startswith("method"))
    assert head.split() == ["method", "accuracy", "%", "seconds"]
    filled = [line[:8].strip() for line in lines[lines.index(head) + 1 :][:5]]
    assert filled[0] == "majority" and set(filled[1:3]) == {"only a", "only b"}
    assert set(filled[3:]) == {"slow", "concat"}
    tables = [line for line in lines if line.startswith("concat ")]
    assert len(tables) == 2  # filled in, and the table at the end
    again, code = on_a_terminal(tmp_path, 200)
    assert code == 0 and "10 of 10 runs reused" in again and "runs |" not in again


@pytest.mark.slow
def test_control_c_on_a_terminal_is_one_line(tmp_path):
    said, code = on_a_terminal(tmp_path, 80, "0.05", interrupt=b"majority  ")
    assert code == 130 and "Traceback" not in said
    assert said.replace("\r\n", "\n").endswith("\ninterrupted; the same command goes on\n")
    said, code = on_a_terminal(tmp_path, 80)
    assert code == 0 and "runs reused" in said


def test_what_takes_least_comes_first_and_then_what_took_longest():
    methods, _ = gather(toy.recipe(), {"quick": toy.Sum, "slow": toy.Sum}, unimodal=True)
    work = Work("toy", None, methods, range(2), {}, None, 1, 1, "cpu", False, None, SCORES)
    todo = [(method, run) for run in range(2) for method in methods]
    order = []
    for method, run in work._in_order(todo):
        order.append((method.name, run))
        took = {"seconds": 9.0 if method.name == "slow" else 1.0}
        work.done[method.name, run] = {"method": method.name, "run": run} | took
    assert order[:2] == [("majority", 0), ("majority", 1)]
    assert {method for method, _ in order[2:6]} == {"only a", "only b"}
    assert order[6:] == [("quick", 0), ("slow", 0), ("slow", 1), ("quick", 1)]
