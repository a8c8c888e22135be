"""Examines files in children of one warm process, and says of each how that ended.

A child takes a batch of files, under a limit of memory and of processor time for each file. One
that is killed, stopped or stuck is a finding of the file that it was at, and the next child goes
on behind it.
"""

import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

FINE = ("same", "refused", "warned")
FINDINGS = ("raw error", "misread", "silent non-finite", "crash", "hang", "memory")
VERDICTS = FINE + FINDINGS


@dataclass(frozen=True)
class Verdict:
    """How reading a file ended.

    Attributes:
        index: number of the file.
        kind: one of `VERDICTS`.
        mutation: what was done to the file.
        detail: the error's text, or what was read wrong, with the traceback if there is one.
    """

    index: int
    kind: str
    mutation: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Limits:
    """The limits of reading one tiny file.

    Attributes:
        seconds: of processor time.
        waiting: seconds until a child that does not even work is stuck.
        memory: bytes of address space, beyond those of the warm process.
        resident: bytes of memory that a child may take.
    """

    seconds: float = 5.0
    waiting: float = 10.0
    memory: int = 1 << 30
    resident: int = 256 << 20


LIMITS = Limits()
Examine = Callable[[int], Verdict]
"""Reads file number index, in a process that may come to harm."""


def examine_all(
    examine: Examine, indices: Sequence[int], *, batch: int = 100, limits: Limits = LIMITS
) -> Iterator[Verdict]:
    """Yields a verdict for every index, whatever happens to the processes that find it."""
    left = list(indices)
    while left:
        child, done = _Child(examine, left[:batch], limits), 0
        for verdict in child.verdicts():
            yield verdict
            done += 1
        ending = child.ending()
        if ending is not None and done < len(child.indices):
            yield Verdict(left[done], ending[0], detail=ending[1])
            done += 1
        left = left[done:]


class _Child:
    """A fork of this process that examines a batch, and tells of each through a pipe."""

    def __init__(self, examine: Examine, indices: Sequence[int], limits: Limits) -> None:
        self.indices, self.limits, self.stuck = indices, limits, False
        self.pipe, send = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            _work(examine, indices, limits, send)
        os.close(send)

    def verdicts(self) -> Iterator[Verdict]:
        """Yields what comes until the child ends, or is ended because nothing comes."""
        rest = b""
        while True:
            if not select.select([self.pipe], [], [], self.limits.waiting)[0]:
                self.stuck = True
                os.kill(self.process, signal.SIGKILL)
                return
            if not (read := os.read(self.pipe, 1 << 16)):
                return
            *lines, rest = (rest + read).split(b"\n")
            yield from (Verdict(**json.loads(line)) for line in lines)

    def ending(self) -> tuple[str, str] | None:
        """Waits for the end; returns what finding it is, None if the child ended by itself."""
        os.close(self.pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        if self.stuck:
            return "hang", f"it waited for more than {self.limits.waiting} s"
        if code == 0:
            return None
        if code == -signal.SIGPROF:
            return "hang", f"it took more than {self.limits.seconds} s of processor time"
        if code == -signal.SIGKILL:
            return "memory", "the system ended it"
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return "crash", f"it ended by {name}"


def _work(examine: Examine, indices: Sequence[int], limits: Limits, send: int) -> None:
    """The child's whole life; never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C libraries say there
        _limit_memory(limits.memory)
        before = _peak()
        for index in indices:
            signal.setitimer(signal.ITIMER_PROF, limits.seconds)  # its signal ends the process
            try:
                verdict = examine(index)
            except MemoryError:
                verdict = Verdict(index, "memory", detail=traceback.format_exc())
            except BaseException:
                verdict = Verdict(index, "crash", detail="harness: " + traceback.format_exc())
            signal.setitimer(signal.ITIMER_PROF, 0)
            if (grown := _peak() - before) > limits.resident:
                detail = f"it took {grown >> 20} MB; {verdict.kind}: {verdict.detail}"
                verdict = Verdict(index, "memory", verdict.mutation, detail)
            os.write(send, json.dumps(asdict(verdict)).encode() + b"\n")
            if verdict.kind == "memory":  # the peak would hide what later files take
                break
        code = 0
    finally:
        os._exit(code)


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _limit_memory(more: int) -> None:
    """Bounds the address space, where the system tells how much of it is taken."""
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, taken + more))
