"""Random fusions of random features: each is refused clearly, or computes what is right.

    python -m unit_tests.fuzz.fusions 5000 [FIRST]        prints a table; exits with 1 on a fault

A draw is a number: the same fusion, features and cotangent on every machine. What may come of it:

    refused     an error raised by our own code
    agrees      finite, and within the tolerance of a second computation
    finite      finite, output and gradients; there is no second computation to compare with

Everything else is a fault: "raw" (an error that our code does not raise), "silent" (NaN or
infinity), "wrong" (another result than the second computation), "hang", "memory", "crash".
"""

import argparse
import dis
import json
import random
import resource
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

from deq_fusion.fusions.equilibrium import ConvergenceWarning
from unit_tests.fuzz.fusion_draws import deq_draw, registry_draw

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MEMORY = 20, 8 * 2**30  # of the processor a draw, of a process
FAULTS = ("raw", "silent", "wrong", "hang", "memory", "crash")
CHUNK = 500  # draws a process


class Outcome(NamedTuple):
    seed: int
    drawn: str  # what was drawn: "deq", or the name of the fusion
    kind: str
    detail: str = ""


class _TooLong(BaseException):
    """No error handler on the way may take it for its own."""


def outcome(seed: int) -> Outcome:
    """Returns what comes of a draw."""
    rng, drawn = random.Random(seed), "deq"
    torch.manual_seed(seed)
    try:
        with _limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            for message in (".*are read with their channels last", ".*channels to a group"):
                warnings.filterwarnings("ignore", message, UserWarning)
            if rng.random() < 0.25:
                drawn, check = registry_draw(rng)
            else:
                check = deq_draw(rng)
            kind, detail = check()
    except _TooLong:
        kind, detail = "hang", f"more than {SECONDS} s"
    except MemoryError as error:
        kind, detail = "memory", str(error)
    except Exception as error:  # whatever a fusion may raise is what is looked for
        kind = "refused" if _ours(error.__traceback__) else "raw"
        detail = f"{type(error).__name__}: {error}"
    return Outcome(seed, drawn, kind, " ".join(detail.split())[:400])


def _ours(traceback: TracebackType | None) -> bool:
    """Whether an error comes from a `raise` of the fusions' code."""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    if not Path(code.co_filename).is_relative_to(ROOT / "fusions"):
        return False
    raises = {i.offset for i in dis.get_instructions(code) if i.opname == "RAISE_VARARGS"}
    return traceback.tb_lasti in raises


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run(first: int, count: int, seen: Callable[[Outcome], None]) -> None:
    """Runs draws in processes of their own; one that dies is a crash of its present draw."""
    position, end = first, first + count
    while position < end:
        upto = min(position + CHUNK, end)
        command = [sys.executable, "-m", "unit_tests.fuzz.fusions", "--chunk"]
        child = subprocess.Popen(
            [*command, str(upto - position), str(position)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in child.stdout:
            seen(Outcome(*json.loads(line)))
            position += 1
        if child.wait():
            seen(Outcome(position, "?", "crash", f"the process ended with {child.returncode}"))
            position += 1


def table(outcomes: Counter) -> str:
    """Returns the counts as text: a row for DEQ fusion and for all others."""
    kinds = ["refused", "agrees", "finite", *FAULTS]
    rows = [["", *kinds]]
    for name in ("deq", "others"):
        rows.append([name, *(str(outcomes[name, kind]) for kind in kinds)])
    return "\n".join("  ".join(cell.rjust(7) for cell in row) for row in rows)


def _chunk(first: int, end: int) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for seed in range(first, end):
        print(json.dumps(outcome(seed)), flush=True)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m unit_tests.fuzz.fusions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("count", type=int, metavar="N", help="number of draws")
    parser.add_argument(
        "first", type=int, metavar="FIRST", nargs="?", default=0, help="the first draw (default: 0)"
    )
    parser.add_argument("--chunk", action="store_true", help=argparse.SUPPRESS)  # what a child runs
    arguments = parser.parse_args(given)
    if arguments.count < 1 or arguments.first < 0:
        parser.error("N must be at least 1 and FIRST at least 0")
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the draws asked for, prints their faults and a table; 1 if there are faults."""
    arguments = _arguments(given)
    count, first = arguments.count, arguments.first
    if arguments.chunk:
        _chunk(first, first + count)
        return 0
    counts: Counter = Counter()

    def seen(found: Outcome) -> None:
        counts["deq" if found.drawn == "deq" else "others", found.kind] += 1
        if found.kind in FAULTS:
            print(*found, flush=True)

    run(first, count, seen)
    print(f"{count} draws from {first}\n{table(counts)}")
    return int(any(counts[name, kind] for name in ("deq", "others") for kind in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
