"""Every method in every run: in parallel, each result stored at once, nothing done twice."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

from .methods import Method, gather
from .recipe import Fusion, Recipe
from .search import choices
from .single_run import Analysis
from .store import open_folder, run_and_store, stored


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        results: of every method in every run, method by method; the keys of each are listed at
            `single_run.run_fusion`.
        skipped: fusion -> why it cannot take the recipe.
        failures: runs that raised: `method`, `run` and `error`, the traceback.
    """

    results: list[dict[str, Any]]
    skipped: dict[str, str]
    failures: list[dict[str, Any]]


def compare(
    recipe: Recipe,
    fusions: Mapping[str, Fusion],
    *,
    runs: Sequence[int],
    output: str | Path,
    unimodal: bool = True,
    trials: int = 1,
    drop_modality: bool = False,
    analyse: Analysis | None = None,
    codes: Mapping[str, str] | None = None,
    jobs: int | None = 1,
    threads: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> Comparison:
    """Trains every method (floors, single modalities, fusions) in every run.

    Each result is written to `output`/runs as soon as it is there, and read from there if it is
    there already; a run that was interrupted goes on from its checkpoint.

    Args:
        recipe: the benchmark.
        fusions: name -> fusion, see `recipe.Fusion` and `methods.refusal`.
        runs: run numbers; the seed and, if the recipe resplits, the split of each.
        output: folder of the results.
        unimodal: whether every single modality is a method, too.
        trials: hyperparameter settings that every fusion tries in every run, on validation data.
        drop_modality: whether to score with each modality missing, too.
        analyse: (trained, recipe) -> what JSON can hold; it is called with every trained model
            (`single_run.Trained`), and what it returns is stored with the run as `analysis`.
        codes: fusion -> a digest of its code, if results must not outlive it.
        jobs: processes to run in parallel; None leaves it to joblib's `parallel_config`, which
            may name another backend, such as dask: its workers need the same folders.
        threads: threads of each process.
        device: where to train.
        progress: shows a bar over the runs.

    Raises:
        MixedSettings: if `output` holds other runs.
        Unwritable: if it cannot be written to.
        ValueError: for no runs, for the same one twice, or for too many trials.
    """
    runs = list(runs)
    if not runs or len(set(runs)) < len(runs):
        raise ValueError(f"runs must be different numbers, at least one, got {runs}")
    if not fusions:
        raise ValueError("fusions must name at least one fusion, got none")
    methods, skipped = gather(recipe, fusions, unimodal=unimodal, codes=codes or {})
    for method in methods:
        if method.fusion is not None:
            choices(method, trials, runs[0])  # refuses too many of them before any work
    folder = open_folder(output, recipe)
    demands = {"trials": trials, "drop_modality": drop_modality}
    demands |= {} if analyse is None else {"analyse": analyse}
    done = {(m.name, run): stored(folder, m, run, demands) for m in methods for run in runs}
    todo = [(m, run) for run in runs for m in methods if done[m.name, run] is None]
    work = (
        joblib.delayed(run_and_store)(folder, method, run, demands, threads=threads, device=device)
        for method, run in _longest_first(todo, done)
    )
    bar = {"total": len(done), "initial": len(done) - len(todo), "unit": "run"}
    with _parallel(jobs, threads) as parallel:
        for result in tqdm(
            parallel(work), desc=recipe.name, disable=None if progress else True, **bar
        ):
            done[result["method"], result["run"]] = result
    found = [done[m.name, run] for m in methods for run in runs]
    failures = [result for result in found if "error" in result]
    return Comparison([r for r in found if "error" not in r], skipped, failures)


def _longest_first(
    todo: Sequence[tuple[Method, int]], done: Mapping[tuple[str, int], dict | None]
) -> Iterator[tuple[Method, int]]:
    """Yields all there is to do, the methods that took longest first: then the processes end
    at about the same time. A method of which no run has finished yet counts as the longest."""
    left = list(todo)
    while left:
        took = {r["method"]: r.get("seconds", 0.0) for r in list(done.values()) if r}
        left.sort(key=lambda item: -took.get(item[0].name, math.inf))  # stable
        yield left.pop(0)


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
        with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
            yield joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
