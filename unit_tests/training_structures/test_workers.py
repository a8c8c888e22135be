"""Processes that work for another end with it, even if it was killed as they began."""

import os
import subprocess
import sys
import time

import pytest

from deq_fusion.training_structures import workers

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def test_a_fork_whose_parent_was_gone_before_it_could_look_ends(monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(workers, "_watching", {gone.pid})
    child = os.fork()
    if not child:
        workers._forking = gone.pid  # as a fork of that process finds it
        workers._after_fork()
        time.sleep(20)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_forks_of_processes_that_do_not_watch_are_left_alone():
    child = os.fork()
    if not child:
        time.sleep(3 * workers.WATCH)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
