"""Processes that work for another: they end with it, however it ends.

A worker imports this first; so nothing here, and nothing above it, may import what takes long.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WATCH = 0.2  # seconds between two looks at whether the parent is still there
_watching: set[int] = set()  # this process and those it comes from, if its forks are to watch it
_forking = 0  # the process that forked last, which a fork finds as it was


@contextmanager
def watched() -> Iterator[None]:
    """Lets processes that are forked meanwhile, such as a DataLoader's, end with this one."""
    _watching.add(os.getpid())
    try:
        yield
    finally:
        _watching.discard(os.getpid())


def settle(main: int) -> None:
    """Makes a process that was started to work for `main` end with it, and what it forks, too.

    Ctrl-C, which reaches all processes of a terminal, is left to `main`. In `main` itself, and
    the second time, nothing happens.
    """
    if os.getpid() in _watching:
        return
    _watching.add(os.getpid())
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _watch(main)
    from tqdm import tqdm  # only now: this process is watched from its first moments on

    tqdm.set_lock(threading.RLock())  # not one of the system's, which would outlive a kill


def start_plainly() -> None:
    """Lets this process start others as Python does by itself, such as a DataLoader's.

    In one of loky's, which is joblib's, the default would be a way that starts none but loky's.
    """
    if (multiprocessing.get_start_method(allow_none=True) or "").startswith("loky"):
        multiprocessing.set_start_method(None, force=True)


def _watch(parent: int) -> None:
    """Ends this process soon after its parent.

    By a thread and not by Linux's PR_SET_PDEATHSIG, which follows the thread that started the
    process, and that may end before its process does.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)  # nobody waits for what this process could still say

    if os.name != "nt":  # there a process keeps the number of a parent that is no more
        threading.Thread(target=look, name="parent watch", daemon=True).start()


def _before_fork() -> None:
    global _forking
    _forking = os.getpid()


def _after_fork() -> None:
    # not by its parent's number now: a parent that was killed meanwhile has been replaced
    if _forking in _watching:
        _watching.add(os.getpid())
        _watch(_forking)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def end_children() -> None:
    """Kills the processes that this one has started and that are still there."""
    number = getattr(signal, "SIGKILL", signal.SIGTERM)  # which Windows has not
    for child in multiprocessing.active_children():
        with suppress(OSError):  # it has just ended
            os.kill(child.pid, number)  # loky's have no method of their own for it
    for child in multiprocessing.active_children():
        child.join(1)
