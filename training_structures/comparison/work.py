"""The runs of a comparison: in parallel, each result stored at once, nothing done twice."""

import math
import os
import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from ..event_log import Watch
from ..files import CannotWrite
from ..workers import settle
from .identity.reuse import Reuse
from .methods import KINDS, SYSTEM, Method
from .recipe import Score
from .report.progress import Progress
from .report.text import printable
from .store import run_and_store, stored


class Halted(RuntimeError):
    """A comparison cannot go on for now; what is finished is kept, and the message says how."""


@dataclass
class Work:
    """All runs of a comparison, done or still to do.

    Attributes:
        name: what is compared.
        folder: of the runs.
        methods: what there is to do, each of them in every run.
        runs: their numbers.
        demands: what else is asked of a run, see `store.run_and_store`.
        reuse: what of stored runs is used again.
        jobs: processes to run in parallel, see `compare`.
        threads: of each process.
        device: where to train.
        progress: whether it is told how far the work is.
        watch: sees every epoch, see `compare`.
        scores: the first of them that a run has is told meanwhile.
        kept: whether the folder stays.
        done: (method, run) -> its result, None before it has ended.
    """

    name: str
    folder: Path
    methods: Sequence[Method]
    runs: Sequence[int]
    demands: Mapping[str, Any]
    reuse: Reuse
    jobs: int | None
    threads: int
    device: str
    progress: bool
    watch: Watch | None
    scores: Sequence[Score]
    kept: bool = True
    done: dict[tuple[str, int], dict | None] = field(default_factory=dict)

    def _read(self) -> None:
        """Reads the runs that are stored; what is of no use is renamed, and told to `reuse`."""
        for method in self.methods:
            for run in self.runs:
                if self.done.get((method.name, run)) is None:
                    found = stored(self.folder, method, run, self.demands, self.reuse)
                    self.done[method.name, run] = found

    def _tell(self) -> list[str]:
        """Says what was read, and returns it; warns of files that were set aside."""
        aside = self.reuse.aside
        if aside:
            names = ", ".join(path.name for path in aside[:3]) + (", ..." if aside[3:] else "")
            warnings.warn(
                f"{len(aside)} files in {aside[0].parent} were damaged, or of an earlier version; "
                f"they were renamed ({names}), and what they held is made again",
                stacklevel=3,
            )
        told = self.reuse.told(len(self.done))
        for line in told if self.progress else []:
            tqdm.write(printable(line), file=sys.stderr)
        return told

    def carry_out(self) -> list[str]:
        """Carries out all that is not stored, and returns sentences on what is.

        It goes on once by itself if a worker process is killed.

        Raises:
            Halted: if that happens again, or the folder cannot be written to.
            ValueError: if the work cannot be sent to other processes.
        """
        self._read()
        told = self._tell()
        try:
            try:
                self._all()
            except TerminatedWorkerError:
                self._read()
                warnings.warn(
                    f"a worker process was killed, perhaps for want of memory; {self._count()}, "
                    "and new processes go on with the others",
                    stacklevel=3,
                )
                self._all()
        except TerminatedWorkerError as error:
            self._read()
            raise Halted(
                f"worker processes were killed, twice: {self._count()}. Take fewer jobs (--jobs), "
                f"or see that there is more memory{self._again}"
            ) from error
        except CannotWrite as error:
            self._read()
            raise Halted(f"{error}. {self._count()}{self._again}") from error
        except (pickle.PicklingError, BrokenProcessPool) as error:
            what, cause = self._not_sent() or ("the work", error.__cause__ or error)
            last = str(cause).strip('"\n ').splitlines()[-1:] or [type(cause).__name__]
            raise ValueError(
                f"{what} must be sent to other processes, but cannot be pickled "
                f"({printable(last[0])}); make it of functions and classes at the top of a module, "
                "or take one job (--jobs 1)"
            ) from error
        return told

    def _not_sent(self) -> tuple[str, Exception] | None:
        """Returns what of a run cannot be pickled, in words, and why; None if all can be."""
        parts: dict[str, Any] = {}
        for method in self.methods:  # a system has a recipe of its own
            whose = f"the system {method.name}'s" if method.kind == SYSTEM else "the recipe's"
            own = method.recipe
            parts |= {f"{whose} {f.name}": getattr(own, f.name) for f in fields(own)}
        parts |= {f"the {m.kind} {m.name}": m.fusion for m in self.methods}
        parts |= {"the analysis": self.demands.get("analyse")}
        for what, part in parts.items():
            try:
                dumps(part)
            except Exception as error:  # whatever its own methods raise
                return printable(what), error
        return None

    def _all(self) -> None:
        todo = [(m, r) for r in self.runs for m in self.methods if self.done[m.name, r] is None]
        asked = {"threads": self.threads, "device": self.device, "watch": self.watch}
        known = self.reuse.known
        work = (
            joblib.delayed(run_and_store)(
                self.folder, method, run, self.demands, identity=known[method.name], **asked
            )
            for method, run in self._in_order(todo)
        )
        with (
            Progress(self.name, self.done, self.scores, shown=self.progress) as progress,
            _parallel(self.jobs, self.threads) as parallel,
            _closing(parallel(work)) as results,
        ):
            for result in results:
                self.done[result["method"], result["run"]] = result
                progress.tell(result)

    def _in_order(self, todo: Sequence[tuple[Method, int]]) -> Iterator[tuple[Method, int]]:
        """Yields all there is to do: what takes least, floors and single modalities, for there to
        be scores to see; then the fusions that took longest, and so the processes end at about the
        same time. One of which no run has finished yet counts as the longest."""
        left = list(todo)
        while left:
            took = {r["method"]: r.get("seconds", 0.0) for r in list(self.done.values()) if r}
            left.sort(  # stable
                key=lambda item: (KINDS.index(item[0].kind), -took.get(item[0].name, math.inf))
            )
            yield left.pop(0)

    def _count(self) -> str:
        finished = sum(
            result is not None and "error" not in result for result in self.done.values()
        )
        where = f" and kept in {self.folder}" if self.kept else ""
        return f"{finished} of {len(self.done)} runs are done{where}"

    @property
    def _again(self) -> str:
        return "; the same command goes on" if self.kept else ""


@contextmanager
def _closing(results: Iterable[dict]) -> Iterator[Iterable[dict]]:
    """Ends joblib's workers at once if the results are not all wanted, without its advice."""
    try:
        yield results
    finally:
        if hasattr(results, "close"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results.close()


@contextmanager
def _parallel(jobs: int | None, threads: int) -> Iterator[joblib.Parallel]:
    """Yields joblib's Parallel, giving results as they come where its backend can."""
    if jobs is None:
        try:
            parallel = joblib.Parallel(return_as="generator_unordered")
        except ValueError:  # dask's gives them all at the end
            parallel = joblib.Parallel()
        yield parallel
    else:
        own = {"initializer": settle, "initargs": (os.getpid(),)} if jobs > 1 else {}
        with joblib.parallel_config(backend="loky", inner_max_num_threads=threads, **own):
            yield joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
