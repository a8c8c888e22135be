"""One comparison at a time in a folder of results: a lock that ends with its process."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import CannotWrite, Damaged, is_alive, read_json, shown, write_json

LOCK, OWNER = ".lock", ".lock.json"


class InUse(ValueError):
    """Another process is at work in a folder of results."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a folder that is there to this process and the workers it starts.

    The lock is the system's and lies on `.lock` in the folder: it is gone with its process,
    however that ends, and no process that this one forks keeps it. `.lock.json` beside it names
    the process; it is for the message alone.

    Raises:
        InUse: at once, if another process has it.
        CannotWrite: if nothing can be written there.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InUse(
            f"{folder} is in use by {_owner(folder)}: wait for it, stop it, or choose another "
            "output folder"
        ) from error
    except OSError as error:
        text = f"it cannot be locked ({error.strerror})"
        raise CannotWrite(error.errno, text, str(folder)) from error
    try:
        write_json(folder / OWNER, {"process": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def check_free(folder: Path) -> None:
    """Raises InUse if another process has the lock of a folder, which need not be there."""
    if (folder / LOCK).exists():
        with locked(folder):
            pass


def _owner(folder: Path) -> str:
    """Returns who has the lock; a process that is no more is not named, for it has nothing."""
    try:
        found = read_json(folder / OWNER)
        process, host = int(found["process"]), str(found["host"])
    except (OSError, Damaged, KeyError, TypeError, ValueError):
        return "another process"
    if host == socket.gethostname() and not is_alive(process):
        return "another process"
    return f"process {process} on {shown(host)}"
