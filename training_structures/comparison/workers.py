"""Processes that work for a comparison: they end with it, however it ends."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

WATCH = 0.2  # seconds between two looks at whether the parent is still there
_watching: set[int] = set()  # this process and those it comes from, if its forks are to watch it


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


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


def _after_fork() -> None:
    if os.getppid() in _watching:
        _watching.add(os.getpid())
        _watch(os.getppid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _end_children() -> None:
    """Kills the processes that this one has started and that are still there."""
    for child in multiprocessing.active_children():
        child.kill()
    for child in multiprocessing.active_children():
        child.join(1)


@contextmanager
def stoppable() -> Iterator[None]:
    """Ends the program by SIGTERM as by Ctrl-C: workers ended, one line, and exit code 143 or 130.

    Raises:
        SystemExit: in place of KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already
        _end_children()
        print("\nstopped; the same command goes on", file=sys.stderr, flush=True)
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        raise SystemExit(128 + number) from None
    finally:
        signal.signal(signal.SIGTERM, before)
