"""Kills a comparison again and again: `python -m unit_tests.fuzz.kills --kills 40 --terms 10`.

The same command is given until it is done, and given again in a new folder while kills are left.
Every table must be that of an undisturbed comparison, bit for bit but for times; no process,
lock, checkpoint or temporary file may be left. Then two comparisons at once, a killed worker and
a full disk. For Linux.
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from deq_fusion.training_structures.comparison import command_line, single_run
from deq_fusion.training_structures.comparison.lock import locked
from unit_tests.training_structures.comparison import toy

MARK = "UNIT_TESTS_FUZZ_KILLS"  # in the environment of every process of a comparison
GONE = 10.0  # seconds after which no process may be left; a busy machine takes some
SPAN = 3.0  # seconds in which a kill comes: once a run goes on, or after the first line
LIMIT = 4096  # bytes a file may have on what stands for a full disk
FORGOTTEN = "seconds", "made_by", "command"  # what may differ between repetitions
SELF = "from unit_tests.fuzz.kills import victim; victim()"


class Slow(toy.Sum):
    """Takes its time, so that there is some to be killed in."""

    def forward(self, features):
        time.sleep(0.04)
        return super().forward(features)


def build(*args):
    """The toy's model; checkpoints are written after every epoch, in whatever process."""
    single_run.CHECKPOINT_SECONDS = 0.0
    return toy.build(*args)


def load(run, modalities):
    """The toy's data, the training part read by a process of its own."""
    train, *others = toy.load(run, modalities)
    return type(train)(train.dataset, batch_size=train.batch_size, num_workers=1), *others


def recipe(data_dir=None):
    """The recipe of the comparison that is killed."""
    return toy.recipe(epochs=8, build=build, load=load)


def victim() -> None:
    """The program that is killed."""
    from unit_tests.fuzz import kills  # not __main__: workers are to import it

    command_line(
        {"toy": kills.recipe}, {"slow": kills.Slow, "slower": kills.Slow}, program="victim"
    )


