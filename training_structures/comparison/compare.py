"""Every method in every run: in parallel, each result stored at once, nothing done twice."""

import math
import os
import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from ..event_log import Watch
from ..files import CannotWrite
from ..workers import settle, watched
from .identity.decides import Identities
from .methods import Method, gather
from .recipe import Fusion, Recipe
from .results import check_alike
from .reuse import Reuse
from .search import check_search, searched_by, told
from .single_run import Analysis, run_floor, run_fusion
from .store import opened, run_and_store, stored
from .text import printable


class Halted(RuntimeError):
    """A comparison cannot go on for now; what is finished is kept, and the message says how."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        results: of every method in every run, method by method; the keys of each are listed at
            `single_run.run_fusion`.
        skipped: fusion -> why it cannot take the recipe.
        failures: runs that raised: `method`, `run` and `error`, the traceback.
        reused: sentences on the stored runs that were used again, and on those that were not.
    """

    results: list[dict[str, Any]]
    skipped: dict[str, str]
    failures: list[dict[str, Any]]
    reused: list[str] = field(default_factory=list, compare=False)


def compare(
    recipe: Recipe,
    fusions: Mapping[str, Fusion],
    *,
    runs: Sequence[int],
    output: str | Path,
    unimodal: bool = True,
    trials: int = 1,
    prune: bool = False,
    drop_modality: bool = False,
    analyse: Analysis | None = None,
    jobs: int | None = 1,
    threads: int = 1,
    device: str = "cpu",
    progress: bool = True,
    watch: Watch | None = None,
) -> Comparison:
    """Trains every method (floors, single modalities, fusions) in every run.

    Each result is written to `output`/runs as soon as it is there, and read from there if it is
    there already, unless code, data or versions have changed since: then it is made again, and
    the old file kept under another name. A run that was interrupted goes on from its checkpoint.

    Args:
        recipe: the benchmark.
        fusions: name -> fusion, see `recipe.Fusion` and `methods.refusal`.
        runs: run numbers; the seed and, if the recipe resplits, the split of each.
        output: folder of the results.
        unimodal: whether every single modality is a method, too.
        trials: hyperparameter settings that every fusion tries in every run, on validation data.
        prune: whether trials end early that are worse than earlier ones, see `tpe.TPE`.
        drop_modality: whether to score with each modality missing, too.
        analyse: (trained, recipe) -> what JSON can hold; it is called with every trained model
            (`single_run.Trained`), and what it returns is stored with the run as `analysis`.
        jobs: processes to run in parallel; None leaves it to joblib's `parallel_config`, which
            may name another backend, such as dask: its workers need the same folders.
        threads: threads of each process.
        device: where to train.
        progress: shows a bar over the runs.
        watch: sees every epoch of every training, and changes nothing; see `event_log`.

    Raises:
        InUse: if another process is at work there.
        MixedSettings: if `output` holds other runs.
        Unwritable: if it cannot be written to.
        Halted: if it cannot go on for now, such as on a full disk; what is finished stays.
        ValueError: for no runs, for the same one twice, for too many trials, for a recipe that
            cannot be sent to other processes, or for what cannot be told from others
            (`identity.values.Unidentified`).
    """
    runs = list(runs)
    if not runs or len(set(runs)) < len(runs):
        raise ValueError(f"runs must be different numbers, at least one, got {runs}")
    if not fusions:
        raise ValueError("fusions must name at least one fusion, got none")
    methods, skipped = gather(recipe, fusions, unimodal=unimodal)
    for method in methods:
        if method.fusion is not None:
            check_search(method, trials)  # before any work
    by = searched_by(trials, prune=prune)
    if by is not None and progress:
        tqdm.write(told(trials, by), file=sys.stderr)
    demands = {"trials": trials, "drop_modality": drop_modality}
    demands |= {"prune": True} if prune else {}
    demands |= {} if analyse is None else {"analyse": analyse}
    identities = Identities(run_fusion, run_floor, analyse=analyse, search=by)
    reuse = Reuse(identities, {method.name: identities.of(method) for method in methods})
    with opened(output, recipe, reuse.aside) as folder, watched():
        how = jobs, threads, device, progress, watch
        work = Work(recipe.name, folder, methods, runs, demands, reuse, *how)
        work.read()
        reused = work.tell()
        work.carry_out()
    found = [work.done[m.name, run] for m in methods for run in runs]
    failures = [result for result in found if "error" in result]
    results = [result for result in found if "error" not in result]
    check_alike(results, folder)
    return Comparison(results, skipped, failures, reused)


