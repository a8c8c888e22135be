"""A program on a terminal: it ends and warns in single lines, without tracebacks."""

import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ...files import CannotWrite
from ...workers import end_children
from ..report.text import printable
from ..work import Halted


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextmanager
def on_terminal() -> Iterator[None]:
    """Lets a program that goes on when its command is given again end and warn in a line each.

    SIGTERM ends it as Ctrl-C does, the processes that it started as well, with exit code 143 or
    130; what cannot be written, or a comparison that cannot go on, with 1. Warnings come without
    the place in our code that they come from. May be nested, and decorate a function.

    Raises:
        SystemExit: in place of KeyboardInterrupt, CannotWrite and Halted.
    """
    with warnings.catch_warnings(), _terminable() as ending:
        warnings.showwarning = _show
        try:
            yield
        except KeyboardInterrupt as error:
            ending.set()
            end_children()
            print("\ninterrupted; the same command goes on", file=sys.stderr, flush=True)
            number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
            raise SystemExit(128 + number) from None
        except (CannotWrite, Halted) as error:
            raise SystemExit(printable(str(error))) from None


@contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Makes SIGTERM an exception, as SIGINT is, in the thread that signals come to; neither is
    one once the event is set, for it ends already."""
    ending = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return

    def stop(number: int, frame: object) -> None:
        if not ending.is_set():
            raise Terminated

    def interrupt(number: int, frame: object) -> None:
        if not ending.is_set():
            raise KeyboardInterrupt

    ours = {signal.SIGTERM: stop}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        ours[signal.SIGINT] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(message: Any, category: type, *_: Any) -> None:
    # not through a bar that may be there
    tqdm.write(f"{category.__name__}: {printable(str(message))}", file=sys.stderr)