class Victim:
    """A comparison in processes of its own, which are known by a mark in their environment."""

    def __init__(self, output: Path, *, largest: int | None = None) -> None:
        self.mark, self.output = uuid.uuid4().hex, output
        command = [sys.executable, "-c", SELF, "--runs", "3", "--jobs", "2", "--output", output]
        self.said = tempfile.TemporaryFile("a+", encoding="utf-8")
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.DEVNULL,
            stderr=self.said,
            env={**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"},
            preexec_fn=largest and partial(_bound_files, largest),
        )
        while not self._text() and self.process.poll() is None:  # until it is about to begin
            time.sleep(0.02)

    def _text(self) -> str:
        self.said.seek(0)
        return self.said.read()

    def processes(self) -> list[int]:
        """Returns the numbers of its processes that are there, whoever is their parent by now."""
        found, mark = [], f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                there = mark in (folder / "environ").read_bytes()
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:  # it has just ended
                continue
            if there and stat.rpartition(") ")[2][:1] not in ("Z", "X"):
                found.append(int(folder.name))
        return found

    def workers(self) -> list[int]:
        """Returns the numbers of the processes that train."""
        workers = []
        for number in self.processes():
            try:
                line = Path(f"/proc/{number}/cmdline").read_bytes()
            except OSError:
                continue
            if b"popen_loky" in line and number != self.process.pid:
                workers.append(number)
        return workers

    def until_at_work(self) -> None:
        """Waits until it writes something of a run, or has ended."""
        folder = self.output / "runs"
        before = _state(folder)
        while _state(folder) == before and self.process.poll() is None:
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Returns the exit code and what it said, once it and all that it started have ended."""
        code = self.process.wait(timeout=300)
        self.until_gone()
        with self.said:
            return code, self._text()

    def until_gone(self) -> None:
        """Waits until no process is left.

        Raises:
            AssertionError: if that takes longer than `GONE`.
        """
        began = time.monotonic()
        while left := self.processes():
            assert time.monotonic() - began < GONE, f"processes {left} are left of {self.output}"
            time.sleep(0.05)
        self.gone = time.monotonic() - began


def _progress(output: Path) -> str:
    names = [path.name for path in (output / "runs").glob("*")]
    kinds = ("json", "ckpt", "tmp")
    return ", ".join(f"{sum(n.endswith(kind) for n in names)} {kind}" for kind in kinds)


def _state(folder: Path) -> int:
    return folder.stat().st_mtime_ns if folder.exists() else 0


def _bound_files(largest: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


def table(output: Path) -> dict[str, Any]:
    """Returns all that a comparison has found, without times.

    Raises:
        AssertionError: if it has left what it must not.
    """
    left = [path for path in output.rglob("*") if re.search(r"ckpt|\.tmp|lock\.json", path.name)]
    assert not left, f"left behind: {left}"
    with locked(output):
        pass
    found = {}
    for path in [*sorted((output / "runs").iterdir()), output / "results.json"]:
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["sha256"]  # of the times, too
        found[path.name] = _timeless(content)
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in FORGOTTEN}
    return list(map(_timeless, value)) if isinstance(value, list) else value


def killed(folder: Path, signals: Sequence[int], random: Random, whole: dict) -> Iterator[str]:
    """Sends the signals at random moments, one to each start; yields what it has found."""
    signals, place, slowest = list(signals), 0, 0.0
    while signals:
        place += 1
        output, sent = folder / str(place), []
        while True:
            victim = Victim(output)
            if not signals:
                break
            if random.random() < 0.7:  # most when runs go on, the others before they begin
                victim.until_at_work()
            try:
                victim.process.wait(random.uniform(0, SPAN))
                break  # it was done before
            except subprocess.TimeoutExpired:
                sent.append(signals.pop())
                victim.process.send_signal(sent[-1])
            code, said = victim.end()
            slowest = max(slowest, victim.gone)
            if code != -sent[-1] or not (output / "results.json").exists():  # else it was leaving
                _check_end(sent[-1], code, said)
            yield f"{sent[-1].name}: exit code {code}, {_progress(output)}"
        _finish(victim, output, whole)
        names = ", ".join(f"{sent.count(s)} {s.name}" for s in sorted(set(sent)))
        yield f"comparison {place}: {names or 'undisturbed'}; the table is the same"
    yield f"no process was left after at most {slowest:.1f} s"


def _finish(victim: Victim, output: Path, whole: dict) -> str:
    code, said = victim.end()
    assert code == 0, said
    assert table(output) == whole
    return said


def _check_end(number: int, code: int, said: str) -> None:
    """Looks at an end by SIGTERM; after SIGKILL the libraries of its workers may say things."""
    if number == signal.SIGTERM and code != 0:  # it may have been done by then
        assert code == 128 + number, (code, said)
        assert said.count("interrupted; the same command goes on") == 1 and len(said) < 200, said


def _until(happens: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def two_at_once(output: Path, whole: dict) -> str:
    """The second command ends at once, and names the first's process."""
    first = Victim(output)
    _until((output / ".lock.json").exists)
    began = time.monotonic()
    code, said = Victim(output).end()
    took = time.monotonic() - began
    assert code == 2 and f"in use by process {first.process.pid} on" in said, said
    _finish(first, output, whole)
    return f"two at once: the second ended after {took:.1f} s; the table is the same"


def killed_worker(output: Path, whole: dict) -> str:
    """The comparison goes on by itself, and says so once."""
    victim = Victim(output)
    _until(lambda: list((output / "runs").glob("*.ckpt")))
    os.kill(victim.workers()[0], signal.SIGKILL)
    said = _finish(victim, output, whole)
    assert said.count("a worker process was killed") == 1 and "Traceback" not in said, said
    return "a killed worker: it went on by itself; the table is the same"


def full_disk(output: Path, whole: dict) -> str:
    """Ends with one message; with space again, the same command goes on."""
    victim = Victim(output, largest=LIMIT)
    code, said = victim.end()
    assert code == 1 and said.count("could not write") == 1 and "Traceback" not in said, said
    assert "runs are done and kept" in said and len(said.splitlines()) <= 3, said
    _finish(Victim(output), output, whole)
    return f"no room for files: {said.splitlines()[-1][:70]}...; the table is the same"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs it all, and prints what happened.

    Raises:
        AssertionError: if something is not as it must be.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2, help="SIGKILLs (default: 2)")
    parser.add_argument("--terms", type=int, default=1, help="SIGTERMs (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args(argv)
    random = Random(args.seed)
    signals = [signal.SIGKILL] * args.kills + [signal.SIGTERM] * args.terms
    random.shuffle(signals)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code, said = Victim(folder / "whole").end()
        assert code == 0, said
        whole = table(folder / "whole")
        for line in killed(folder, signals, random, whole):
            print(line, flush=True)
        for scenario in (two_at_once, killed_worker, full_disk):
            print(scenario(folder / scenario.__name__, whole), flush=True)


if __name__ == "__main__":
    main()