@dataclass
class Work:
    """All runs of a comparison, done or still to do; the arguments are those of `compare`."""

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
    done: dict[tuple[str, int], dict | None] = field(default_factory=dict)

    def read(self) -> None:
        """Reads the runs that are stored; what is of no use is renamed, and told to `reuse`."""
        for method in self.methods:
            for run in self.runs:
                if self.done.get((method.name, run)) is None:
                    found = stored(self.folder, method, run, self.demands, self.reuse)
                    self.done[method.name, run] = found

    def tell(self) -> list[str]:
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

    def carry_out(self) -> None:
        """Carries out the others; goes on once by itself if a worker process is killed.

        Raises:
            Halted: if that happens again, or the folder cannot be written to.
            ValueError: if the work cannot be sent to other processes.
        """
        try:
            try:
                self._all()
            except TerminatedWorkerError:
                self.read()
                warnings.warn(
                    f"a worker process was killed, perhaps for want of memory; {self._count()}, "
                    "and new processes go on with the others",
                    stacklevel=3,
                )
                self._all()
        except TerminatedWorkerError as error:
            self.read()
            raise Halted(
                f"worker processes were killed, twice: {self._count()}. Take fewer --jobs, or see "
                "that there is more memory; the same command goes on"
            ) from error
        except CannotWrite as error:
            self.read()
            raise Halted(f"{error}. {self._count()}; the same command goes on") from error
        except (pickle.PicklingError, BrokenProcessPool) as error:
            cause = error.__cause__ or error
            last = str(cause).strip('"\n ').splitlines()[-1:] or [type(cause).__name__]
            raise ValueError(
                "what other processes are to do must be sent to them, but the recipe, a fusion or "
                f"the analysis cannot be pickled ({printable(last[0])}); make them of functions "
                "and classes at the top of a module, or take one job (--jobs 1)"
            ) from error

    def _all(self) -> None:
        todo = [(m, r) for r in self.runs for m in self.methods if self.done[m.name, r] is None]
        asked = {"threads": self.threads, "device": self.device, "watch": self.watch}
        known = self.reuse.known
        work = (
            joblib.delayed(run_and_store)(
                self.folder, method, run, self.demands, identity=known[method.name], **asked
            )
            for method, run in self._longest_first(todo)
        )
        bar = {"total": len(self.done), "initial": len(self.done) - len(todo), "unit": "run"}
        bar |= {"desc": self.name, "disable": None if self.progress else True}
        with _parallel(self.jobs, self.threads) as parallel, _closing(parallel(work)) as results:
            for result in tqdm(results, **bar):
                self.done[result["method"], result["run"]] = result

    def _longest_first(self, todo: Sequence[tuple[Method, int]]) -> Iterator[tuple[Method, int]]:
        """Yields all there is to do, the methods that took longest first: then the processes end
        at about the same time. A method of which no run has finished yet counts as the longest."""
        left = list(todo)
        while left:
            took = {r["method"]: r.get("seconds", 0.0) for r in list(self.done.values()) if r}
            left.sort(key=lambda item: -took.get(item[0].name, math.inf))  # stable
            yield left.pop(0)

    def _count(self) -> str:
        finished = sum(
            result is not None and "error" not in result for result in self.done.values()
        )
        return f"{finished} of {len(self.done)} runs are done and kept in {self.folder}"


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
