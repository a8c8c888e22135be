"""One comparison at a time, which ends with its workers, and says in a line why it ended."""

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from joblib.externals.loky.backend.process import LokyProcess
from joblib.externals.loky.process_executor import TerminatedWorkerError

from deq_fusion.training_structures import workers
from deq_fusion.training_structures.comparison import command_line
from deq_fusion.training_structures.comparison.identity.identities import Identities
from deq_fusion.training_structures.comparison.lock import InUse, check_free, locked
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.run_warnings import summary
from deq_fusion.training_structures.comparison.store import run_and_store
from deq_fusion.training_structures.comparison.work import Halted, Work
from deq_fusion.training_structures.files import CannotWrite, read_json, write_json
from unit_tests.fuzz.kills import Victim
from unit_tests.training_structures.comparison import toy

FORKING = """
import os, sys, time
from deq_fusion.training_structures.workers import watched

with watched():
    child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""
PROGRAM = """
import sys, time
from deq_fusion.training_structures.comparison import command_line
from unit_tests.training_structures.comparison import toy

class Slow(toy.Sum):
    def forward(self, features):
        time.sleep(0.02)
        return super().forward(features)

argv = ["--runs", "2", "--epochs", "100", "--output", sys.argv[1]]
command_line({"toy": lambda data_dir: toy.recipe(epochs=100)}, {"slow": Slow}, argv, program="it")
"""


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def is_there(process):
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def until(happens):
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@LINUX
def test_what_a_process_has_forked_ends_with_it():
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert is_there(child)
        parent.kill()
    until(lambda: not is_there(child))


@pytest.mark.slow
@LINUX
def test_the_processes_of_loaders_end_with_a_killed_comparison(tmp_path):
    def parents():
        for process in victim.processes():
            stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
            yield int(stat.rpartition(") ")[2].split()[1])

    victim = Victim(tmp_path)  # its loaders have a process each
    until(lambda: set(victim.workers()) & set(parents()))
    victim.process.kill()
    assert victim.end()[0] == -signal.SIGKILL


@LINUX
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_fork_does_not_keep_the_lock(tmp_path):
    def holds():
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return any(os.path.exists(k) and os.readlink(k).endswith("/.lock") for k in links)

    with locked(tmp_path):
        assert holds()
        child = os.fork()
        if not child:
            os._exit(holds())
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(InUse):
            check_free(tmp_path)
    assert toy.run(tmp_path, runs=[0]).failures == []
    assert (tmp_path / ".lock").exists() and not (tmp_path / ".lock.json").exists()


@pytest.mark.parametrize("owner", [{"process": 2**22 + 1, "host": "HERE"}, {"process": "x"}, None])
def test_stale_words_about_the_owner_do_not_mislead(tmp_path, owner):
    import socket

    with locked(tmp_path):
        if owner is None:
            (tmp_path / ".lock.json").unlink()
        else:
            here = {"host": socket.gethostname()} if "host" in owner else {}
            write_json(tmp_path / ".lock.json", owner | here)
        with pytest.raises(InUse, match="in use by another process: wait"):
            check_free(tmp_path)
    check_free(tmp_path)
    check_free(tmp_path / "not there")


def test_the_second_command_ends_before_it_reads_data(tmp_path, capsys):
    def recipe(data_dir):
        raise AssertionError("data are read")

    with locked(tmp_path), pytest.raises(SystemExit) as ended:
        argv = ["--output", str(tmp_path)]
        command_line({"toy": recipe}, toy.FUSIONS, argv, program="it")
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"in use by process {os.getpid()} on" in said


@pytest.mark.slow
def test_a_second_command_is_refused_and_sigterm_ends_the_first_in_one_line(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        until(lambda: list(tmp_path.glob("runs/*.json")))
        with pytest.raises(InUse, match=rf"in use by process {program.pid} on .*: wait for it"):
            toy.run(tmp_path)
        program.send_signal(signal.SIGTERM)
        said = program.communicate(timeout=60)[1]
    assert program.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "interrupted; the same command goes on" and "Trace" not in said
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith((".tmp", ".lock.json"))]
    check_free(tmp_path)


def test_control_c_has_the_exit_code_that_shells_expect(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, on_terminal():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command goes on\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@LINUX
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_the_processes_that_it_started_end_with_it_whoever_made_them(capsys):
    own = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    lokys = LokyProcess(target=time.sleep, args=(60,))
    with pytest.raises(SystemExit), on_terminal():
        for child in (own, lokys):
            child.start()
        raise KeyboardInterrupt
    assert not is_there(own.pid) and not is_there(lokys.pid)


def test_signals_are_the_business_of_the_main_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(on_terminal()(lambda: 3)()))
    thread.start()
    thread.join()
    assert seen == [3]


@pytest.fixture
def killed(monkeypatch):
    """Lets that many rounds of the work end as loky ends them when a worker is killed."""

    def killed(times):
        all_of_it = Work._all

        def some_of_it(work):
            nonlocal times
            times -= 1
            if times >= 0:
                run_and_store(
                    work.folder,
                    work.methods[times],
                    0,
                    work.demands,
                    identity=work.reuse.known[work.methods[times].name],
                    **ASKED,
                )
                raise TerminatedWorkerError("a worker was killed")
            all_of_it(work)

        monkeypatch.setattr(Work, "_all", some_of_it)

    return killed


KNOWN = {"versions": {}, "given": {}, "files": {}}
ASKED = {"threads": 1, "device": "cpu"}


def test_a_killed_worker_is_replaced_once(tmp_path, killed):
    killed(1)
    with pytest.warns(UserWarning, match="was killed.*; 1 of 6 runs are done") as told:
        found = toy.run(tmp_path / "a")
    assert len(told) == 1 and found.failures == []
    assert toy.scores(found) == toy.scores(toy.run(tmp_path / "undisturbed"))


def test_workers_that_are_killed_again_end_it_with_advice(tmp_path, killed):
    killed(2)
    with (
        pytest.warns(UserWarning, match="a worker process was killed"),
        pytest.raises(Halted, match=r"killed, twice: 2 of 6 runs are done and kept .*fewer jobs"),
    ):
        toy.run(tmp_path)
    assert len(toy.run(tmp_path).results) == 6


def test_what_cannot_be_sent_to_other_processes_is_one_message(tmp_path):
    held = {"lock": threading.Lock()}
    for asked, what in (
        ({"changes": {"search": {"lr": (threading.Lock(),)}}}, "the recipe's search"),
        ({"fusions": {"sum": toy.Sum, "own": partial(toy.Sum, held=held)}}, "the fusion own"),
        ({"analyse": partial(print, held)}, "the analysis"),
    ):
        with (
            mock.patch.object(Identities, "of", return_value=KNOWN),  # which tells no lock either
            pytest.raises(ValueError, match=f"{what} must be sent .* pickle '_thread.lock'"),
        ):
            toy.run(tmp_path, **{"jobs": 2} | asked)
        check_free(tmp_path)


def test_a_full_disk_is_one_message_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    def write(file, sync=os.fsync):
        if list(tmp_path.glob("runs/majority-0.json")):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    argv = ["--runs", "1", "--no-unimodal", "--output", str(tmp_path)]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(os, "fsync", write)
        command_line({"toy": lambda data_dir: toy.recipe()}, {"sum": toy.Sum}, argv, program="it")
    said = str(ended.value.code)
    assert re.fullmatch(
        r"could not write \S+: No space left on device; is the disk full\? free space. 1 of 2 runs "
        r"are done and kept in \S+; the same command goes on",
        said,
    )
    assert "Traceback" not in capsys.readouterr().err
    assert toy.run(tmp_path, {"sum": toy.Sum}, runs=[0]).failures == []


def test_a_report_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "results.md").mkdir()
    argv = ["--runs", "1", "--output", str(tmp_path)]
    recipes = {"toy": lambda data_dir: toy.recipe()}
    with pytest.raises(SystemExit, match=r"could not write .*results.md: Is a directory; see to"):
        command_line(recipes, {"sum": toy.Sum}, argv, program="it")
    assert "Traceback" not in capsys.readouterr().err


class Warning_(UserWarning):
    pass


class Unconverged(toy.Sum):
    def forward(self, features):
        warnings.warn(f"it did not: {time.monotonic()}", Warning_, stacklevel=2)
        return super().forward(features)


def test_a_warning_is_told_once_a_method(tmp_path, capsys):
    fusions = {"sum": Unconverged, "concat": toy.concat}
    argv = ["--runs", "2", "--no-unimodal", "--output", str(tmp_path)]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        recipes = {"toy": lambda data_dir: toy.recipe()}
        found = command_line(recipes, fusions, argv, program="it")
    printed = capsys.readouterr()
    assert "Warning_" not in printed.err
    line = "sum: Warning_ in 2 of 2 runs, first: it did not: "
    texts = [printed.out, *((tmp_path / f"results.{k}").read_text("utf-8") for k in ("md", "html"))]
    assert all(text.count(line) == 1 for text in texts)
    kept = read_json(tmp_path / "runs" / "sum-0.json")["warnings"]
    assert [entry["category"] for entry in kept] == ["Warning_"]
    assert "warnings" not in read_json(tmp_path / "runs" / "concat-0.json")
    assert summary(found.results)[0].startswith(line)


def test_the_share_of_unconverged_solves_comes_with_their_warning():
    entry = {"category": "ConvergenceWarning", "text": "some did not"}
    results = [
        {"method": "deq", "solver_converged": 0.75, "warnings": [entry, {**entry, "text": "b"}]},
        {"method": "deq", "solver_converged": 1.0},
        {"method": "floor", "warnings": [entry]},
    ]
    assert summary(results) == [
        "deq: ConvergenceWarning in 1 of 2 runs, first: some did not; "
        "12 % of its solves in training did not converge",
        "floor: ConvergenceWarning in 1 of 1 runs, first: some did not",
    ]


def test_leftovers_of_killed_runs_are_removed(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    left = [f".results.md.{int(gone.stdout)}.tmp", f"runs/.sum-9.json.{int(gone.stdout)}.tmp"]
    (tmp_path / "runs").mkdir()
    for name in left:
        (tmp_path / name).touch()
    toy.run(tmp_path, runs=[0])
    assert not [name for name in left if (tmp_path / name).exists()]


def test_a_worker_settles_once(monkeypatch):
    watched = []
    monkeypatch.setattr(workers, "_watch", watched.append)
    monkeypatch.setattr(workers, "_watching", set())
    before = signal.getsignal(signal.SIGINT)
    try:
        workers.settle(7)
        workers.settle(7)
        assert watched == [7] and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(CannotWrite, match="could not write .*: it cannot be locked"),
        locked(tmp_path),
    ):
        pass
